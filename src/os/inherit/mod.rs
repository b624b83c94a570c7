//! What did the starter of this process put on its descriptors?

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
pub use descriptors::take;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::take;

use std::net::TcpStream;

/// What was found on descriptor 0.
#[derive(Debug)]
pub enum Inherited {
    /// No socket of the Internet: this process was not started by a superserver.
    Nothing,
    /// One client (inetd `nowait`, tcpserver): a connected stream.
    Client(TcpStream),
    /// A socket of a kind that is not served: what it is.
    Other(&'static str),
}

/// What was found, and what was done about it.
#[derive(Debug)]
pub struct Found {
    /// On descriptor 0.
    pub inherited: Inherited,
    /// Descriptor 2 was the client: nothing may be written there, and by now
    /// it is the null device.
    pub stderr_was_client: bool,
}
