//! `never-queue`: an idle provider if there is one, else as `shortest-delay`. It is `nq`
//! of LVS, for comparison.

use super::interface::Scheduler;
use super::key_index::MinKey;
use super::shortest_delay::delay;

/// Returns the scheduler.
pub fn never_queue() -> impl Scheduler {
    MinKey::by(|stats| (stats.used() > 0, delay(stats), stats.last_grant_seq))
}
