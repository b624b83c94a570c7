//! POSIX signals through a pipe (the self-pipe trick of D. J. Bernstein).

use super::{ONE, PENDING};
use mio::unix::pipe;
use mio::{Interest, Registry, Token, Waker};
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;

/// The writing end, for the handler.
static PIPE: AtomicI32 = AtomicI32::new(-1);

pub(super) struct SignalSource(pipe::Receiver);

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
use libc::___errno as errno_place;
#[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
use libc::__errno as errno_place;
#[cfg(not(any(
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "android",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_vendor = "apple",
    target_os = "illumos",
    target_os = "solaris"
)))]
use libc::__errno_location as errno_place;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_vendor = "apple"))]
use libc::__error as errno_place;

extern "C" fn handle(signal: libc::c_int) {
    // The thread that it interrupts may be about to look at its error.
    // SAFETY: the place is that of this thread, for as long as it lives.
    let errno = unsafe { *errno_place() };
    let which = match signal {
        libc::SIGHUP => 1,
        libc::SIGUSR1 => 2,
        libc::SIGUSR2 => 3,
        _ => 0,
    };
    PENDING.fetch_add(ONE[which], Ordering::Relaxed);
    // SAFETY: write(2) is async-signal-safe; the descriptor is never closed and
    // does not block; the byte lives for the call.
    unsafe {
        libc::write(PIPE.load(Ordering::Relaxed), [0u8].as_ptr().cast(), 1);
        *errno_place() = errno;
    }
}

pub(super) fn install(
    registry: &Registry,
    token: Token,
    _: &Arc<Waker>,
    _: bool,
) -> io::Result<SignalSource> {
    let (sender, mut receiver) = pipe::new()?;
    registry.register(&mut receiver, token, Interest::READABLE)?;
    PIPE.store(sender.into_raw_fd(), Ordering::Relaxed);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the structure is plain data, zero is a valid start for it, and
        // the handler does nothing but what a handler may do.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(SignalSource(receiver))
}

impl SignalSource {
    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.0.read(&mut bytes), Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_keeps_the_error_of_what_it_interrupts() {
        // No test of this crate installs the handler, so its write fails.
        assert_eq!(PIPE.load(Ordering::Relaxed), -1);
        // SAFETY: the place is that of this thread.
        unsafe { *errno_place() = libc::EDOM };
        handle(libc::SIGUSR1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EDOM));
    }
}
