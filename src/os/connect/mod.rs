//! Connects over TCP without waiting for the answer.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn connect(SocketAddr, has_early_data: bool) -> io::Result<TcpStream>`: begins to
//!   connect. The socket is writable, or has an error, when that is done. Urgent data is
//!   inline from the first byte on.
//! - `fn on_first_write(&TcpStream)`: the early data is sent.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "plain.rs")]
mod backend;
pub use backend::{connect, on_first_write};
