//! The names that are answered (DNS), and what a question's name is to them.
//!
//! Owns the notation of names in a configuration, and the table. A name in a question is
//! taken as it comes: labels, each behind its length, and a zero at the end (RFC 1035, 3.1),
//! so that no byte in a label can be taken for a dot. Letters are alike in either case.

use crate::base::service_name::ServiceName;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes as in a message.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// A name that is answered: lower case, as in a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DnsName(Vec<u8>);

impl FromStr for DnsName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<DnsName, Self::Err> {
        let mut wire = Vec::new();
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
            if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.bytes().all(good) {
                return Err("not a name (labels of up to 63 letters, digits, - and _, with dots)");
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|c| c.to_ascii_lowercase()));
        }
        wire.push(0);
        // Room for a label in front, which names a provider.
        if wire.len() > NAME_BYTES_MAX - 33 {
            return Err("too long for a name (220 letters)");
        }
        Ok(DnsName(wire))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = labels(&self.0).map(String::from_utf8_lossy).collect();
        f.write_str(&labels.join("."))
    }
}

/// The labels of a name.
fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        let label = behind.get(..usize::from(length)).filter(|label| !label.is_empty())?;
        rest = &behind[label.len()..];
        Some(label)
    })
}

/// The name at the beginning of these bytes, with its zero.
pub fn leading_name(bytes: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    loop {
        // A question's name is the first of its message: it cannot point to another one.
        let length = usize::from(*bytes.get(end)?);
        end += 1 + length;
        if length > LABEL_BYTES_MAX || end > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            return Some(&bytes[..end]);
        }
    }
}

/// What a name is to those that are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameMatch<'a> {
    /// It is one of them.
    Exact(ServiceName),
    /// It is one label longer than one of them, and this is the label.
    Label {
        /// The service of that name.
        service: ServiceName,
        /// The label.
        label: &'a [u8],
        /// Where that name begins.
        zone: usize,
    },
    /// It is below one of them, and nothing has that name.
    Nothing {
        /// The service of that name.
        service: ServiceName,
        /// Where that name begins.
        zone: usize,
    },
    /// The same, but there are names below it.
    Empty {
        /// The service of that name.
        service: ServiceName,
        /// Where that name begins.
        zone: usize,
    },
    /// It has nothing to do with them.
    Foreign,
}

/// The names that are answered.
#[derive(Clone, Debug, Default)]
pub struct NameTable(BTreeMap<Vec<u8>, ServiceName>);

impl NameTable {
    /// A table of these. Of two equal names the last one counts.
    pub fn new(names: impl Iterator<Item = (DnsName, ServiceName)>) -> NameTable {
        NameTable(names.map(|(name, service)| (name.0, service)).collect())
    }

    /// What this name is to them, as it was asked.
    pub fn find<'a>(&self, name: &'a [u8]) -> NameMatch<'a> {
        let lower = name.to_ascii_lowercase();
        if let Some(&service) = self.0.get(&lower) {
            return NameMatch::Exact(service);
        }
        let mut zone = 0;
        for label in labels(name) {
            zone += 1 + label.len();
            let Some(&service) = self.0.get(&lower[zone..]) else { continue };
            return match zone == 1 + usize::from(name[0]) {
                _ if self.any_below(&lower) => NameMatch::Empty { service, zone },
                true => NameMatch::Label { service, label, zone },
                false => NameMatch::Nothing { service, zone },
            };
        }
        NameMatch::Foreign
    }

    /// Where in one of these names the one begins that its providers' hosts have names below:
    /// a host's name has no underscore (RFC 1123, 2.1), which those of protocols begin with.
    pub fn host_zone(&self, name: &[u8]) -> usize {
        let lower = name.to_ascii_lowercase();
        let mut zone = 0;
        for label in labels(name).take_while(|label| label.starts_with(b"_")) {
            zone += 1 + label.len();
        }
        if self.0.contains_key(&lower[zone..]) {
            zone
        } else {
            0
        }
    }

    /// Whether one of them is below this one.
    fn any_below(&self, lower: &[u8]) -> bool {
        self.0.keys().any(|name| {
            let mut start = 0;
            labels(name).any(|label| {
                start += 1 + label.len();
                name[start..] == *lower
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in text.split('.').filter(|label| !label.is_empty()) {
            wire.push(label.len() as u8);
            wire.extend(label.bytes());
        }
        wire.push(0);
        wire
    }

    #[test]
    fn names_of_a_configuration_have_a_grammar_and_a_bound() {
        for (text, shown) in [
            ("web.example", "web.example"),
            ("WEB.Example.", "web.example"),
            ("_http._tcp.web.example", "_http._tcp.web.example"),
            ("web", "web"),
        ] {
            assert_eq!(text.parse::<DnsName>().unwrap().to_string(), shown);
        }
        let long = ["a"; 120].join(".");
        for bad in ["", ".", "a..b", ".a", "a b", "a/b", "ä.example", &"a".repeat(64), &long] {
            assert!(bad.parse::<DnsName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_name_is_exact_or_below_or_foreign() {
        let web: ServiceName = "web".parse().unwrap();
        let api: ServiceName = "api".parse().unwrap();
        let names = [("web.example", web), ("_http._tcp.web.example", web), ("a.example", api)];
        let table = NameTable::new(names.iter().map(|(name, of)| (name.parse().unwrap(), *of)));
        let find = |text: &str| format!("{:?}", table.find(&wire(text)));
        assert_eq!(find("wEb.EXAMPLE"), "Exact(web)");
        assert_eq!(find("_HTTP._tcp.web.example"), "Exact(web)");
        assert_eq!(find("a.example"), "Exact(api)");
        assert_eq!(find("_tcp.web.example"), "Empty { service: web, zone: 5 }");
        assert_eq!(
            find("0a000001.WEB.example"),
            format!("Label {{ service: web, label: {:?}, zone: 9 }}", b"0a000001")
        );
        assert_eq!(find("x.y.web.example"), "Nothing { service: web, zone: 4 }");
        let host_zone = |text: &str| table.host_zone(&wire(text));
        assert_eq!((host_zone("_HTTP._tcp.web.example"), host_zone("web.example")), (11, 0));
        assert_eq!(host_zone("_http._tcp.other.example"), 0);
        for foreign in ["example", "other.example", "xweb.example", "example.web", ""] {
            assert_eq!(find(foreign), "Foreign", "{foreign}");
        }
        // A dot within a label is no dot between labels.
        let tricky = [&[5][..], b"a.web", &[7], b"example", &[0]].concat();
        assert_eq!(table.find(&tricky), NameMatch::Foreign);
    }

    #[test]
    fn hostile_names_are_no_names() {
        assert_eq!(leading_name(&wire("a.b")), Some(&wire("a.b")[..]));
        assert_eq!(leading_name(&[wire("a.b"), vec![7, 7]].concat()), Some(&wire("a.b")[..]));
        assert_eq!(leading_name(&[0]), Some(&[0][..]));
        for bad in [&[][..], &[1], &[1, b'a'], &[0xc0, 12], &[64; 200], &[1; 300]] {
            assert_eq!(leading_name(bad), None, "{bad:?}");
        }
    }
}
