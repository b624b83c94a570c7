//! Connects over TCP without waiting for the answer.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn connect(SocketAddr, has_early_data: bool) -> io::Result<TcpStream>`: begins to
//!   connect. The socket is writable, or has an error, when that is done.

#[cfg_attr(pegasus_linux, path = "quiet.rs")]
#[cfg_attr(not(pegasus_linux), path = "plain.rs")]
mod backend;
pub use backend::connect;
