//! `least-loaded`: fewest requests per slot, with or without free tickets. The rank
//! in the rotation counts as a fraction of a request. It is `leastconn` with weights that
//! need no configuration.

use super::interface::{Candidates, Placement, ProviderStats, Scheduler};
use super::load_index::LoadIndex;

/// The scheduler. A choice takes logarithmic time.
#[derive(Default)]
pub struct LeastLoaded {
    loads: LoadIndex,
}

impl Scheduler for LeastLoaded {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        self.loads.lowest(candidates, placement, |_| (0, 1.0))
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        self.loads.insert(stats, 0, stats.used(), stats.weight);
    }

    fn on_remove(&mut self, slot: usize) {
        self.loads.remove(slot);
    }
}
