//! `never-queue`: somebody idle, if there is one, else as `shortest-delay`;
//! `nq` of LVS, and for comparison like that one.

use super::scheduler::Scheduler;
use super::shortest_delay::delay;
use super::sorted::Sorted;

/// See the file's head.
pub fn never_queue() -> impl Scheduler {
    Sorted::by(|record| [(record.used() > 0).into(), delay(record), record.turn, 0])
}
