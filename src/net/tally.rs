//! How many of a thing there are in all threads together, and at most may be.
//!
//! Owns the count. What is counted is its users' business.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The count, which its clones have in common.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicUsize>);

/// One that is counted until this is dropped. Whoever keeps it beside a
/// descriptor names it behind that: fields are dropped in their order, and what
/// is still open must be counted.
#[derive(Debug)]
pub struct Counted(Tally);

impl Tally {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more, unless there are `most`, whatever other threads do meanwhile.
    pub fn enter(&self, most: usize) -> Option<Counted> {
        let more = |count: usize| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_may_be() {
        let tally = Tally::default();
        let four = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| (0..100).filter_map(|_| tally.enter(150)).collect::<Vec<_>>()))
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let all = four();
        assert_eq!((all.len(), tally.count()), (150, 150));
        drop(all);
        assert_eq!(tally.count(), 0);
    }
}
