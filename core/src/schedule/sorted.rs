//! Candidates in the order of a key, kept as they change: the lowest one costs
//! the logarithm of their number.
//!
//! Owns [`Index`], the ordered sets, and [`Sorted`], the scheduler that is
//! nothing but a key.

use super::scheduler::{Question, Record, Scheduler, State, View};
use std::collections::BTreeSet;

/// Slots by a key, each state of those who can take something apart.
#[derive(Debug)]
pub struct Index<K> {
    sets: [BTreeSet<(K, u32)>; State::TAKING],
    /// By slot: in which set, with which key.
    places: Vec<Option<(usize, K)>>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Index { sets: [const { BTreeSet::new() }; State::TAKING], places: Vec::new() }
    }
}

impl<K: Ord + Copy> Index<K> {
    /// Puts a slot where its provider's state and key belong.
    pub fn put(&mut self, slot: usize, state: State, key: K) {
        let place = state.taking().map(|set| (set, key));
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        if self.places[slot] == place {
            return;
        }
        self.take(slot);
        if let Some((set, key)) = place {
            self.sets[set].insert((key, slot as u32));
            self.places[slot] = place;
        }
    }

    /// Takes a slot out.
    pub fn take(&mut self, slot: usize) {
        if let Some((set, key)) = self.places.get_mut(slot).and_then(Option::take) {
            self.sets[set].remove(&(key, slot as u32));
        }
    }

    /// Those of one state in order; none for a state that takes nothing.
    pub fn of(&self, state: State) -> Option<&BTreeSet<(K, u32)>> {
        state.taking().map(|set| &self.sets[set])
    }

    /// The slot of the candidate with the lowest key.
    pub fn lowest(&self, view: &dyn View, question: Question) -> Option<usize> {
        let sets = question.states().iter().filter_map(|state| self.of(*state));
        // Only those whom the asker avoids are passed over, and they are few.
        let lowest = sets.filter_map(|set| set.iter().find(|(_, slot)| view.candidate(*slot as usize).is_some()));
        lowest.min().map(|(_, slot)| *slot as usize)
    }
}

/// What most schedulers sort by; numbers that one does not need are 0. It is one
/// type for all of them because each further type is the sets' code once more.
pub type Numbers = [u64; 3];

/// The candidate with the lowest key; equals by their slot, so a key that
/// should make them take turns ends in [`Record::turn`].
pub struct Sorted<K = Numbers> {
    key: fn(&Record) -> K,
    index: Index<K>,
}

impl<K: Ord + Copy> Sorted<K> {
    /// A scheduler by this key.
    pub fn by(key: fn(&Record) -> K) -> Sorted<K> {
        Sorted { key, index: Index::default() }
    }
}

impl<K: Ord + Copy + Send> Scheduler for Sorted<K> {
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        self.index.lowest(view, question)
    }

    fn changed(&mut self, record: &Record) {
        self.index.put(record.slot, record.state, (self.key)(record));
    }

    fn gone(&mut self, slot: usize) {
        self.index.take(slot);
    }
}

/// `count` for each of `weight`, as a key; infinite for no weight.
pub fn ratio(count: f64, weight: u32) -> u64 {
    // Floats that are not negative are in the order of their bits.
    (count / f64::from(weight)).to_bits()
}
