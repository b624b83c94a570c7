//! `fifo`: the first ticket in the queue, strictly. The tickets of a message
//! stay together, so one provider is used up before the next.

use super::scheduler::{Question, Scheduler, View};

/// See the file's head.
pub struct Fifo;

impl Scheduler for Fifo {
    fn choose(&mut self, view: &dyn View, _: Question) -> Option<usize> {
        (0..view.len()).filter_map(|place| Some((view.candidate(place)?.since, place))).min().map(|(_, place)| place)
    }
}
