//! A Unix whose orphans go to the first process of the host: no other can keep.

use crate::os::signal::Signal;
use std::os::unix::net::UnixStream;

/// Process 1 is the host's own.
pub fn split_init() {}

/// No line: the first process does not stay.
pub fn line_for_successor() -> Option<UnixStream> {
    None
}

/// Never called.
pub fn inherit_line(_: UnixStream) {}

/// Not reported.
pub fn follow(_: u32) {}

/// Nothing to pass it on to.
pub fn pass_on(_: Signal) -> bool {
    false
}

/// Never.
pub fn stay() -> Option<i32> {
    None
}
