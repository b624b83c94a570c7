//! Those who wait for a ticket of one service.
//!
//! Owns their order: first come first served, but once the oldest has waited
//! more than half of its time, newest first until that is no longer so, so
//! that under overload somebody is served in time instead of everybody too
//! late. Knows no ticket and no connection.

use crate::base::time::Moment;
use std::collections::BTreeMap;

/// One who waits. `W` is what the queue needs to serve it.
#[derive(Debug)]
pub struct Waiter<W> {
    /// Since when.
    pub since: Moment,
    /// When it gets an error instead.
    pub deadline: Moment,
    /// Who it is and what it wants.
    pub what: W,
}

/// The waiting line of one service.
#[derive(Debug)]
pub struct WaitingLine<W> {
    line: BTreeMap<u64, Waiter<W>>,
    next: u64,
}

impl<W> Default for WaitingLine<W> {
    fn default() -> Self {
        WaitingLine { line: BTreeMap::new(), next: 0 }
    }
}

impl<W> WaitingLine<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Somebody comes; the number is its place.
    pub fn join(&mut self, waiter: Waiter<W>) -> u64 {
        let place = self.next;
        self.next += 1;
        self.line.insert(place, waiter);
        place
    }

    /// Somebody leaves, served or not.
    pub fn leave(&mut self, place: u64) -> Option<Waiter<W>> {
        self.line.remove(&place)
    }

    /// Who waits in this place.
    pub fn get(&self, place: u64) -> Option<&Waiter<W>> {
        self.line.get(&place)
    }

    /// Who waits in this place.
    pub fn get_mut(&mut self, place: u64) -> Option<&mut Waiter<W>> {
        self.line.get_mut(&place)
    }

    /// All places, oldest first.
    pub fn places(&self) -> impl Iterator<Item = (u64, &Waiter<W>)> {
        self.line.iter().map(|(place, waiter)| (*place, waiter))
    }

    /// The first in the order of service for whom `serve` finds something.
    pub fn first<T>(&self, now: Moment, mut serve: impl FnMut(&Waiter<W>) -> Option<T>) -> Option<(u64, T)> {
        let late = self.line.values().next().is_some_and(|oldest| now.since(oldest.since) > oldest.deadline.since(now));
        let mut found = |(place, waiter): (&u64, &Waiter<W>)| serve(waiter).map(|what| (*place, what));
        if late {
            self.line.iter().rev().find_map(&mut found)
        } else {
            self.line.iter().find_map(&mut found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Span;

    #[test]
    fn oldest_first_until_it_has_waited_half_its_time() {
        let at = |millis| Moment::after_start(Span::from_millis(millis));
        let mut line = WaitingLine::default();
        for (since, what) in [(0, 'a'), (100, 'b'), (550, 'c')] {
            line.join(Waiter { since: at(since), deadline: at(since + 1000), what });
        }
        let order = |line: &mut WaitingLine<char>, now| {
            let (place, what) = line.first(at(now), |waiter| Some(waiter.what)).unwrap();
            line.leave(place);
            what
        };
        assert_eq!(order(&mut line, 500), 'a');
        line.join(Waiter { since: at(500), deadline: at(1500), what: 'd' });
        assert_eq!(order(&mut line, 601), 'd', "b has waited more than half of its time");
        assert_eq!(order(&mut line, 601), 'c');
        assert_eq!(line.first(at(601), |waiter| (waiter.what != 'b').then_some(())), None);
    }
}
