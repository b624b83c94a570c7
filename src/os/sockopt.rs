//! `setsockopt(2)`.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

/// Sets an option of a socket to a plain value.
///
/// # Errors
/// Returns the OS error.
pub fn set<T: Copy>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value lives for the call and has this length.
    match unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
