//! A histogram of times with fixed buckets, factors of two.
//!
//! Owns the bounds, from 2^-13 s to 2^10 s, and where a time belongs.

use pegasus_core::base::time::Span;

/// Buckets with a bound; one more has none.
pub const BOUNDS: usize = 24;
/// The bounds in seconds, exactly, as Prometheus reads them.
pub const BOUND_TEXTS: [&str; BOUNDS] = [
    "0.0001220703125",
    "0.000244140625",
    "0.00048828125",
    "0.0009765625",
    "0.001953125",
    "0.00390625",
    "0.0078125",
    "0.015625",
    "0.03125",
    "0.0625",
    "0.125",
    "0.25",
    "0.5",
    "1",
    "2",
    "4",
    "8",
    "16",
    "32",
    "64",
    "128",
    "256",
    "512",
    "1024",
];
/// How many of the first bound are a second.
const FIRST_PER_SECOND: u64 = 8192;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How many times fell into each bucket, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; the last one has no bound.
    pub counts: [u64; BOUNDS + 1],
    /// Nanoseconds of all times together.
    pub sum_nanos: u64,
}

/// The bucket of a time: the first whose bound is not below it.
fn bucket(span: Span) -> usize {
    let units = span.as_nanos().saturating_mul(FIRST_PER_SECOND).div_ceil(NANOS_PER_SECOND);
    let power = if units <= 1 { 0 } else { u64::BITS - (units - 1).leading_zeros() };
    (power as usize).min(BOUNDS)
}

impl Histogram {
    /// Counts a time.
    pub fn observe(&mut self, span: Span) {
        self.counts[bucket(span)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(span.as_nanos());
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A time that this part (in thousandths) of all times did not exceed, as far as
    /// buckets tell: the bound of the bucket in which it is. None without any time, or
    /// where it is beyond the last bound.
    pub fn quantile(&self, thousandths: u64) -> Option<&'static str> {
        let wanted = (self.count() * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.and_then(|bucket| BOUND_TEXTS.get(bucket).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_twice_the_one_before_and_belongs_to_its_bucket() {
        for (number, text) in BOUND_TEXTS.iter().enumerate() {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!(seconds, 2f64.powi(number as i32 - 13));
            let nanos = (seconds * 1e9) as u64;
            assert_eq!(bucket(Span::from_nanos(nanos)), number, "{text}");
            assert_eq!(bucket(Span::from_nanos(nanos + 1)), number + 1, "just above {text}");
        }
        assert_eq!(bucket(Span::ZERO), 0);
        assert_eq!(bucket(Span::MAX), BOUNDS);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        (0..99).for_each(|_| histogram.observe(Span::from_millis(3)));
        histogram.observe(Span::from_secs(100));
        assert_eq!(histogram.quantile(500), Some("0.00390625"));
        assert_eq!(histogram.quantile(999), Some("128"));
        assert_eq!(histogram.count(), 100);
    }
}
