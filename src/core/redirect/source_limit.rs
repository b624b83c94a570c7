//! How many clients each source has at once. Owns the counts, of which there
//! are never more than clients.

use crate::base::source_key::SourceKey;
use std::collections::HashMap;

/// The counts.
#[derive(Debug, Default)]
pub struct SourceLimiter(HashMap<SourceKey, usize>);

impl SourceLimiter {
    /// One more client of this source, unless it has `most` already.
    pub fn try_acquire(&mut self, source: SourceKey, most: usize) -> bool {
        let count = self.0.get(&source).copied().unwrap_or(0);
        if count >= most {
            return false;
        }
        self.0.insert(source, count + 1);
        true
    }

    /// One client less.
    pub fn release(&mut self, source: SourceKey) {
        match self.0.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(&source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn source(ip: &str) -> SourceKey {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_source_has_its_own_count() {
        let mut sources = SourceLimiter::default();
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        assert!(
            sources.try_acquire(one, 2)
                && sources.try_acquire(one, 2)
                && !sources.try_acquire(one, 2)
        );
        assert!(sources.try_acquire(other, 2) && sources.try_acquire(one, 3));
        (0..3).for_each(|_| sources.release(one));
        assert!(sources.try_acquire(one, 1) && !sources.try_acquire(one, 1));
        sources.release(one);
        sources.release(other);
        assert!(sources.0.is_empty(), "nothing is left of those that are gone");
    }
}
