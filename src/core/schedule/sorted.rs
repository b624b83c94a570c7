//! Candidates in the order of a key, kept as they change: the lowest one costs
//! the logarithm of their number.
//!
//! Owns [`Index`], the ordered sets, and [`Sorted`], the scheduler that is
//! nothing but a key.

use super::scheduler::{Question, Record, Scheduler, State, View};
use crate::base::ordered_index::{Numbers, OrderedIndex};

/// Slots by a key, each state of those who can take something apart.
#[derive(Debug, Default)]
pub struct Index {
    orders: [OrderedIndex; State::TAKING],
    /// By slot: in which order, with which key.
    places: Vec<Option<(usize, Numbers)>>,
}

impl Index {
    /// Puts a slot where its provider's state and key belong.
    pub fn put(&mut self, slot: usize, state: State, key: Numbers) {
        let place = state.taking().map(|order| (order, key));
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        if self.places[slot] == place {
            return;
        }
        self.take(slot);
        if let Some((order, key)) = place {
            self.orders[order].insert(key, slot);
            self.places[slot] = place;
        }
    }

    /// Takes a slot out.
    pub fn take(&mut self, slot: usize) {
        if let Some((order, key)) = self.places.get_mut(slot).and_then(Option::take) {
            self.orders[order].remove(key, slot);
        }
    }

    /// Those of one state in order; none for a state that takes nothing.
    pub fn of(&self, state: State) -> Option<&OrderedIndex> {
        state.taking().map(|order| &self.orders[order])
    }

    /// The slot of the candidate with the lowest key.
    pub fn lowest(&self, view: &dyn View, question: Question) -> Option<usize> {
        let orders = question.states().iter().filter_map(|state| self.of(*state));
        // Only those whom the asker avoids are passed over, and they are few.
        let lowest = orders.filter_map(|order| order.find(|slot| view.candidate(slot).is_some()));
        lowest.min().map(|(_, slot)| slot)
    }
}

/// The candidate with the lowest key; equals by their slot, so a key that
/// should make them take turns ends in [`Record::turn`].
pub struct Sorted {
    key: fn(&Record) -> Numbers,
    index: Index,
}

impl Sorted {
    /// A scheduler by this key.
    pub fn by(key: fn(&Record) -> Numbers) -> Sorted {
        Sorted { key, index: Index::default() }
    }
}

impl Scheduler for Sorted {
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
