//! `fifo`: the first ticket in the queue, strictly. The tickets of a message
//! stay together, so one provider is used up before the next.

use super::key_index::MinKey;
use super::scheduler::Scheduler;

/// See the file's head.
pub fn fifo() -> impl Scheduler {
    MinKey::by(|record| [record.free_since_seq, record.last_grant_seq, 0, 0])
}
