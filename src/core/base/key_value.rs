//! The notation `key=value`, which tells: configuration, status, log lines.
//!
//! Owns the reading of a file of pairs (also valid sh: quoted values, `#`
//! comments, no expansion) and the writing of a line of pairs. Knows no key.

use std::fmt::{Display, Write};

/// One assignment in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// Left of the equals sign.
    pub key: &'a str,
    /// Right of it, without quotes.
    pub value: &'a str,
}

/// Reads a file: each line nothing, a comment, a pair, or wrong (its number
/// and what is wrong with it).
pub fn read(text: &str) -> impl Iterator<Item = Result<Pair<'_>, (usize, String)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().filter_map(|(index, line)| {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some(
            pair(line)
                .map(|(key, value)| Pair { line: line_number, key, value })
                .map_err(|wrong| (line_number, wrong)),
        )
    })
}

fn pair(line: &str) -> Result<(&str, &str), String> {
    let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}` is not KEY=VALUE"))?;
    let (key, value) = (key.trim_end(), value.trim_start());
    if !is_key(key) {
        return Err(format!("`{key}` is not a key (letters, digits and _)"));
    }
    let (value, rest) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..]
            .split_once(quote)
            .ok_or_else(|| format!("{key}: the closing {quote} is missing"))?,
        _ => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
    };
    if line.ends_with(value) && value.contains(['"', '\'']) {
        return Err(format!("{key}: a quote inside the value"));
    }
    let after = rest.trim_start();
    let comment = after.starts_with('#') && rest.len() > after.len();
    if !after.is_empty() && !comment {
        return Err(format!("{key}: `{after}` follows the value; a value with blanks is quoted, {key}=\"{value} …\""));
    }
    Ok((key, value))
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Takes `KEY=VALUE` from a command line apart, where the shell has already
/// undone the quotes; quotes around the whole value are taken off all the same.
pub fn assignment(text: &str) -> Result<(&str, &str), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    let value = value.trim();
    if !is_key(key.trim()) {
        return Err(format!("`{}` is not a key (letters, digits and _)", key.trim()));
    }
    let bare =
        ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Ok((key.trim(), bare.unwrap_or(value)))
}

/// Adds ` key=value` to a line, the value quoted where it holds blanks.
pub fn push(line: &mut String, key: &str, value: impl Display) {
    append(line, key, &value);
}

/// Once for all kinds of values.
fn append(line: &mut String, key: &str, value: &dyn Display) {
    if !line.is_empty() {
        line.push(' ');
    }
    let _ = write!(line, "{key}=");
    let start = line.len();
    let _ = write!(line, "{value}");
    if line[start..].is_empty() || line[start..].contains([' ', '\t', '"']) {
        let bare = line[start..].replace('"', "'");
        line.truncate(start);
        let _ = write!(line, "\"{bare}\"");
    }
}

/// The value of `key` in a line of pairs, as far as it is one word.
pub fn find<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ')
        .find_map(|word| word.split_once('=').filter(|(name, _)| *name == key))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_sh_would() {
        let file =
            "\u{feff}# a comment\r\n\n  a=1\nb = two # why\nc=\"x y\"  \nd='#q'\ne=\nf=a#b\n";
        let pairs: Vec<_> =
            read(file).map(Result::unwrap).map(|pair| (pair.line, pair.key, pair.value)).collect();
        assert_eq!(
            pairs,
            [
                (3, "a", "1"),
                (4, "b", "two"),
                (5, "c", "x y"),
                (6, "d", "#q"),
                (7, "e", ""),
                (8, "f", "a#b")
            ]
        );
    }

    #[test]
    fn mistakes_name_their_line() {
        for (file, line) in [
            ("a=1\nnonsense", 2),
            ("a b=1", 1),
            ("=1", 1),
            ("a=x y", 1),
            ("a=\"x", 1),
            ("a='x' y", 1),
            ("a=x\"y", 1),
            ("a=\"x\"#c", 1),
        ] {
            assert_eq!(read(file).find_map(Result::err).expect(file).0, line, "{file}");
        }
    }

    #[test]
    fn a_line_of_pairs_can_be_searched() {
        let mut line = String::from("provider");
        push(&mut line, "address", "10.0.0.7:80");
        push(&mut line, "note", "two words");
        assert_eq!(line, "provider address=10.0.0.7:80 note=\"two words\"");
        assert_eq!((find(&line, "address"), find(&line, "tickets")), (Some("10.0.0.7:80"), None));
        assert_eq!(assignment("a = 'x y'"), Ok(("a", "x y")));
    }
}
