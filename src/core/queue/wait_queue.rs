//! The requests that wait for a ticket of one service.
//!
//! Owns their order: first come, first served. While the oldest has waited for more than
//! half of its time, it is newest first, so that under overload some clients are served
//! in time instead of all too late. Knows no ticket and no connection.

use crate::base::time::Moment;
use std::collections::VecDeque;

/// A waiting request. `W` is what the queue needs to serve it.
#[derive(Debug)]
pub struct Waiter<W> {
    /// When it began to wait.
    pub since: Moment,
    /// When it gets an error instead.
    pub deadline: Moment,
    /// The request.
    pub request: W,
}

impl<W> Waiter<W> {
    /// When half of its time to wait is over. Before that it is patient.
    pub fn half_time(&self) -> Moment {
        self.since + self.deadline.since(self.since).part(2)
    }
}

/// The waiting requests of one service.
#[derive(Debug)]
pub struct WaitQueue<W> {
    /// By position. A request that leaves makes a gap; there is none at the ends, and
    /// there are no more gaps than requests.
    line: VecDeque<(u64, Option<Waiter<W>>)>,
    len: usize,
    next: u64,
}

impl<W> Default for WaitQueue<W> {
    fn default() -> Self {
        WaitQueue { line: VecDeque::new(), len: 0, next: 0 }
    }
}

impl<W> WaitQueue<W> {
    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a request; returns its position.
    pub fn push(&mut self, waiter: Waiter<W>) -> u64 {
        let position = self.next;
        self.next += 1;
        self.line.push_back((position, Some(waiter)));
        self.len += 1;
        position
    }

    /// Removes a request, served or not.
    pub fn remove(&mut self, position: u64) -> Option<Waiter<W>> {
        let at = self.at(position)?;
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

    fn at(&self, position: u64) -> Option<usize> {
        self.line.binary_search_by_key(&position, |(position, _)| *position).ok()
    }

    /// Returns the request in this position.
    pub fn get(&self, position: u64) -> Option<&Waiter<W>> {
        self.line[self.at(position)?].1.as_ref()
    }

    /// Returns the request in this position.
    pub fn get_mut(&mut self, position: u64) -> Option<&mut Waiter<W>> {
        let at = self.at(position)?;
        self.line[at].1.as_mut()
    }

    /// All requests with their positions, oldest first.
    pub fn positions(&self) -> impl DoubleEndedIterator<Item = (u64, &Waiter<W>)> {
        self.line.iter().filter_map(|(position, waiter)| Some((*position, waiter.as_ref()?)))
    }

    /// Returns the first request, in the order of service, for which `serve` returns
    /// something.
    pub fn next_to_serve<T>(
        &self,
        now: Moment,
        mut serve: impl FnMut(&Waiter<W>) -> Option<T>,
    ) -> Option<(u64, T)> {
        let (_, oldest) = self.positions().next()?;
        let mut found =
            |(position, waiter): (u64, &Waiter<W>)| serve(waiter).map(|what| (position, what));
        if now.since(oldest.since) > oldest.deadline.since(now) {
            self.positions().rev().find_map(&mut found)
        } else {
            self.positions().find_map(&mut found)
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
        let mut line = WaitQueue::default();
        for (since, what) in [(0, 'a'), (100, 'b'), (550, 'c')] {
            line.push(Waiter { since: at(since), deadline: at(since + 1000), request: what });
        }
        let order = |line: &mut WaitQueue<char>, now| {
            let (position, what) =
                line.next_to_serve(at(now), |waiter| Some(waiter.request)).unwrap();
            line.remove(position);
            what
        };
        assert_eq!(order(&mut line, 500), 'a');
        line.push(Waiter { since: at(500), deadline: at(1500), request: 'd' });
        assert_eq!(order(&mut line, 601), 'd', "b has waited more than half of its time");
        assert_eq!(order(&mut line, 601), 'c');
        assert_eq!(
            line.next_to_serve(at(601), |waiter| (waiter.request != 'b').then_some(())),
            None
        );
    }

    #[test]
    fn whoever_leaves_takes_no_room() {
        let at = Moment::after_start(Span::ZERO);
        let mut line = WaitQueue::default();
        let mut places: Vec<u64> = (0..9)
            .map(|what| line.push(Waiter { since: at, deadline: at, request: what }))
            .collect();
        for n in 0..1000 {
            // The first one stays; of the others one leaves for each that comes.
            let position = places.remove(1 + n % 7);
            assert_eq!(line.remove(position).is_some(), line.remove(position).is_none());
            places.push(line.push(Waiter { since: at, deadline: at, request: n as u64 }));
            assert!(line.line.len() <= 2 * line.len() + 1 && line.get(position).is_none());
        }
        assert_eq!(line.positions().map(|(position, _)| position).collect::<Vec<_>>(), places);
        assert!(
            places.into_iter().all(|position| line.remove(position).is_some()) && line.is_empty()
        );
    }
}
