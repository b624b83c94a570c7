//! `round-robin`: the candidate granted longest ago, as in the paper's prototype.

use super::scheduler::Scheduler;
use super::sorted::Sorted;

/// See the file's head.
pub fn round_robin() -> impl Scheduler {
    Sorted::by(|record| [record.turn, 0, 0, 0])
}
