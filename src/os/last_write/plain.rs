//! A write like any other.

use mio::net::TcpStream;
use std::io::{self, Write};

/// Writes the last bytes before the end: how many were taken.
///
/// # Errors
/// Returns the OS error.
pub fn write_last(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    stream.write(bytes)
}
