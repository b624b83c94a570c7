//! `epoll_ctl(2)` without `EPOLLET`: a reader that expects one datagram reads once, without
//! a second call only to learn that there is no other.

use mio::net::UdpSocket;
use mio::{Registry, Token};
use std::io;
use std::os::fd::AsRawFd;

/// Whether an event comes again until all is read.
pub const LEVEL_TRIGGERED: bool = true;

/// The loop gets events while there is something to read. An error repeats, too, until it
/// is [taken](crate::os::datagram::take_refusals).
///
/// # Errors
/// Returns the OS error.
pub fn register_readable(
    registry: &Registry,
    socket: &mut UdpSocket,
    token: Token,
) -> io::Result<()> {
    let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token.0 as u64 };
    control(registry, libc::EPOLL_CTL_ADD, socket, event)
}

/// The loop gets no more events of this socket, also while another process has it.
///
/// # Errors
/// Returns the OS error.
pub fn deregister(registry: &Registry, socket: &mut UdpSocket) -> io::Result<()> {
    control(registry, libc::EPOLL_CTL_DEL, socket, libc::epoll_event { events: 0, u64: 0 })
}

fn control(
    registry: &Registry,
    operation: libc::c_int,
    socket: &UdpSocket,
    mut event: libc::epoll_event,
) -> io::Result<()> {
    // SAFETY: both descriptors are open, the event lives for the call.
    match unsafe {
        libc::epoll_ctl(registry.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
