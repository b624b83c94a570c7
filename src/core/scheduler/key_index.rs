//! Candidates in the order of a key, kept as they change: the lowest one costs
//! the logarithm of their number.
//!
//! Owns [`KeyIndex`], the ordered sets, and [`MinKey`], the scheduler that is
//! nothing but a key.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use crate::base::ordered_index::{Numbers, OrderedIndex};

/// Slots by a key, each state of those who can take something apart.
#[derive(Debug, Default)]
pub struct KeyIndex {
    indexes: [OrderedIndex; Availability::GRANTABLE],
    /// By slot: in which order, with which key.
    entries: Vec<Option<(usize, Numbers)>>,
}

impl KeyIndex {
    /// Puts a slot where its provider's state and key belong.
    pub fn insert(&mut self, slot: usize, state: Availability, key: Numbers) {
        let place = state.grantable().map(|order| (order, key));
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, None);
        }
        if self.entries[slot] == place {
            return;
        }
        self.remove(slot);
        if let Some((order, key)) = place {
            self.indexes[order].insert(key, slot);
            self.entries[slot] = place;
        }
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: usize) {
        if let Some((order, key)) = self.entries.get_mut(slot).and_then(Option::take) {
            self.indexes[order].remove(key, slot);
        }
    }

    /// Those of one state in order; none for a state that takes nothing.
    pub fn of(&self, state: Availability) -> Option<&OrderedIndex> {
        state.grantable().map(|order| &self.indexes[order])
    }

    /// The slot of the candidate with the lowest key.
    pub fn lowest(&self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        let orders = placement.availabilities().iter().filter_map(|state| self.of(*state));
        // Only those whom the asker avoids are passed over, and they are few.
        let lowest = orders.filter_map(|order| order.find(|slot| candidates.candidate(slot).is_some()));
        lowest.min().map(|(_, slot)| slot)
    }
}

/// The candidate with the lowest key; equals by their slot, so a key that
/// should make them take turns ends in [`ProviderStats::last_grant_seq`].
pub struct MinKey {
    key: fn(&ProviderStats) -> Numbers,
    index: KeyIndex,
}

impl MinKey {
    /// A scheduler by this key.
    pub fn by(key: fn(&ProviderStats) -> Numbers) -> MinKey {
        MinKey { key, index: KeyIndex::default() }
    }
}

impl Scheduler for MinKey {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        self.index.lowest(candidates, placement)
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        self.index.insert(stats.slot, stats.availability, (self.key)(stats));
    }

    fn on_remove(&mut self, slot: usize) {
        self.index.remove(slot);
    }
}

/// `count` for each of `weight`, as a key; infinite for no weight.
pub fn ratio(count: f64, weight: u32) -> u64 {
    // Floats that are not negative are in the order of their bits.
    (count / f64::from(weight)).to_bits()
}
