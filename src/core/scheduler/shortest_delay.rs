//! `shortest-delay`: the shortest expected delay, (requests + 1) per ticket, as
//! `sed` of LVS with the tickets as weight.
//!
//! It is for comparison. The fraction of the rotation is missing, so balancers
//! run after the same provider, and the first requests all go to the one with
//! the most tickets; weights that stand for speed rather than for places make
//! it worse: the fast hosts are overloaded while the others idle.

use super::interface::{ProviderStats, Scheduler};
use super::key_index::{ratio, MinKey};

/// See the file's head.
pub fn shortest_delay() -> impl Scheduler {
    MinKey::by(|stats| (delay(stats), stats.last_grant_seq))
}

/// The expected delay as a key; the longest where there are no tickets.
pub fn delay(stats: &ProviderStats) -> u64 {
    ratio(f64::from(stats.used()) + 1.0, stats.tickets)
}
