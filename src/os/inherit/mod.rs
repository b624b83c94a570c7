//! What did the starter of this process put on its descriptors?

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
pub use descriptors::{give_back, take};

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::{give_back, take};

use std::net::{TcpListener, TcpStream};

/// What was found on descriptor 0.
#[derive(Debug)]
pub enum Inherited {
    /// No socket of the Internet: this process was not started by a superserver.
    Nothing,
    /// One client (inetd `nowait`, tcpserver): a connected stream.
    Client(TcpStream),
    /// Listening sockets: one on descriptor 0 (inetd `wait`, for a while), or
    /// those that systemd passed, for good.
    Listeners {
        /// With the name that systemd gave each.
        sockets: Vec<(Option<String>, TcpListener)>,
        /// The starter takes its socket back when this process ends.
        lent: bool,
    },
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
