//! Unix sockets.

use super::Stream;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Connects to the socket of this path.
///
/// # Errors
/// Returns the OS error.
pub(super) fn connect_path(path: &str, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    Ok(Box::new(stream))
}
