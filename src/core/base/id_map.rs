//! Values by numbers that others choose.
//!
//! Owns an index of small entries beside a slab of the values. A hash table is up to half
//! empty, and is copied when it grows: here that costs 13 bytes an entry, whatever a value
//! takes.

use super::slab::{Key, Slab};
use std::collections::HashMap;

/// A map from ids to values.
#[derive(Debug)]
pub struct IdMap<T> {
    /// Where the value of each id is.
    keys: HashMap<u32, Key>,
    values: Slab<T>,
}

impl<T> Default for IdMap<T> {
    fn default() -> Self {
        IdMap { keys: HashMap::new(), values: Slab::default() }
    }
}

impl<T> IdMap<T> {
    /// How many values are in it.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether there is a value with this id.
    pub fn contains(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    /// Puts a value in, in the place of one with the same id.
    ///
    /// # Panics
    /// With four thousand million values in it; every user has a far lower bound.
    pub fn insert(&mut self, id: u32, value: T) {
        self.remove(id);
        self.keys.insert(id, self.values.insert(value));
    }

    /// Takes a value out.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        self.values.remove(self.keys.remove(&id)?)
    }

    /// All values with their ids, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.keys.iter().filter_map(|(id, key)| Some((*id, self.values.get(*key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn it_does_what_a_hash_map_does_and_reuses_its_slots() {
        let (mut map, mut twin) = (IdMap::default(), HashMap::new());
        let mut random = Random::new(7);
        let mut most = 0;
        for number in 0..20_000u32 {
            let id = random.below(300) as u32 * 0x00d0_0001;
            if random.below(2) == 0 {
                map.insert(id, number);
                twin.insert(id, number);
            } else {
                assert_eq!(map.remove(id), twin.remove(&id));
            }
            most = most.max(twin.len());
            assert_eq!((map.len(), map.is_empty()), (twin.len(), twin.is_empty()));
            assert_eq!(map.contains(id), twin.contains_key(&id));
        }
        let all: HashMap<u32, u32> = map.iter().map(|(id, value)| (id, *value)).collect();
        assert_eq!(all, twin);
        let slots = map.values.slots();
        assert!(slots <= most, "{slots} slots for {most} values");
    }
}
