//! No sockets with paths.

use super::Stream;
use std::io;
use std::time::Duration;

/// Connects to nothing.
///
/// # Errors
/// Always.
pub(super) fn connect_path(_: &str, _: Duration) -> io::Result<Box<dyn Stream>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such sockets: HOST:PORT"))
}
