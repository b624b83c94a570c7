//! `least-loaded`: fewest requests per slot, whatever is free; the place in
//! the rotation counts as a fraction of one request. `leastconn` with weights
//! that nobody configures.

use super::loads::Loads;
use super::scheduler::{Question, Record, Scheduler, View};

/// See the file's head.
#[derive(Default)]
pub struct LeastLoaded {
    loads: Loads,
}

impl Scheduler for LeastLoaded {
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        self.loads.lowest(view, question, |_| 0)
    }

    fn changed(&mut self, record: &Record) {
        self.loads.put(record, 0, record.used(), record.weight);
    }

    fn gone(&mut self, slot: usize) {
        self.loads.take(slot);
    }
}
