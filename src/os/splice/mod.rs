//! Moves bytes from one socket to another inside the kernel.
//!
//! # Required items
//!
//! A back end supplies `Pipe` with:
//!
//! - `fn new() -> io::Result<Pipe>`: `Unsupported` where bytes are always copied.
//! - `fn fill(&self, &from) -> io::Result<usize>`: moves bytes from a socket into the pipe.
//! - `fn drain(&self, &to, usize) -> io::Result<usize>`: moves bytes from the pipe to a socket.

#[cfg_attr(pegasus_linux, path = "pipe.rs")]
#[cfg_attr(not(pegasus_linux), path = "none.rs")]
mod backend;
pub use backend::Pipe;

/// Bytes that a pipe may hold, where the system allows it: with the usual
/// 64 KiB splicing costs as much as copying, with this a third of it.
#[cfg_attr(not(pegasus_linux), allow(dead_code))] // others have no splice
pub const PIPE_BYTES: usize = 1 << 20;
