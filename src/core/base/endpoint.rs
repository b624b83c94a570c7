//! Places to connect to and to listen on, as people write them.
//!
//! Owns the notations of a peer, a queue and a listen address. Opens nothing
//! and resolves no name.

use super::decimal::parse_digits;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The port of the control protocol.
pub const CONTROL_PORT: u16 = 7347;

/// A peer to connect to: `HOST:PORT`, `IP:PORT` or `[IPv6]:PORT`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// A name or an address without brackets.
    pub host: String,
    /// 1..=65535.
    pub port: u16,
}

impl HostPort {
    /// The address, where no name has to be resolved for it.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, self.port))
    }

    /// The host as it stands in a URL.
    pub fn host_in_url(&self) -> impl fmt::Display + '_ {
        HostInUrl(&self.host)
    }
}

struct HostInUrl<'a>(&'a str);

impl fmt::Display for HostInUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(self.0)
        }
    }
}

fn host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        // Digits and dots alone would be a mistyped address.
        && text.bytes().any(|c| c.is_ascii_alphabetic())
}

/// Splits `HOST:PORT` or `[IPv6]:PORT`.
fn host_and_port(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(inner) => inner.split_once("]:").filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok()),
        None => text.rsplit_once(':').filter(|(host, _)| {
            *host == "*" || host_name(host) || host.parse::<Ipv4Addr>().is_ok()
        }),
    }
}

/// A ticket queue: `HOST:PORT`, or `HOST` for the port of the control protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueAddr(pub HostPort);

impl FromStr for QueueAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<QueueAddr, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let host = match bare {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok().then_some(ip),
            None => Some(text).filter(|text| host_name(text) || text.parse::<Ipv4Addr>().is_ok()),
        };
        match host {
            Some(host) => Ok(QueueAddr(HostPort { host: host.to_string(), port: CONTROL_PORT })),
            None => text.parse().map(QueueAddr),
        }
    }
}

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<HostPort, Self::Err> {
        const WRONG: &str = "not an address to connect to (HOST:PORT, IP:PORT or [IPv6]:PORT)";
        let (host, digits) = host_and_port(text).filter(|(host, _)| *host != "*").ok_or(WRONG)?;
        let port = parse_digits(digits).filter(|port| *port != 0).ok_or(WRONG)?;
        Ok(HostPort { host: host.to_string(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host_in_url(), self.port)
    }
}

/// What is spoken on a listening address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A place to listen on: `*:PORT`, `IP:PORT`, `[IPv6]:PORT` or `HOST:PORT`,
/// the port perhaps a range `40000-40020`, then perhaps `/tcp` or `/udp`.
/// `PORT` and `:PORT` mean `*:PORT`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenAddr {
    /// `*` (both families), an address without brackets, or a name.
    pub host: String,
    /// The first port; 0 lets the system choose one.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
    /// TCP unless it says otherwise.
    pub transport: Transport,
}

impl ListenAddr {
    /// Whether `port` is one of its ports.
    pub fn covers(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Its first port as this host reaches it.
    pub fn from_this_host(&self) -> HostPort {
        let host = match self.host.as_str() {
            "*" | "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        HostPort { host: host.to_string(), port: self.first }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", HostInUrl(&self.host), self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ListenAddr, Self::Err> {
        const WRONG: &str = "not an address to listen on (IP:PORT, [IPv6]:PORT, HOST:PORT, *:PORT \
            or PORT; the port may be a range, /udp may follow)";
        let (address, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((address, "tcp")) => (address, Transport::Tcp),
            Some((address, "udp")) => (address, Transport::Udp),
            Some(_) => return Err(WRONG),
        };
        let bare = address.strip_prefix(':').unwrap_or(address);
        let is_bare = bare.bytes().all(|c| c.is_ascii_digit() || c == b'-');
        let everywhere = is_bare.then_some(("*", bare));
        let (host, ports) = everywhere.or_else(|| host_and_port(address)).ok_or(WRONG)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (parse_digits(first).ok_or(WRONG)?, parse_digits(last).ok_or(WRONG)?);
        if first > last || (first == 0 && last != 0) {
            return Err(WRONG);
        }
        Ok(ListenAddr { host: host.to_string(), first, last, transport })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_needs_no_port() {
        for (text, target) in [
            ("lb1", "lb1:7347"),
            ("lb1:80", "lb1:80"),
            ("10.0.0.1", "10.0.0.1:7347"),
            ("[::1]", "[::1]:7347"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<QueueAddr>().unwrap().0.to_string(), target);
        }
        for bad in ["", ":80", "lb1:", "::1", "[lb1]", "lb 1"] {
            assert!(bad.parse::<QueueAddr>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn listening_places() {
        let range: ListenAddr = "*:40000-40020/udp".parse().unwrap();
        assert_eq!(
            (range.host.as_str(), range.first, range.last, range.transport),
            ("*", 40000, 40020, Transport::Udp)
        );
        assert!(range.covers(40020) && !range.covers(40021));
        for good in ["127.0.0.1:0", "[::]:80/tcp", "localhost:80"] {
            assert!(good.parse::<ListenAddr>().is_ok(), "{good}");
        }
        for text in ["*:40000-40020/udp", "127.0.0.1:0", "[::1]:80", "localhost:53/udp"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for (short, long) in [
            ("80", "*:80"),
            (":80", "*:80"),
            ("53/udp", "*:53/udp"),
            (":40000-40020", "*:40000-40020"),
        ] {
            assert_eq!(short.parse::<ListenAddr>().unwrap().to_string(), long);
        }
        for bad in [
            "",
            ":",
            "-",
            "80-",
            "-80",
            "::80",
            "65536",
            "/udp",
            "1.2.3:80",
            "*:90-80",
            "*:0-80",
            "*:80/sctp",
            "*:80/udp/tcp",
            "::1:80",
            "[::1]",
        ] {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad:?} was taken");
        }
    }
}
