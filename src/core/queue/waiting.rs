//! Those who wait for a ticket of one service.
//!
//! Owns their order: first come first served, but once the oldest has waited
//! more than half of its time, newest first until that is no longer so, so
//! that under overload somebody is served in time instead of everybody too
//! late. Knows no ticket and no connection.

use crate::base::time::Moment;
use std::collections::VecDeque;

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

impl<W> Waiter<W> {
    /// Whether it has waited less than half of its time.
    pub fn patient(&self, now: Moment) -> bool {
        now.since(self.since) < self.deadline.since(now)
    }
}

/// The waiting line of one service.
#[derive(Debug)]
pub struct WaitingLine<W> {
    /// By place. Whoever leaves leaves a gap; there is none at the ends, and not
    /// more gaps than people.
    line: VecDeque<(u64, Option<Waiter<W>>)>,
    len: usize,
    next: u64,
}

impl<W> Default for WaitingLine<W> {
    fn default() -> Self {
        WaitingLine { line: VecDeque::new(), len: 0, next: 0 }
    }
}

impl<W> WaitingLine<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Somebody comes; the number is its place.
    pub fn join(&mut self, waiter: Waiter<W>) -> u64 {
        let place = self.next;
        self.next += 1;
        self.line.push_back((place, Some(waiter)));
        self.len += 1;
        place
    }

    /// Somebody leaves, served or not.
    pub fn leave(&mut self, place: u64) -> Option<Waiter<W>> {
        let at = self.at(place)?;
        let waiter = self.line[at].1.take()?;
        self.len -= 1;
        while self.line.front().is_some_and(|(_, waiter)| waiter.is_none()) {
            self.line.pop_front();
        }
        while self.line.back().is_some_and(|(_, waiter)| waiter.is_none()) {
            self.line.pop_back();
        }
        if self.line.len() > 2 * self.len {
            self.line.retain(|(_, waiter)| waiter.is_some());
        }
        Some(waiter)
    }

    fn at(&self, place: u64) -> Option<usize> {
        self.line.binary_search_by_key(&place, |(place, _)| *place).ok()
    }

    /// Who waits in this place.
    pub fn get(&self, place: u64) -> Option<&Waiter<W>> {
        self.line[self.at(place)?].1.as_ref()
    }

    /// Who waits in this place.
    pub fn get_mut(&mut self, place: u64) -> Option<&mut Waiter<W>> {
        let at = self.at(place)?;
        self.line[at].1.as_mut()
    }

    /// All places, oldest first.
    pub fn places(&self) -> impl DoubleEndedIterator<Item = (u64, &Waiter<W>)> {
        self.line.iter().filter_map(|(place, waiter)| Some((*place, waiter.as_ref()?)))
    }

    /// The first in the order of service for whom `serve` finds something.
    pub fn first<T>(&self, now: Moment, mut serve: impl FnMut(&Waiter<W>) -> Option<T>) -> Option<(u64, T)> {
        let (_, oldest) = self.places().next()?;
        let mut found = |(place, waiter): (u64, &Waiter<W>)| serve(waiter).map(|what| (place, what));
        if now.since(oldest.since) > oldest.deadline.since(now) {
            self.places().rev().find_map(&mut found)
        } else {
            self.places().find_map(&mut found)
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

    #[test]
    fn whoever_leaves_takes_no_room() {
        let at = Moment::after_start(Span::ZERO);
        let mut line = WaitingLine::default();
        let mut places: Vec<u64> = (0..9).map(|what| line.join(Waiter { since: at, deadline: at, what })).collect();
        for n in 0..1000 {
            // The first one stays; of the others one leaves and another comes.
            let place = places.remove(1 + n % 7);
            assert_eq!(line.leave(place).is_some(), line.leave(place).is_none());
            places.push(line.join(Waiter { since: at, deadline: at, what: n as u64 }));
            assert!(line.line.len() <= 2 * line.len() + 1 && line.get(place).is_none());
        }
        assert_eq!(line.places().map(|(place, _)| place).collect::<Vec<_>>(), places);
        assert!(places.into_iter().all(|place| line.leave(place).is_some()) && line.is_empty());
    }
}
