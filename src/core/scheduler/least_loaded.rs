//! `least-loaded`: fewest requests per slot, whatever is free; the place in
//! the rotation counts as a fraction of one request. `leastconn` with weights
//! that nobody configures.

use super::interface::{Candidates, Placement, ProviderStats, Scheduler};
use super::load_index::LoadIndex;

/// See the file's head.
#[derive(Default)]
pub struct LeastLoaded {
    loads: LoadIndex,
}

impl Scheduler for LeastLoaded {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        self.loads.lowest(candidates, placement, |_| 0)
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        self.loads.insert(stats, 0, stats.used(), stats.weight);
    }

    fn on_remove(&mut self, slot: usize) {
        self.loads.remove(slot);
    }
}
