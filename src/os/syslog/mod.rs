//! The log of the system.
//!
//! # Required items
//!
//! A back end supplies `Syslog` with:
//!
//! - `Default`: not connected yet.
//! - `fn send(&mut self, severity: u8, text: &str) -> io::Result<()>`: sends one line. It may
//!   wait for the reader.

#[cfg_attr(unix, path = "socket.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
pub use backend::Syslog;
