//! Things with small numbers that are never confused with later values.
//!
//! Owns a vector of slots and a generation for each. A [`Key`] from before a
//! slot was emptied finds nothing, so a stale timer or event is harmless.

/// Names one value in one [`Slab`], for as long as it stays there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The slot's number: small, dense, reused after the value is gone.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// A vector with holes.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    /// Slots below this one stay empty.
    first: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::with_reserved(0)
    }
}

impl<T> Slab<T> {
    /// An empty one whose slot numbers begin at `first`, where others have the
    /// lower ones.
    pub fn with_reserved(first: usize) -> Slab<T> {
        Slab {
            slots: std::iter::repeat_with(|| (0, None)).take(first).collect(),
            free: Vec::new(),
            first,
        }
    }

    /// How many values are in it.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.first
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot number that the next value will get.
    pub fn next_index(&self) -> usize {
        self.free.last().map_or(self.slots.len(), |index| *index as usize)
    }

    /// Puts a value in.
    ///
    /// # Panics
    /// With four thousand million values in it; every user has a far lower bound.
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.1 = Some(value);
            return Key { index, generation: slot.0 };
        }
        let index = u32::try_from(self.slots.len()).expect("a slab of bounded size");
        self.slots.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.0 != key.generation {
            return None;
        }
        let value = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    /// The value, if it is still there.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.index()).filter(|slot| slot.0 == key.generation)?.1.as_ref()
    }

    /// The value, if it is still there.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.index()).filter(|slot| slot.0 == key.generation)?.1.as_mut()
    }

    /// The key of whatever is in this slot now.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        let (generation, value) = self.slots.get(index)?;
        value.as_ref().map(|_| Key { index: index as u32, generation: *generation })
    }

    /// The value in this slot, whatever its key.
    pub fn get_at(&self, index: usize) -> Option<&T> {
        self.slots.get(index)?.1.as_ref()
    }

    /// All slot numbers are below this one.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// All values with their keys, by slot number.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, value))| {
            value
                .as_ref()
                .map(|value| (Key { index: index as u32, generation: *generation }, value))
        })
    }

    /// All values, by slot number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.1.as_mut())
    }

    /// All keys, by slot number.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut slab = Slab::default();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_eq!(old.index(), new.index());
        assert_eq!(slab.get(old), None);
        assert_eq!((slab.remove(old), slab.len()), (None, 1));
        assert_eq!(slab.get(new), Some(&'b'));
    }
}
