//! The rotation: all providers, the one granted longest ago first.
//!
//! Owns the rank of a provider, in logarithmic time: a row of positions, in which a
//! granted provider moves to the end, and a Fenwick tree (1994) that counts the providers
//! before a position.

/// The rotation. Slots are the providers' numbers.
#[derive(Debug, Default)]
pub struct Rotation {
    /// By slot: its turn and its position.
    by_slot: Vec<Option<(u64, u32)>>,
    /// By position: its slot, unless the provider has moved since.
    positions: Vec<Option<u32>>,
    /// Fenwick tree over the positions; its length is a power of two.
    tree: Vec<u32>,
    len: usize,
}

impl Rotation {
    /// Moves a provider to the end if this turn is a new one: it was granted or joined.
    pub fn insert(&mut self, slot: usize, turn: u64) {
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        if self.by_slot[slot].is_some_and(|(known, _)| known == turn) {
            return;
        }
        self.remove(slot);
        if self.positions.len() >= self.tree.len() {
            self.compact();
        }
        self.len += 1;
        self.append(slot, turn);
    }

    /// Removes a provider.
    pub fn remove(&mut self, slot: usize) {
        if let Some((_, position)) = self.by_slot.get_mut(slot).and_then(Option::take) {
            self.positions[position as usize] = None;
            self.count(position as usize, u32::MAX);
            self.len -= 1;
        }
    }

    /// How many providers there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no providers.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many providers have waited longer than this one.
    pub fn rank(&self, slot: usize) -> usize {
        let Some((_, position)) = self.by_slot.get(slot).copied().flatten() else {
            return self.len;
        };
        let (mut at, mut before) = (position, 0);
        while at > 0 {
            before += self.tree[at as usize - 1];
            at &= at - 1;
        }
        before as usize
    }

    fn append(&mut self, slot: usize, turn: u64) {
        let position = self.positions.len();
        self.positions.push(Some(slot as u32));
        self.by_slot[slot] = Some((turn, position as u32));
        self.count(position, 1);
    }

    /// Adds to the count of a position, wrapping: `u32::MAX` subtracts one.
    fn count(&mut self, position: usize, more: u32) {
        let mut at = position + 1;
        while at <= self.tree.len() {
            self.tree[at - 1] = self.tree[at - 1].wrapping_add(more);
            at += at & at.wrapping_neg();
        }
    }

    /// Removes the gaps. At least as many moves as it costs steps follow before the next
    /// time.
    fn compact(&mut self) {
        let row = std::mem::take(&mut self.positions);
        self.tree = vec![0; (2 * self.len + 2).next_power_of_two().max(16)];
        for slot in row.into_iter().flatten() {
            if let Some((turn, _)) = self.by_slot[slot as usize] {
                self.append(slot as usize, turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn places_are_those_of_a_plain_list() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let (mut rotation, mut list) = (Rotation::default(), Vec::new());
            for turn in 0..400 {
                let slot = random.below(1 + seed as usize);
                list.retain(|other| *other != slot);
                if random.below(5) == 0 {
                    rotation.remove(slot);
                } else {
                    rotation.insert(slot, turn);
                    list.push(slot);
                }
                assert_eq!(rotation.len(), list.len());
                for (place, slot) in list.iter().enumerate() {
                    assert_eq!(rotation.rank(*slot), place, "seed {seed}, turn {turn}");
                }
            }
        }
    }
}
