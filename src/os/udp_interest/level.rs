//! `epoll_ctl(2)` without `EPOLLET`: a reader that expects one datagram reads once, without
//! a second call only to learn that there is no other.

use mio::net::UdpSocket;
use mio::{Registry, Token};
use std::io;
use std::os::fd::AsRawFd;

/// Whether an event comes again until all is read.
pub const LEVEL_TRIGGERED: bool = true;

/// The loop gets events while there is something to read. An error repeats, too, until it
/// is [cleared](crate::os::datagram::clear_errors).
///
/// # Errors
/// Returns the OS error.
pub fn register_readable(
    registry: &Registry,
    socket: &mut UdpSocket,
    token: Token,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token.0 as u64 };
    // SAFETY: both descriptors are open, the event lives for the call.
    let failed = unsafe {
        libc::epoll_ctl(
            registry.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            socket.as_raw_fd(),
            &raw mut event,
        )
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
