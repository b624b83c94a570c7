//! `fifo`: the first ticket in the queue, strictly. The tickets of a message
//! stay together, so one provider is used up before the next.

use super::interface::Scheduler;
use super::key_index::MinKey;

/// See the file's head.
pub fn fifo() -> impl Scheduler {
    MinKey::by(|stats| (stats.free_since_seq, stats.last_grant_seq))
}
