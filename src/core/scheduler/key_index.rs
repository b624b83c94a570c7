//! Candidates in the order of a key. Finding the lowest costs the logarithm of their
//! number.
//!
//! Owns [`KeyIndex`], the ordered sets, and [`MinKey`], a scheduler that consists of a
//! key.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use crate::base::ordered_index::OrderedIndex;

/// Slots ordered by a key, one index for each availability that can be granted.
#[derive(Debug)]
pub struct KeyIndex<K> {
    indexes: [OrderedIndex<K>; Availability::GRANTABLE],
    /// By slot: its index and its key.
    entries: Vec<Option<(usize, K)>>,
}

impl<K> Default for KeyIndex<K> {
    fn default() -> Self {
        KeyIndex { indexes: Default::default(), entries: Vec::new() }
    }
}

impl<K: Ord + Copy> KeyIndex<K> {
    /// Enters a slot under its provider's availability and key.
    pub fn insert(&mut self, slot: usize, availability: Availability, key: K) {
        let entry = availability.grantable().map(|number| (number, key));
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, None);
        }
        if self.entries[slot] == entry {
            return;
        }
        self.remove(slot);
        if let Some((number, key)) = entry {
            self.indexes[number].insert(key, slot);
            self.entries[slot] = entry;
        }
    }

    /// Removes a slot.
    pub fn remove(&mut self, slot: usize) {
        if let Some((number, key)) = self.entries.get_mut(slot).and_then(Option::take) {
            self.indexes[number].remove(key, slot);
        }
    }

    /// The slots of one availability in order; `None` for one that is never granted.
    pub fn of(&self, availability: Availability) -> Option<&OrderedIndex<K>> {
        availability.grantable().map(|number| &self.indexes[number])
    }

    /// The slot of the candidate with the lowest key.
    pub fn lowest(&self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        let indexes =
            placement.availabilities().iter().filter_map(|availability| self.of(*availability));
        // Only the few providers that the request avoids are passed over.
        let lowest =
            indexes.filter_map(|index| index.find(|slot| candidates.candidate(slot).is_some()));
        lowest.min().map(|(_, slot)| slot)
    }
}

/// Chooses the candidate with the lowest key; among equals, the lowest slot. A key that
/// should make equals take turns ends in [`ProviderStats::last_grant_seq`].
pub struct MinKey<K> {
    key: fn(&ProviderStats) -> K,
    index: KeyIndex<K>,
}

impl<K: Ord + Copy> MinKey<K> {
    /// Returns a scheduler with this key.
    pub fn by(key: fn(&ProviderStats) -> K) -> MinKey<K> {
        MinKey { key, index: KeyIndex::default() }
    }
}

impl<K: Ord + Copy + Send> Scheduler for MinKey<K> {
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

/// `count` divided by `weight`, as an ordered key; infinite if `weight` is 0.
pub fn ratio(count: f64, weight: u32) -> u64 {
    // Floats that are not negative have the order of their bits.
    (count / f64::from(weight)).to_bits()
}
