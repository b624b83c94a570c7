//! `round-robin`: the candidate granted longest ago, as in the paper's prototype.

use super::interface::Scheduler;
use super::key_index::MinKey;

/// Returns the scheduler.
pub fn round_robin() -> impl Scheduler {
    MinKey::by(|stats| stats.last_grant_seq)
}
