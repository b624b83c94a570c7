//! The PROXY protocol, versions 1 and 2, as HAProxy specifies it: a header
//! before a client's bytes that tells who the client is.
//!
//! Owns both notations, to write and to read. Whose header is believed, and who
//! gets one, is its user's business.

use crate::base::endpoint::Transport;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;

/// The longest header of version 1, in bytes, with its end.
pub const V1_BYTES_MAX: usize = 107;
/// Bytes of values behind the addresses of version 2: the certificate of a TLS
/// client may be among them.
const TLV_BYTES_MAX: usize = 4096;
/// The longest header of version 2 that is read, in bytes.
pub const V2_BYTES_MAX: usize = V2_FIXED_BYTES + 216 + TLV_BYTES_MAX;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: the start, command, family, and a length.
const V2_FIXED_BYTES: usize = 16;

/// Which notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A line of text; knows streams only.
    V1,
    /// Binary.
    V2,
}

/// The two ends of a client's connection, as the client sees it. No address in
/// it is an IPv4-mapped one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxyAddrs {
    /// The client.
    pub source: SocketAddr,
    /// Where it came to.
    pub destination: SocketAddr,
}

impl ProxyAddrs {
    /// Of these two, whose port counts and whose IPv6 scope does not.
    pub fn new(client: SocketAddr, to: SocketAddr) -> ProxyAddrs {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        ProxyAddrs { source: plain(client), destination: plain(to) }
    }

    /// As addresses of one family: of IPv4 where both are, else of IPv6, in
    /// which an IPv4 address is written as a mapped one.
    fn family(self) -> Family {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(client), IpAddr::V4(to)) => Family::V4(client, to),
            (client, to) => Family::V6(mapped(client), mapped(to)),
        }
    }
}

enum Family {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// A header, ready to be sent.
#[derive(Clone)]
pub struct Header(Vec<u8>);

impl Header {
    /// A header of version 1, of a stream.
    pub fn v1(addrs: ProxyAddrs) -> Header {
        let (client, to) = (addrs.source.port(), addrs.destination.port());
        let line = match addrs.family() {
            Family::V4(from, at) => format!("PROXY TCP4 {from} {at} {client} {to}\r\n"),
            Family::V6(from, at) => format!("PROXY TCP6 {from} {at} {client} {to}\r\n"),
        };
        Header(line.into())
    }

    /// A header of version 2. `tlvs`: values that go behind the addresses as they
    /// are, but for the checksum.
    pub fn v2(transport: Transport, addrs: ProxyAddrs, tlvs: &[u8]) -> Header {
        const PROXY: u8 = 0x21;
        let transport = match transport {
            Transport::Tcp => 1,
            Transport::Udp => 2,
        };
        let (family, addresses) = match addrs.family() {
            Family::V4(from, at) => (0x10, [from.octets(), at.octets()].concat()),
            Family::V6(from, at) => (0x20, [from.octets(), at.octets()].concat()),
        };
        let ports =
            [addrs.source.port().to_be_bytes(), addrs.destination.port().to_be_bytes()].concat();
        let start = V2_FIXED_BYTES + addresses.len() + ports.len();
        let length = (addresses.len() + ports.len() + tlvs.len()) as u16;
        let fixed = [V2_START, &[PROXY, family | transport], &length.to_be_bytes()].concat();
        let mut header = [&fixed[..], &addresses, &ports, tlvs].concat();
        tlv::seal(&mut header, start);
        Header(header)
    }

    /// A header of a stream. `tlvs`: as in [`v2`](Header::v2); version 1 has none.
    pub fn of_stream(version: Version, addrs: ProxyAddrs, tlvs: &[u8]) -> Header {
        match version {
            Version::V1 => Header::v1(addrs),
            Version::V2 => Header::v2(Transport::Tcp, addrs, tlvs),
        }
    }
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseStatus<'a> {
    /// The beginning of a header, as far as one can tell.
    Incomplete,
    /// A header.
    Complete {
        /// Its length in bytes; what follows is the client's.
        length: usize,
        /// The addresses that it names. None: the sender speaks for itself (`LOCAL`), or of a
        /// client whose address is none of the Internet.
        addrs: Option<ProxyAddrs>,
        /// What version 2 carries behind the addresses of a client that it names.
        tlvs: &'a [u8],
    },
    /// No header: why.
    Invalid(&'static str),
}

/// Reads a header of either version from all bytes that have come so far. As
/// soon as they cannot become one they are garbled, after [`V2_BYTES_MAX`] bytes
/// at the latest.
pub fn parse(bytes: &[u8]) -> ParseStatus<'_> {
    let begins = |start: &[u8]| bytes.starts_with(start) || start.starts_with(bytes);
    if begins(V1_START) {
        parse_v1(bytes)
    } else if begins(V2_START) {
        parse_v2(bytes)
    } else {
        ParseStatus::Invalid("begins otherwise")
    }
}

fn parse_v1(bytes: &[u8]) -> ParseStatus<'_> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < V1_BYTES_MAX {
            ParseStatus::Incomplete
        } else {
            ParseStatus::Invalid("a line without an end")
        };
    };
    let (rest, length) = (&window[V1_START.len()..end], end + 2);
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return ParseStatus::Complete { length, addrs: None, tlvs: &[] };
    }
    match std::str::from_utf8(rest).ok().and_then(v1_addrs) {
        Some(addrs) => ParseStatus::Complete { length, addrs: Some(addrs), tlvs: &[] },
        None => ParseStatus::Invalid("a line of other words"),
    }
}

/// `TCP4 CLIENT TO PORT PORT`.
fn v1_addrs(line: &str) -> Option<ProxyAddrs> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let ip: fn(&str) -> Option<IpAddr> = match next()? {
        "TCP4" => |word| word.parse().ok().map(IpAddr::V4),
        "TCP6" => |word| word.parse().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (client, to) = (ip(next()?)?, ip(next()?)?);
    let (client_port, to_port) = (port(next()?)?, port(next()?)?);
    let addrs = ProxyAddrs::new(SocketAddr::new(client, client_port), SocketAddr::new(to, to_port));
    next().is_none().then_some(addrs)
}

fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|c| c.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

fn parse_v2(bytes: &[u8]) -> ParseStatus<'_> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let command = match bytes.get(V2_START.len()) {
        None => return ParseStatus::Incomplete,
        Some(command @ (&LOCAL | &PROXY)) => *command,
        Some(_) => return ParseStatus::Invalid("of another version or command"),
    };
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        return ParseStatus::Incomplete;
    };
    let body = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let length = V2_FIXED_BYTES + body;
    if length > V2_BYTES_MAX {
        return ParseStatus::Invalid("longer than 4,328 bytes");
    }
    if command == LOCAL {
        return if rest.len() < body {
            ParseStatus::Incomplete
        } else {
            ParseStatus::Complete { length, addrs: None, tlvs: &[] }
        };
    }
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 15);
    let least = match family {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return ParseStatus::Invalid("of another family"),
    };
    if transport > 2 {
        return ParseStatus::Invalid("of another transport");
    }
    if body < least {
        return ParseStatus::Invalid("shorter than its addresses");
    }
    if body - least > TLV_BYTES_MAX {
        return ParseStatus::Invalid("with more than 4 KiB behind its addresses");
    }
    let Some(addresses) = rest.get(..body) else { return ParseStatus::Incomplete };
    let Some(addrs) = v2_addrs(family, addresses).filter(|_| transport != 0) else {
        return ParseStatus::Complete { length, addrs: None, tlvs: &[] };
    };
    match tlv::check(&bytes[..length], V2_FIXED_BYTES + least) {
        Ok(()) => ParseStatus::Complete { length, addrs: Some(addrs), tlvs: &addresses[least..] },
        Err(why) => ParseStatus::Invalid(why),
    }
}

fn v2_addrs(family: u8, bytes: &[u8]) -> Option<ProxyAddrs> {
    let (client, rest) = address(family, bytes)?;
    let (to, rest) = address(family, rest)?;
    let (client_port, rest) = rest.split_first_chunk()?;
    let (to_port, _) = rest.split_first_chunk()?;
    let with = |ip, port: &[u8; 2]| SocketAddr::new(ip, u16::from_be_bytes(*port));
    Some(ProxyAddrs::new(with(client, client_port), with(to, to_port)))
}

fn address(family: u8, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        1 => bytes.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        2 => bytes.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        _ => None,
    }
}

mod tlv;
pub use tlv::with_unique_id;

#[cfg(test)]
mod tests;
