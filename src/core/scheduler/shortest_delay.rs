//! `shortest-delay`: the shortest expected delay, (requests + 1) per ticket, as `sed` of
//! LVS with tickets as weights.
//!
//! It is for comparison. It lacks the fraction for the rotation, so all balancers choose
//! the same provider, and the first requests all go to the one with the most tickets.
//! Weights that stand for speed instead of slots make it worse: fast hosts are overloaded
//! while the others idle.

use super::interface::{ProviderStats, Scheduler};
use super::key_index::{ratio, MinKey};

/// Returns the scheduler.
pub fn shortest_delay() -> impl Scheduler {
    MinKey::by(|stats| (delay(stats), stats.last_grant_seq))
}

/// The expected delay as a key; the longest if there are no tickets.
pub fn delay(stats: &ProviderStats) -> u64 {
    ratio(f64::from(stats.used()) + 1.0, stats.tickets)
}
