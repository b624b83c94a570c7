//! Rate limit for log messages: reports how many were suppressed.

use super::time::{Moment, Span};

/// Counts what happens between two times that it is reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogThrottle {
    reported: Option<Moment>,
    count: u32,
}

impl LogThrottle {
    /// It happened: how often since it was reported last, if it is to be reported now.
    pub fn allow(&mut self, now: Moment, every: Span) -> Option<u32> {
        self.count = self.count.saturating_add(1);
        if self.reported.is_some_and(|reported| now.since(reported) < every) {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_others_are_counted() {
        let (mut throttle, every) = (LogThrottle::default(), Span::from_secs(60));
        let at = |seconds| Moment::ZERO + Span::from_secs(seconds);
        assert_eq!(throttle.allow(at(0), every), Some(1));
        assert_eq!([1, 2, 59].map(|second| throttle.allow(at(second), every)), [None; 3]);
        assert_eq!(throttle.allow(at(60), every), Some(4));
        assert_eq!(throttle.allow(at(61), every), None);
    }
}
