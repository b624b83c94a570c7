//! `fifo`: the oldest free ticket first. The tickets of a message stay together, so one
//! provider is used up before the next.

use super::interface::Scheduler;
use super::key_index::MinKey;

/// Returns the scheduler.
pub fn fifo() -> impl Scheduler {
    MinKey::by(|stats| (stats.free_since_seq, stats.last_grant_seq))
}
