//! Numbered things in the order of a key.
//!
//! Owns a balanced tree: whoever is first costs the logarithm of their number.
//! It is one type for everybody who keeps an order (schedulers, leases) because
//! each further type of key would be the tree's code once more.

use std::collections::BTreeSet;

/// A key: compared number by number. Those that an order does not need are 0.
pub type Numbers = [u64; 4];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place(Numbers, u32);

/// See the file's head. One thing may be in it under several keys.
#[derive(Debug, Default)]
pub struct OrderedIndex(BTreeSet<Place>);

impl OrderedIndex {
    /// An empty one.
    pub const fn new() -> OrderedIndex {
        OrderedIndex(BTreeSet::new())
    }

    /// Puts a thing in.
    pub fn insert(&mut self, key: Numbers, thing: usize) {
        self.0.insert(Place(key, thing as u32));
    }

    /// Takes a thing out; whether it was there.
    pub fn remove(&mut self, key: Numbers, thing: usize) -> bool {
        self.0.remove(&Place(key, thing as u32))
    }

    /// The first of all; equals by their number.
    pub fn first(&self) -> Option<(Numbers, usize)> {
        self.from(Numbers::default(), 0)
    }

    /// The first that does not come before this one.
    pub fn from(&self, key: Numbers, thing: usize) -> Option<(Numbers, usize)> {
        self.0.range(Place(key, thing as u32)..).next().map(|place| (place.0, place.1 as usize))
    }

    /// The first for which `wanted` says so; it should not be far.
    pub fn find(&self, mut wanted: impl FnMut(usize) -> bool) -> Option<(Numbers, usize)> {
        let found = self.0.iter().find(|place| wanted(place.1 as usize))?;
        Some((found.0, found.1 as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_lowest_and_equals_go_by_number() {
        let mut order = OrderedIndex::new();
        for (key, thing) in [([2, 0, 0, 0], 1), ([1, 9, 0, 0], 5), ([1, 9, 0, 0], 3), ([1, 9, 0, 1], 2)] {
            order.insert(key, thing);
        }
        assert_eq!(order.first(), Some(([1, 9, 0, 0], 3)));
        assert_eq!(order.from([1, 9, 0, 0], 4), Some(([1, 9, 0, 0], 5)));
        assert_eq!(order.find(|thing| thing < 3), Some(([1, 9, 0, 1], 2)));
        assert!(order.remove([1, 9, 0, 0], 3) && !order.remove([1, 9, 0, 0], 3));
        assert_eq!((order.first(), order.from([3, 0, 0, 0], 0)), (Some(([1, 9, 0, 0], 5)), None));
    }
}
