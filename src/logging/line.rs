//! A line of the log, as text or as a JSON object.
//!
//! Owns the notation. Control characters are escaped: a peer must not write lines of its own.

use log::{Level, Record};
use std::fmt::Write;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people, and for tools that split words.
    #[default]
    Text,
    /// One JSON object a line. The `key=value` pairs of the message are members, too.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("no such format (text or json)".into()),
        }
    }
}

/// What a reader of the log adds itself, so that a line goes without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReaderAdds {
    /// Nothing.
    Nothing,
    /// The time, and the level from a prefix that is not part of the line.
    TimeAndLevel,
}

/// A message and its circumstances.
#[derive(Debug)]
pub struct Line {
    time: SystemTime,
    /// Its level.
    pub level: Level,
    target: String,
    message: String,
}

impl Line {
    /// The line of a record, now.
    pub fn of(record: &Record) -> Line {
        Line::new(record.level(), record.target(), &record.args().to_string())
    }

    /// A line of these, now.
    pub fn new(level: Level, target: &str, message: &str) -> Line {
        let mut escaped = String::with_capacity(message.len());
        for c in message.chars() {
            if c.is_control() {
                escaped.extend(c.escape_default());
            } else {
                escaped.push(c);
            }
        }
        Line { time: SystemTime::now(), level, target: target.into(), message: escaped }
    }

    /// Bytes that it needs while it waits, about.
    pub fn cost(&self) -> usize {
        size_of::<Line>() + self.target.len() + self.message.len()
    }

    /// Writes the line without its end.
    pub fn format(&self, format: Format, reader: ReaderAdds) -> String {
        let Line { time, level, target, message } = self;
        match (format, reader) {
            (Format::Json, _) => self.json(),
            (Format::Text, ReaderAdds::Nothing) => {
                format!("{} {level:<5} [{target}] {message}", utc(*time))
            }
            (Format::Text, ReaderAdds::TimeAndLevel) => format!("{target}: {message}"),
        }
    }

    /// As syslog counts: 3 is an error, 7 debugging.
    pub fn severity(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }

    fn json(&self) -> String {
        let mut object = String::from("{");
        let mut keys: Vec<&str> = Vec::new();
        let time = utc(self.time);
        let own = [
            ("time", time.as_str()),
            ("level", self.level.as_str()),
            ("target", &self.target),
            ("message", &self.message),
        ];
        for (key, value) in own.into_iter().chain(pairs(&self.message)) {
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            if keys.len() > 1 {
                object.push(',');
            }
            push_string(&mut object, key);
            object.push(':');
            push_string(&mut object, value);
        }
        object.push('}');
        object
    }
}

/// The pairs in a message: words `key=value`, a value with blanks in quotes.
fn pairs(message: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let word = rest.split(' ').next().unwrap_or("");
        let is_key =
            |key: &str| !key.is_empty() && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        let Some((key, value)) = word.split_once('=').filter(|(key, _)| is_key(key)) else {
            rest = rest[word.len()..].trim_start();
            continue;
        };
        let from_value = &rest[key.len() + 1..];
        let quoted = from_value.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (value, after) = quoted.unwrap_or((value, &from_value[value.len()..]));
        pairs.push((key, value));
        rest = after.trim_start();
    }
    pairs
}

fn push_string(object: &mut String, text: &str) {
    object.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => object.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(object, "\\u{:04x}", u32::from(c));
            }
            c => object.push(c),
        }
    }
    object.push('"');
}

/// `2026-11-23T15:20:00Z`, by the civil calendar (Hinnant's days algorithm).
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = seconds % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_civil_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_446_000, "2026-11-23T15:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_message_is_one_line_and_its_pairs_are_members() {
        let line = Line {
            time: UNIX_EPOCH,
            ..Line::new(
                Level::Warn,
                "redirect",
                "closed service=web why=\"a b\" n=1\nINFO x=\u{1b}[0m \"\\ time=never pegasus://b/?y=1",
            )
        };
        let message = "closed service=web why=\"a b\" n=1\\nINFO x=\\u{1b}[0m \"\\ time=never pegasus://b/?y=1";
        assert_eq!(
            line.format(Format::Text, ReaderAdds::Nothing),
            format!("1970-01-01T00:00:00Z WARN  [redirect] {message}")
        );
        let quoted = message.replace('\\', "\\\\").replace('"', "\\\"");
        assert_eq!(
            line.format(Format::Json, ReaderAdds::TimeAndLevel),
            format!(
                "{{\"time\":\"1970-01-01T00:00:00Z\",\"level\":\"WARN\",\"target\":\"redirect\",\
                 \"message\":\"{quoted}\",\"service\":\"web\",\"why\":\"a b\",\"n\":\"1\\\\nINFO\",\
                 \"x\":\"\\\\u{{1b}}[0m\"}}"
            )
        );
    }
}
