//! `MSG_MORE` of `send(2)`: the bytes wait for those that follow, or for the end.

use mio::net::TcpStream;
use std::io;
use std::os::fd::AsRawFd;

/// Writes the last bytes before the end: how many were taken.
///
/// # Errors
/// Returns the OS error.
pub fn write_last(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let (start, flags) = (bytes.as_ptr().cast(), libc::MSG_MORE | libc::MSG_NOSIGNAL);
    // SAFETY: the bytes live for the call, and are so many.
    let count = unsafe { libc::send(stream.as_raw_fd(), start, bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
