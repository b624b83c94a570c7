//! `fifo`: the first ticket in the queue, strictly. The tickets of a message
//! stay together, so one provider is used up before the next.

use super::scheduler::Scheduler;
use super::sorted::Sorted;

/// See the file's head.
pub fn fifo() -> impl Scheduler {
    Sorted::by(|record| [record.since, record.turn, 0, 0])
}
