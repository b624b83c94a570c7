//! `splice(2)` of Linux, through a pipe.

use super::PIPE_BYTES;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A pipe that bytes pass through on their way from socket to socket.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// An empty pipe, as large as the system allows this user.
    ///
    /// # Errors
    /// Returns the OS error, for example when no descriptor is free.
    pub fn new() -> io::Result<Pipe> {
        let mut ends: [RawFd; 2] = [-1; 2];
        // SAFETY: the call fills the two places it is given.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptors are new and owned by nothing else.
        let pipe = unsafe {
            Pipe { read: OwnedFd::from_raw_fd(ends[0]), write: OwnedFd::from_raw_fd(ends[1]) }
        };
        // SAFETY: a plain call on an open descriptor. Refused, the pipe keeps its usual size.
        unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int) };
        Ok(pipe)
    }

    /// Takes what `from` has into the pipe, which must be empty: how many bytes,
    /// 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet; what else the system says.
    pub fn fill(&self, from: &impl AsRawFd) -> io::Result<usize> {
        splice(from.as_raw_fd(), self.write.as_raw_fd(), PIPE_BYTES)
    }

    /// Gives up to `most` bytes of the pipe to `to`: how many.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; what else the system says.
    pub fn drain(&self, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
        splice(self.read.as_raw_fd(), to.as_raw_fd(), most)
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: plain descriptors, no offsets.
    let count =
        unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), most, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
