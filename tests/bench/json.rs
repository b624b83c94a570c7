//! Flat JSON: one object a line, of numbers and texts.
//!
//! Owns how a line of figures is written, and read again for the page of results.

use std::fmt::Write as _;

/// A line: names with numbers or texts, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line(Vec<(String, Value)>);

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Text(String),
}

impl Line {
    /// A number that is none is left out.
    pub fn number(&mut self, name: &str, value: f64) -> &mut Line {
        if value.is_finite() {
            self.0.push((name.into(), Value::Number(value)));
        }
        self
    }

    pub fn text(&mut self, name: &str, value: &str) -> &mut Line {
        self.0.push((name.into(), Value::Text(value.into())));
        self
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// NaN where there is none.
    pub fn get(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Number(number)) => *number,
            _ => f64::NAN,
        }
    }

    pub fn word(&self, name: &str) -> &str {
        match self.value(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// Reads what [`Display`](std::fmt::Display) wrote.
    pub fn read(line: &str) -> Option<Line> {
        let mut rest = line.trim().strip_prefix('{')?.strip_suffix('}')?;
        let mut found = Line::default();
        while !rest.is_empty() {
            let (name, after) = read_text(rest)?;
            rest = after.strip_prefix(':')?;
            if rest.starts_with('"') {
                let (text, after) = read_text(rest)?;
                found.text(&name, &text);
                rest = after;
            } else {
                let end = rest.find(',').unwrap_or(rest.len());
                found.number(&name, rest[..end].parse().ok()?);
                rest = &rest[end..];
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        Some(found)
    }
}

/// A text in quotes, and what follows.
fn read_text(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut found = String::new();
    let mut escaped = false;
    for (place, letter) in text.char_indices() {
        match letter {
            _ if escaped => {
                found.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((found, &text[place + 1..])),
            _ => found.push(letter),
        }
    }
    None
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = match value {
                // Four digits behind the point are more than any figure is worth.
                Value::Number(number) => {
                    write!(text, "{comma}\"{name}\":{}", (number * 1e4).round() / 1e4)
                }
                Value::Text(words) => {
                    let words = words.replace('\\', "\\\\").replace('"', "\\\"");
                    write!(text, "{comma}\"{name}\":\"{}\"", words.replace('\n', " "))
                }
            };
        }
        write!(f, "{{{text}}}")
    }
}

/// Adds lines to the file that `PEGASUS_BENCH_JSON` names.
pub fn append(lines: &[Line]) {
    use std::io::Write as _;
    let Ok(path) = std::env::var("PEGASUS_BENCH_JSON") else { return };
    let file = std::fs::File::options().create(true).append(true).open(&path);
    let mut file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
    for line in lines {
        writeln!(file, "{line}").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn a_line_is_read_as_it_was_written() {
    let mut line = Line::default();
    line.text("row", "a \"quoted\", \\ one").number("p99", 12.25).number("none", f64::NAN);
    line.number("small", -0.5).text("empty", "");
    assert_eq!(Line::read(&line.to_string()), Some(line.clone()));
    assert_eq!((line.get("p99"), line.word("empty")), (12.25, ""));
    assert!(line.get("none").is_nan());
}
