//! Moments and spans of monotonic time, and how people write a span.
//!
//! Owns the arithmetic (it saturates, it never panics) and the notation
//! `250ms`, `30s`, `5m`, `2h`. Never reads a clock: time is an argument, and
//! its name is `now`.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

/// A point on a monotonic clock, in nanoseconds since a start that only the
/// owner of the clock knows. Good for 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

/// A length of time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span(u64);

impl Moment {
    /// The start of the clock.
    pub const ZERO: Moment = Moment(0);
    /// Later than anything that happens.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The moment `span` after the start of the clock.
    pub const fn after_start(span: Span) -> Moment {
        Moment(span.0)
    }

    /// How long ago `earlier` was; nothing if it is still to come.
    pub fn since(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Moment {
    type Output = Moment;
    fn add(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Moment {
    type Output = Moment;
    fn sub(self, span: Span) -> Moment {
        Moment(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// The longest span.
    pub const MAX: Span = Span(u64::MAX);

    /// So many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Span {
        Span(nanos)
    }
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis.saturating_mul(1_000_000))
    }
    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1_000_000_000))
    }
    /// So many seconds, not negative; what is not a number is nothing.
    pub fn from_secs_f64(secs: f64) -> Span {
        Span((secs * 1e9) as u64)
    }
    /// Whole nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
    /// Seconds with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// `factor` times as long.
    pub const fn times(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
    /// One `divisor`th of it (of the whole, if the divisor is 0).
    pub const fn part(self, divisor: u64) -> Span {
        Span(self.0 / if divisor == 0 { 1 } else { divisor })
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_nanos(span.0)
    }
}

/// Written in the largest unit that keeps it whole (`90s`, `250ms`), below a
/// millisecond rounded up to one, so that what is printed can be read back.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.div_ceil(1_000_000).min(u64::MAX / 1_000_000);
        match millis {
            0 => f.write_str("0s"),
            m if m % 3_600_000 == 0 => write!(f, "{}h", m / 3_600_000),
            m if m % 60_000 == 0 => write!(f, "{}m", m / 60_000),
            m if m % 1000 == 0 => write!(f, "{}s", m / 1000),
            m => write!(f, "{m}ms"),
        }
    }
}

/// `250ms`, `30s`, `5m`, `2h`; a bare number is seconds; `1.5s` is allowed.
impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Span, Self::Err> {
        const WRONG: &str = "not a duration (250ms, 30s, 5m, 2h; a bare number is seconds)";
        let digits =
            text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "ms" => 1_000_000,
            "s" | "" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(WRONG),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
            return Err(WRONG);
        }
        let whole: u64 = whole.parse().map_err(|_| WRONG)?;
        let mut nanos = whole.checked_mul(unit).ok_or(WRONG)?;
        let mut step = unit;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return Err(WRONG);
            }
            step /= 10;
            nanos = nanos.checked_add(step * u64::from(digit - b'0')).ok_or(WRONG)?;
        }
        Ok(Span(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7", 7000),
            ("1.5s", 1500),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Span::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "5x", "-1s", "1.s", ".5s", "1..5", "1e3", " 1s", "99999999999999h", "١s"]
        {
            assert!(text.parse::<Span>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for millis in [0, 1, 999, 1000, 1500, 60_000, 61_000, 3_600_000, 7_260_000] {
            let span = Span::from_millis(millis);
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        assert_eq!(Span::from_nanos(1).to_string(), "1ms", "a short wait is not no wait");
        for nanos in [u64::MAX, u64::MAX - 999_999, u64::MAX / 1_000_000 * 1_000_000] {
            let read: Result<Span, _> = Span(nanos).to_string().parse();
            assert!(read.is_ok_and(|read| Span::MAX.0 - read.0 < 2_000_000), "{nanos}");
        }
    }
}
