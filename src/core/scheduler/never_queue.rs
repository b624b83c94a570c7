//! `never-queue`: somebody idle, if there is one, else as `shortest-delay`;
//! `nq` of LVS, and for comparison like that one.

use super::interface::Scheduler;
use super::key_index::MinKey;
use super::shortest_delay::delay;

/// See the file's head.
pub fn never_queue() -> impl Scheduler {
    MinKey::by(|stats| (stats.used() > 0, delay(stats), stats.last_grant_seq))
}
