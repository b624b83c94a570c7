//! Many deadlines, most of which never come true.
//!
//! Owns a heap of `(moment, key)` and its bound. Nothing is ever taken out by name:
//! an owner whose deadline moved sets the new one when the old one comes up, so a
//! busy connection costs its timer nothing. Knows no clock.

use super::time::Moment;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap of deadlines for things named by `K`.
#[derive(Debug)]
pub struct TimerQueue<K> {
    heap: BinaryHeap<Reverse<(Moment, K)>>,
    /// More than so many are pruned.
    prune_above: usize,
}

/// So many stale deadlines are not worth a look at all of them.
const STALE_MAX: usize = 1024;

impl<K: Ord + Copy> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue { heap: BinaryHeap::new(), prune_above: STALE_MAX }
    }
}

impl<K: Ord + Copy> TimerQueue<K> {
    /// Wants `key` back from [`pop_due`](TimerQueue::pop_due) at `at`. Earlier wishes stay.
    pub fn schedule(&mut self, at: Moment, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// The next key whose moment has come. It may have been set for an item
    /// that is gone, or for a deadline that moved: the caller looks.
    pub fn pop_due(&mut self, now: Moment) -> Option<K> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// When the next one comes up.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// How many are set, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Forgets deadlines that are no longer wanted, once they may be most of all.
    /// An owner calls it whenever it has set one; the cost is constant on average,
    /// and the heap is at most twice as long as at its last pruning.
    pub fn prune(&mut self, mut wanted: impl FnMut(K) -> bool) {
        if self.heap.len() > self.prune_above {
            self.heap.retain(|Reverse((_, key))| wanted(*key));
            self.prune_above = 2 * self.heap.len() + STALE_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::Span;
    use super::*;

    #[test]
    fn stale_deadlines_never_outnumber_the_living_by_far() {
        let mut timers = TimerQueue::default();
        let at = Moment::ZERO + Span::from_secs(1);
        for number in 0..100_000_u64 {
            let living = if (30_000..60_000).contains(&number) { 5_000 } else { 10 };
            timers.schedule(at, number);
            timers.prune(|key| key + living > number);
            assert!(timers.len() <= 2 * 5_000 + STALE_MAX + 1, "{}", timers.len());
        }
        assert!(timers.len() <= 2 * 10 + STALE_MAX + 1, "{}", timers.len());
        timers.prune(|_| true);
        assert_eq!(timers.next_deadline(), Some(at));
    }
}
