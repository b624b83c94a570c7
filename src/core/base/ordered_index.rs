//! Slots in the order of a key.
//!
//! Owns a balanced tree of (key, slot): the lowest key costs the logarithm of
//! their number. For what must be found by rank and moves often: candidates of a
//! scheduler, leases.

use std::collections::BTreeSet;

/// Slots ordered by keys of type `K`. A slot may be in it under several keys.
#[derive(Debug)]
pub struct OrderedIndex<K>(BTreeSet<(K, u32)>);

impl<K> Default for OrderedIndex<K> {
    fn default() -> Self {
        OrderedIndex(BTreeSet::new())
    }
}

impl<K: Ord + Copy> OrderedIndex<K> {
    /// Enters a slot under a key.
    pub fn insert(&mut self, key: K, slot: usize) {
        self.0.insert((key, slot as u32));
    }

    /// Removes a slot from under a key. Returns whether it was there.
    pub fn remove(&mut self, key: K, slot: usize) -> bool {
        self.0.remove(&(key, slot as u32))
    }

    /// The lowest key and its slot; of equal keys, the lowest slot.
    pub fn first(&self) -> Option<(K, usize)> {
        self.0.first().map(|(key, slot)| (*key, *slot as usize))
    }

    /// The first entry that is not below this one.
    pub fn from(&self, key: K, slot: usize) -> Option<(K, usize)> {
        self.0.range((key, slot as u32)..).next().map(|(key, slot)| (*key, *slot as usize))
    }

    /// The first entry whose slot is `wanted`. It looks at all entries before it.
    pub fn find(&self, mut wanted: impl FnMut(usize) -> bool) -> Option<(K, usize)> {
        let found = self.0.iter().find(|(_, slot)| wanted(*slot as usize));
        found.map(|(key, slot)| (*key, *slot as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_the_lowest_key_and_equal_keys_go_by_slot() {
        let mut index = OrderedIndex::default();
        for (key, slot) in [((2, 0), 1), ((1, 9), 5), ((1, 9), 3), ((1, 10), 2)] {
            index.insert(key, slot);
        }
        assert_eq!(index.first(), Some(((1, 9), 3)));
        assert_eq!(index.from((1, 9), 4), Some(((1, 9), 5)));
        assert_eq!(index.find(|slot| slot < 3), Some(((1, 10), 2)));
        assert!(index.remove((1, 9), 3) && !index.remove((1, 9), 3));
        assert_eq!((index.first(), index.from((3, 0), 0)), (Some(((1, 9), 5)), None));
    }
}
