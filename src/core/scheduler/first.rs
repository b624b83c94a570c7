//! `first`: the candidate with the lowest address, so one provider is filled
//! before the next gets anything, and those at the end may be switched off.
//! Addresses, not arrival: all balancers fill the same ones.

use super::interface::Scheduler;
use super::key_index::MinKey;

/// See the file's head.
pub fn first() -> impl Scheduler {
    MinKey::by(|stats| stats.provider)
}
