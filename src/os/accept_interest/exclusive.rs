//! `EPOLLEXCLUSIVE` of Linux 4.5: a client wakes one loop that sleeps, not all of them.
//!
//! The system wakes the loop that registered first, as long as that sleeps. With
//! [`take_turns`] a loop lines up again, so that clients that come slowly and stay do
//! not all stay with one loop.

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::AsRawFd;

/// Events report that clients came. An older system reports them to all loops.
///
/// # Errors
/// Returns the OS error.
pub fn register(registry: &Registry, listener: &mut TcpListener, token: Token) -> io::Result<()> {
    match add(registry, listener, token) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            registry.register(listener, token, Interest::READABLE)
        }
        added => added,
    }
}

/// No more events. Closing this copy of the listener is not enough: as long as another
/// copy is open, perhaps in another process, this loop would still be woken, in the
/// place of one that accepts.
pub fn deregister(registry: &Registry, listener: &mut TcpListener) {
    // SAFETY: both descriptors are open; this call needs no event.
    unsafe {
        libc::epoll_ctl(
            registry.as_raw_fd(),
            libc::EPOLL_CTL_DEL,
            listener.as_raw_fd(),
            std::ptr::null_mut(),
        );
    }
}

/// Lets other loops be woken before this one. If clients wait, an event reports them
/// again.
pub fn take_turns(registry: &Registry, listener: &mut TcpListener, token: Token) {
    deregister(registry, listener);
    // What could be added once can be added again: there is room for it.
    let _ = register(registry, listener, token);
}

fn add(registry: &Registry, listener: &TcpListener, token: Token) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32;
    let mut event = libc::epoll_event { events, u64: token.0 as u64 };
    // SAFETY: both descriptors are open, the event lives for the call.
    let failed = unsafe {
        libc::epoll_ctl(
            registry.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            listener.as_raw_fd(),
            &raw mut event,
        )
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
