//! `first`: the candidate with the lowest address. One provider is filled before the next
//! gets anything, so the last ones may be switched off. It goes by address, not by
//! arrival, so that all balancers fill the same ones.

use super::interface::Scheduler;
use super::key_index::MinKey;

/// Returns the scheduler.
pub fn first() -> impl Scheduler {
    MinKey::by(|stats| stats.provider)
}
