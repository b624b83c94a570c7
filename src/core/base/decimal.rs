//! Decimal numbers as people and protocols write them.
//!
//! Owns both directions, for numbers that are not negative. The standard
//! library's are exact to the last bit, with 25 KB of tables and long arithmetic
//! that loads and shares do not need.

use std::fmt;
use std::str::FromStr;

/// A number from `12`, `0.5`, `.5` or `1e-5`, good for 15 digits; none if it is
/// none, negative or infinite.
pub fn parse(text: &str) -> Option<f64> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse().ok()?),
        None => (text, 0i32),
    };
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10.0 + f64::from(digit - b'0');
    }
    let exponent = exponent.saturating_sub(i32::try_from(fraction.len()).ok()?);
    let power = 10f64.powi(exponent.saturating_abs());
    // A division by a power of ten is exact where a product with its inverse is not.
    Some(if exponent < 0 { number / power } else { number * power })
        .filter(|number| number.is_finite())
}

/// A number with three digits after the point; what is not a number is 0.
#[derive(Clone, Copy, Debug)]
pub struct Thousandths(pub f64);

impl fmt::Display for Thousandths {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = (self.0 * 1000.0 + 0.5) as u64;
        write!(out, "{}.{:03}", thousandths / 1000, thousandths % 1000)
    }
}

/// A whole number of plain digits: no sign, no blank.
pub fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Appends a whole number.
pub fn append_digits(mut number: u32, out: &mut Vec<u8>) {
    let (mut text, mut start) = ([0; 10], 10);
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&text[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them() {
        for text in [
            "0",
            "1",
            "0.5",
            ".5",
            "5.",
            "+2.25",
            "0.30",
            "0.1",
            "99.99",
            "1e3",
            "1E-05",
            "3.7e+2",
            "1e-400",
            "12345.6789",
        ] {
            assert_eq!(parse(text), text.parse().ok(), "{text}");
        }
        for text in [
            "", ".", "+", "e3", "-1", "1-", "0x1", "1e", "1e5.0", "nan", "inf", "1e400", "0e999",
            "1 ", "1,5", "++1", "٣",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn three_digits_are_written_after_the_point() {
        let all = [0.0, 0.5, 1.0 / 3.0, 0.0004, 0.9996, 12.25, f64::NAN, -1.0].map(Thousandths);
        assert_eq!(
            all.map(|number| number.to_string()),
            ["0.000", "0.500", "0.333", "0.000", "1.000", "12.250", "0.000", "0.000"]
        );
    }
}
