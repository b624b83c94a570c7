//! The notation `key=value`, which tells: configuration, status, log lines.
//!
//! Owns the reading of a file of pairs and the writing of a line of pairs. Whatever the
//! reader takes, sh reads to the same value (POSIX.1-2017, 2.2 and 2.9.1). What sh would
//! expand or execute is a mistake. Knows no key.

use std::fmt::{Display, Write};
use std::iter::Peekable;
use std::str::Chars;

/// One assignment in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// Left of the equals sign.
    pub key: &'a str,
    /// Right of it, without quotes.
    pub value: String,
}

/// Reads a file: each line nothing, a comment, a pair, or wrong (its number
/// and what is wrong with it). A byte order mark and CR before LF are passed over.
pub fn read(text: &str) -> impl Iterator<Item = Result<Pair<'_>, (usize, String)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().filter_map(|(index, line)| {
        let line_number = index + 1;
        let line = line.trim_start_matches(is_blank);
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

/// What separates words in sh.
fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn pair(line: &str) -> Result<(&str, String), String> {
    let (key, text) = line.split_once('=').ok_or_else(|| format!("`{line}` is not KEY=VALUE"))?;
    if key.ends_with(is_blank) && is_key(key.trim_end_matches(is_blank)) {
        let key = key.trim_end_matches(is_blank);
        return Err(format!("{key}: a blank before =, which sh does not take ({key}=VALUE)"));
    }
    if !is_key(key) {
        return Err(format!("`{key}` is not a key (a letter or _, then letters, digits and _)"));
    }
    let mut reader =
        ValueReader { rest: text.chars().peekable(), value: String::new(), begun: false };
    reader.read().map_err(|wrong| format!("{key}: {wrong}"))?;
    let ValueReader { rest, value, begun } = reader;
    let after: String = rest.collect();
    let after = after.trim_matches(is_blank);
    if after.is_empty() || after.starts_with('#') {
        Ok((key, value))
    } else if begun {
        Err(format!(
            "{key}: `{after}` follows the value; a value with blanks is quoted, \
             {key}=\"{value} {after}\""
        ))
    } else {
        Err(format!("{key}: a blank after =, which sh does not take ({key}={after})"))
    }
}

/// Reads one word of sh.
struct ValueReader<'a> {
    rest: Peekable<Chars<'a>>,
    value: String,
    /// Something stood there, if only quotes around nothing.
    begun: bool,
}

impl ValueReader<'_> {
    /// Reads up to the blank that ends the word, or all.
    fn read(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next_if(|c| !is_blank(*c)) {
            match c {
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => match self.rest.next() {
                    None => return Err("a line cannot be continued (\\ at its end)".into()),
                    Some(c) if c.is_ascii_alphanumeric() => {
                        return Err(format!("sh drops this \\: write '\\{c}' to keep it"))
                    }
                    Some(c) => self.push(c)?,
                },
                '|' | '&' | ';' | '<' | '>' | '(' | ')' => {
                    return Err(format!("sh does not take {c} as a part of a value: quote it"))
                }
                '~' if self.value.is_empty() || self.value.ends_with(':') => {
                    return Err("sh would expand ~, and nothing is expanded here: quote it".into())
                }
                c => self.literal(c, false)?,
            }
            self.begun = true;
        }
        Ok(())
    }

    fn single_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.rest.next() {
                None => return Err("the closing ' is missing".into()),
                Some('\'') => return Ok(()),
                Some(c) => self.push(c)?,
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.rest.next() {
                None => return Err("the closing \" is missing".into()),
                Some('"') => return Ok(()),
                Some('\\') => match self.rest.next_if(|c| matches!(c, '$' | '`' | '"' | '\\')) {
                    Some(c) => self.push(c)?,
                    None => self.push('\\')?,
                },
                Some(c) => self.literal(c, true)?,
            }
        }
    }

    /// Takes a character that only quotes or a backslash would keep from being expanded.
    fn literal(&mut self, c: char, quoted: bool) -> Result<(), String> {
        let expands = |next: char| {
            next.is_ascii_alphanumeric()
                || "_{([*@#?-$!".contains(next)
                || (!quoted && "'\"".contains(next))
        };
        if c == '`' || (c == '$' && self.rest.peek().is_some_and(|next| expands(*next))) {
            return Err(format!(
                "sh would expand {c}, and nothing is expanded here: write \\{c}, or quote it with '"
            ));
        }
        self.push(c)
    }

    fn push(&mut self, c: char) -> Result<(), String> {
        if c.is_ascii_control() && c != '\t' {
            return Err(format!("a control character ({})", c.escape_default()));
        }
        self.value.push(c);
        Ok(())
    }
}

/// Whether this is a name that sh can assign to.
fn is_key(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
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
            "\u{feff}# a comment\r\n\n  a=1\n\tb=two\t # why\nc=\"x y\"  \nd='#q'\ne=\nf=a#b\r\n\
                    g=  # nothing\n_h=x";
        let pairs: Vec<_> = read(file).map(Result::unwrap).collect();
        let pairs: Vec<_> =
            pairs.iter().map(|pair| (pair.line, pair.key, pair.value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                (3, "a", "1"),
                (4, "b", "two"),
                (5, "c", "x y"),
                (6, "d", "#q"),
                (7, "e", ""),
                (8, "f", "a#b"),
                (9, "g", ""),
                (10, "_h", "x"),
            ]
        );
    }

    #[test]
    fn quotes_and_backslashes_mean_what_they_mean_to_sh() {
        for (text, value) in [
            (r#"exec:"curl -f x""#, "exec:curl -f x"),
            (r#"a"b 'c'"'d "e"'f"#, r#"ab 'c'd "e"f"#),
            ("\"x\"#c", "x#c"),
            (r#""C:\x \$HOME \` \" \\ \'""#, r#"C:\x $HOME ` " \ \'"#),
            (r"'$HOME `x` \'\'", r"$HOME `x` \'"),
            (r"\$HOME\ \`x\~", "$HOME `x~"),
            (r"a~b'~'\~", "a~b~~"),
            ("cost:5$", "cost:5$"),
            ("a$.b$/c$,", "a$.b$/c$,"),
            (r#""5$""#, "5$"),
            ("*:80", "*:80"),
            ("a=b==c", "a=b==c"),
            ("{a,b}[c]!%^", "{a,b}[c]!%^"),
            ("größe\u{a0}x", "größe\u{a0}x"),
            (r"x\ ", "x "),
            ("''", ""),
        ] {
            let line = format!("key={text}");
            assert_eq!(pair(&line), Ok(("key", value.to_string())), "{line}");
        }
    }

    #[test]
    fn mistakes_name_their_line_and_the_reason() {
        for (file, line, reason) in [
            ("a=1\nnonsense", 2, "is not KEY=VALUE"),
            ("a b=1", 1, "is not a key"),
            ("1a=1", 1, "is not a key"),
            ("=1", 1, "is not a key"),
            ("export a=1", 1, "is not a key"),
            ("a = 1", 1, "a: a blank before =, which sh does not take (a=VALUE)"),
            ("a =1", 1, "blank before ="),
            ("a= 1", 1, "a: a blank after =, which sh does not take (a=1)"),
            ("a=x y", 1, "a value with blanks is quoted, a=\"x y\""),
            ("a='' y", 1, "`y` follows the value"),
            ("a=\"x", 1, "the closing \" is missing"),
            ("a=x'y", 1, "the closing ' is missing"),
            ("a='x' y", 1, "follows the value"),
            ("a=x\\", 1, "cannot be continued"),
            ("a=C:\\x", 1, "sh drops this \\: write '\\x' to keep it"),
            ("a=x;y", 1, "does not take ;"),
            ("a=(x)", 1, "does not take ("),
            ("a=~/x", 1, "would expand ~"),
            ("a=x:~/y", 1, "would expand ~"),
            ("a=$HOME", 1, "sh would expand $"),
            ("a=x\"${y}\"", 1, "sh would expand $"),
            ("a=\"$(id)\"", 1, "sh would expand $"),
            ("a=$'x'", 1, "sh would expand $"),
            ("a=\"`id`\"", 1, "sh would expand `"),
            ("a='x\0y'", 1, "a control character"),
        ] {
            let (at, why) = read(file).find_map(Result::err).expect(file);
            assert!(at == line && why.contains(reason), "{file:?}: {why}");
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
