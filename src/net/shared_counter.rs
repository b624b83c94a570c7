//! How many of a thing there are in all threads together, and at most may be.
//!
//! Owns the count. Not responsible for what is counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The count, which its clones share.
#[derive(Clone, Debug, Default)]
pub struct SharedCounter(Arc<AtomicUsize>);

/// One that is counted until this is dropped. A struct that keeps it beside a
/// descriptor declares it behind that: fields are dropped in their order, and what
/// is still open must be counted.
#[derive(Debug)]
pub struct Permit(SharedCounter);

impl SharedCounter {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more, unless there are `limit`, whatever other threads do meanwhile.
    pub fn try_acquire(&self, limit: usize) -> Option<Permit> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_may_be() {
        let counter = SharedCounter::default();
        let four = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            (0..100).filter_map(|_| counter.try_acquire(150)).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let all = four();
        assert_eq!((all.len(), counter.count()), (150, 150));
        drop(all);
        assert_eq!(counter.count(), 0);
    }
}
