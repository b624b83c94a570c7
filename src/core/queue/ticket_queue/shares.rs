//! What the queue counts and remembers for its bounds.
//!
//! Owns the counts of what each source has, and where a search goes on. Decides nothing.

use std::collections::HashMap;
use std::net::IpAddr;

/// What is known from the last search for a waiting request.
#[derive(Debug, Default)]
pub(super) struct SearchState {
    /// The changes of the pool at its end, while it went on to the end.
    pub(super) done_at: u64,
    /// The same at the last beginning, and how many requests that avoid certain providers
    /// it has passed since.
    pub(super) begun_at: u64,
    pub(super) passed: usize,
    /// All looks at such requests.
    #[cfg(test)]
    pub(super) looks: u64,
}

/// How many of something each source has.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<IpAddr, usize>);

impl Counts {
    pub(super) fn add(&mut self, source: IpAddr) {
        *self.0.entry(source).or_default() += 1;
    }

    pub(super) fn remove(&mut self, source: IpAddr) {
        if let Some(count) = self.0.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&source);
            }
        }
    }

    pub(super) fn of(&self, source: IpAddr) -> usize {
        self.0.get(&source).copied().unwrap_or(0)
    }

    /// The source that has most, if that is at least two more than this one has.
    pub(super) fn larger_than(&self, source: IpAddr) -> Option<IpAddr> {
        let most = self.0.iter().max_by_key(|(ip, count)| (**count, **ip));
        most.filter(|(_, count)| **count > self.of(source) + 1).map(|(ip, _)| *ip)
    }
}
