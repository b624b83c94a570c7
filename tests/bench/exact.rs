//! Exact waits for sockets.
//!
//! Owns the one call that epoll lacks: epoll knows whole milliseconds only, and a request
//! of the quickest host takes twelve of them.
#![cfg(target_os = "linux")]

use mio::{Events, Poll};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The longest wait, so that a thread that must end does.
const LONGEST: Duration = Duration::from_millis(200);

/// Waits for events, until a moment at most.
pub fn wait(poll: &mut Poll, events: &mut Events, until: Option<Instant>) {
    let left =
        until.map_or(LONGEST, |until| until.saturating_duration_since(Instant::now())).min(LONGEST);
    let mut descriptor = libc::pollfd { fd: poll.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let left = libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
    // SAFETY: one descriptor, a valid time, no signal mask.
    unsafe { libc::ppoll(&raw mut descriptor, 1, &raw const left, std::ptr::null()) };
    if let Err(error) = poll.poll(events, Some(Duration::ZERO)) {
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}");
        events.clear();
    }
}
