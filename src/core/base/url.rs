//! Uniform Resource Identifiers, RFC 3986, as far as a control message needs
//! them: `scheme://host[:port]/path[?name=value&…]`.
//!
//! Owns the grammar and the percent-encoding. Knows no scheme and no command.
//! Never panics, whatever the bytes.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The parts of a URL, still encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Url<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// A name or an address, without the brackets of an IPv6 one.
    pub host: &'a str,
    /// The port, where one is written.
    pub port: Option<u16>,
    /// From the slash on.
    pub path: &'a str,
    /// After the question mark.
    pub query: &'a str,
}

/// [`allowed`] of every byte: there are many messages.
const ALLOWED: [bool; 256] = {
    let (mut table, mut c) = ([false; 256], 0);
    while c < 256 {
        table[c] = allowed(c as u8);
        c += 1;
    }
    table
};

/// Characters that may stand in a path or query. Square brackets, which RFC
/// 3986 wants encoded there, are taken as they are: `[::1]:80` is easier typed.
const fn allowed(c: u8) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
                | b'?'
                | b'['
                | b']'
                | b'%'
        )
}

impl<'a> Url<'a> {
    /// Takes a URL apart, or says what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Url<'a>, &'static str> {
        let colon = text.bytes().position(|c| c == b':').unwrap_or(text.len());
        let (scheme, rest) = text.split_at(colon);
        let rest = rest.strip_prefix("://").ok_or("no scheme://")?;
        let mut letters = scheme.bytes();
        if !letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            || !letters.all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
        {
            return Err("the scheme is malformed");
        }
        if !rest.bytes().all(|c| ALLOWED[usize::from(c)]) {
            return Err("a character that a URL may not contain");
        }
        let (authority, tail) =
            rest.split_at(rest.bytes().position(|c| c == b'/' || c == b'?').unwrap_or(rest.len()));
        let path = tail.bytes().position(|c| c == b'?').unwrap_or(tail.len());
        let (path, query) = (&tail[..path], tail.get(path + 1..).unwrap_or(""));
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, port) =
                    inner.split_once(']').ok_or("the address lacks its closing bracket")?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("not an IPv6 address between the brackets");
                }
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() || host.bytes().any(|c| b"@[]%".contains(&c)) {
            return Err("no host");
        }
        let port = match port.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| "the port is above 65535")?)
            }
            None if port.is_empty() => None,
            _ => return Err("the port is not a number"),
        };
        Ok(Url { scheme, host, port, path, query })
    }

    /// The parameters of the query, decoded; an error for a pair without `=`
    /// or a broken percent-encoding.
    pub fn pairs(
        &self,
    ) -> impl Iterator<Item = Result<(Cow<'a, str>, Cow<'a, str>), &'static str>> + 'a {
        let mut left = Some(self.query).filter(|query| !query.is_empty());
        std::iter::from_fn(move || {
            let (pair, others) = split_once(left?, b'&');
            left = others;
            Some(pair)
        })
        .map(|pair| {
            let (name, value) = split_once(pair, b'=');
            let value = value.ok_or("a parameter without =")?;
            Ok((decode(name)?, decode(value)?))
        })
    }
}

/// The text before the first one of an ASCII character, and that behind it, if there is one.
/// A parameter is short: a loop over its bytes is quicker than a search that is made for
/// long text.
fn split_once(text: &str, separator: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|c| c == separator) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Undoes the percent-encoding. What it stands for must be ASCII text.
pub fn decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.bytes().any(|c| c == b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(c) = bytes.next() {
        let c = if c == b'%' {
            let mut digit = || {
                bytes
                    .next()
                    .and_then(|c| char::from(c).to_digit(16))
                    .ok_or("a broken percent-encoding")
            };
            (digit()? * 16 + digit()?) as u8
        } else {
            c
        };
        if !(b' '..=b'~').contains(&c) {
            return Err("a parameter with more than printable ASCII in it");
        }
        plain.push(char::from(c));
    }
    Ok(Cow::Owned(plain))
}

/// Text as it stands in a query: all but the unreserved characters, `:` and
/// `,` percent-encoded.
pub struct Encoded<T>(pub T);

impl<T: fmt::Display> fmt::Display for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Encoder<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Encoder<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for c in text.bytes() {
                    match c {
                        b'-' | b'.' | b'_' | b'~' | b':' | b',' => {
                            self.0.write_char(char::from(c))?
                        }
                        c if c.is_ascii_alphanumeric() => self.0.write_char(char::from(c))?,
                        c => write!(self.0, "%{c:02X}")?,
                    }
                }
                Ok(())
            }
        }
        write!(Encoder(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_comes_apart() {
        let url = Url::parse("pegasus://195.251.255.190/next").unwrap();
        assert_eq!(
            (url.scheme, url.host, url.port, url.path, url.query),
            ("pegasus", "195.251.255.190", None, "/next", "")
        );
        let url =
            Url::parse("pegasus://[2001:db8::1]:7348/next?service=web&client=%5B::1%5D").unwrap();
        assert_eq!((url.host, url.port), ("2001:db8::1", Some(7348)));
        let pairs: Vec<_> = url.pairs().map(Result::unwrap).collect();
        assert_eq!(pairs, [("service".into(), "web".into()), ("client".into(), "[::1]".into())]);
    }

    #[test]
    fn malformed_urls_are_refused() {
        for bad in [
            "",
            "next",
            "pegasus:/next",
            "://b/next",
            "1p://b/next",
            "p://",
            "p:///next",
            "p://u@b/next",
            "p://b:/x",
            "p://b:65536/x",
            "p://b:8x/x",
            "p://[::1/x",
            "p://[b]/x",
            "p://[::1%25lo]/x",
            "p://b%41/x",
            "p://b/x y",
            "p://b/x#f",
            "p://b/\u{0}",
            "p://b/é",
            "p://b/x\r",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad:?} was taken");
        }
        for bad in [
            "p://b/x?a",
            "p://b/x?a=1&",
            "p://b/x?a=%4",
            "p://b/x?a=%zz",
            "p://b/x?a=%0a",
            "p://b/x?a=%ff",
        ] {
            assert!(
                Url::parse(bad).unwrap().pairs().any(|pair| pair.is_err()),
                "{bad:?} was taken"
            );
        }
    }

    #[test]
    fn encoding_comes_back() {
        let all: String = (b' '..=b'~').map(char::from).collect();
        let encoded = Encoded(&all).to_string();
        assert_eq!(decode(&encoded).unwrap(), all);
        assert!(encoded.bytes().all(allowed));
    }
}
