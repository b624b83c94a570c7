//! What happens often and is to be told seldom.

use super::time::{Moment, Span};

/// Counts what happens between two times that it is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    told: Option<Moment>,
    count: u32,
}

impl Seldom {
    /// It happened: how often since it was told last, if it is to be told now.
    pub fn happened(&mut self, now: Moment, every: Span) -> Option<u32> {
        self.count = self.count.saturating_add(1);
        if self.told.is_some_and(|told| now.since(told) < every) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_others_are_counted() {
        let (mut seldom, every) = (Seldom::default(), Span::from_secs(60));
        let at = |seconds| Moment::ZERO + Span::from_secs(seconds);
        assert_eq!(seldom.happened(at(0), every), Some(1));
        assert_eq!([1, 2, 59].map(|second| seldom.happened(at(second), every)), [None; 3]);
        assert_eq!(seldom.happened(at(60), every), Some(4));
        assert_eq!(seldom.happened(at(61), every), None);
    }
}
