//! `shortest-delay`: the shortest expected delay, (requests + 1) per ticket, as
//! `sed` of LVS with the tickets as weight.
//!
//! It is for comparison. The fraction of the rotation is missing, so balancers
//! run after the same provider, and the first requests all go to the one with
//! the most tickets; weights that stand for speed rather than for places make
//! it worse: the fast machines are overloaded while the others idle.

use super::scheduler::{Record, Scheduler};
use super::sorted::{ratio, Sorted};

/// See the file's head.
pub fn shortest_delay() -> impl Scheduler {
    Sorted::by(|record| [delay(record), record.turn, 0, 0])
}

/// The expected delay as a key; the longest where there are no tickets.
pub fn delay(record: &Record) -> u64 {
    ratio(f64::from(record.used()) + 1.0, record.tickets)
}
