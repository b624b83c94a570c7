//! Registers a datagram socket for reading.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn register_readable(&Registry, &mut UdpSocket, Token) -> io::Result<()>`.
//! - `const LEVEL_TRIGGERED: bool`: whether an event repeats until everything is read.

#[cfg_attr(pegasus_linux, path = "level.rs")]
#[cfg_attr(not(pegasus_linux), path = "edge.rs")]
mod backend;
pub use backend::{register_readable, LEVEL_TRIGGERED};
