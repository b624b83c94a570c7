//! A system where no process can keep for others.

use crate::os::signal::Signal;

/// Never process 1.
pub fn split_init() {}

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
