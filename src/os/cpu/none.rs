//! A system of which we know no reading.

use super::Times;

/// Nothing to tell.
pub fn times() -> Option<Times> {
    None
}

/// Nothing to tell.
pub fn runnable() -> Option<u32> {
    None
}
