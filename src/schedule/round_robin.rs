//! `round-robin`: the candidate granted longest ago, as in the paper's prototype.

use super::scheduler::{Question, Scheduler, View};

/// See the file's head.
pub struct RoundRobin;

impl Scheduler for RoundRobin {
    fn choose(&mut self, view: &dyn View, _: Question) -> Option<usize> {
        (0..view.len()).find(|place| view.candidate(*place).is_some())
    }
}
