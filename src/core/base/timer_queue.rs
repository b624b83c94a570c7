//! Many deadlines, most of which never come true.
//!
//! Owns a heap of `(moment, key)`. Nothing is ever taken out by name: an owner
//! whose deadline moved says the new one when the old one comes up, so a busy
//! connection costs its timer nothing. Knows no clock.

use super::time::Moment;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap of deadlines for things named by `K`.
#[derive(Debug)]
pub struct TimerQueue<K> {
    heap: BinaryHeap<Reverse<(Moment, K)>>,
}

impl<K: Ord + Copy> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue { heap: BinaryHeap::new() }
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

    /// Forgets the ones that are no longer wanted; called when stale ones
    /// could outnumber the living, which keeps the heap bounded.
    pub fn retain(&mut self, mut wanted: impl FnMut(K) -> bool) {
        self.heap.retain(|Reverse((_, key))| wanted(*key));
    }
}
