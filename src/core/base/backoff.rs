//! How long to wait before trying again: doubling, with jitter.
//!
//! Owns the next delay; the caller owns the clock and the trying.

use super::random::Random;
use super::time::Span;

/// Delays that double from `first` to `most`, each shortened at random by up
/// to a half, so that many who lost the same peer do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Span,
    most: Span,
    next: Span,
}

impl Backoff {
    /// Delays from `first`, doubled up to `most`.
    pub const fn new(first: Span, most: Span) -> Backoff {
        Backoff { first, most, next: first }
    }

    /// The next delay.
    pub fn delay(&mut self, random: &mut Random) -> Span {
        let whole = self.next;
        self.next = whole.times(2).min(self.most);
        Span::from_secs_f64(whole.as_secs_f64() * (1.0 - random.unit() / 2.0))
    }

    /// It worked: begin from the first delay again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
