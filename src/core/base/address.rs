//! Addresses in every form that people and messages write them.
//!
//! Owns the notations: a provider, a peer to connect to, a place to listen
//! on, a network. Opens nothing and resolves no name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The port of the control protocol.
pub const CONTROL_PORT: u16 = 7347;

/// A provider as it was registered: `IP`, `IP:PORT`, `[IPv6]` or
/// `[IPv6]:PORT`. Without a port a client is led to the port it came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Provider {
    /// Its address, never an IPv4-mapped IPv6 one.
    pub ip: IpAddr,
    /// Its port, 1..=65535, or the client's.
    pub port: Option<u16>,
}

impl Provider {
    /// Where to connect for a client that came to `port`.
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

/// A provider in a message, where `:PORT`, and nothing at all, leave the
/// address to the connection that the message came on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProviderSpec {
    /// Its address, if it was written.
    pub ip: Option<IpAddr>,
    /// Its port, if it was written.
    pub port: Option<u16>,
}

impl ProviderSpec {
    /// The provider that is meant on a connection from `source`.
    pub fn resolve(&self, source: IpAddr) -> Provider {
        Provider { ip: self.ip.unwrap_or(source).to_canonical(), port: self.port }
    }
}

impl From<Provider> for ProviderSpec {
    fn from(provider: Provider) -> ProviderSpec {
        ProviderSpec { ip: Some(provider.ip), port: provider.port }
    }
}

fn port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

impl FromStr for ProviderSpec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ProviderSpec, Self::Err> {
        const WRONG: &str = "not a provider (IP, IP:PORT, [IPv6], [IPv6]:PORT or :PORT)";
        let (ip, rest) = if let Some(inner) = text.strip_prefix('[') {
            let (ip, rest) = inner.split_once(']').ok_or(WRONG)?;
            (Some(IpAddr::V6(ip.parse::<Ipv6Addr>().map_err(|_| WRONG)?)), rest)
        } else if let Ok(ip) = text.parse::<Ipv6Addr>() {
            (Some(IpAddr::V6(ip)), "")
        } else {
            let (ip, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let ip = if ip.is_empty() {
                None
            } else {
                Some(IpAddr::V4(ip.parse::<Ipv4Addr>().map_err(|_| WRONG)?))
            };
            (ip, rest)
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits).filter(|port| *port != 0).ok_or(WRONG)?),
            None if rest.is_empty() && ip.is_some() => None,
            None => return Err(WRONG),
        };
        Ok(ProviderSpec { ip: ip.map(|ip| ip.to_canonical()), port })
    }
}

impl fmt::Display for ProviderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            None => {}
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Provider {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Provider, Self::Err> {
        let spec: ProviderSpec = text.parse()?;
        let ip = spec
            .ip
            .ok_or("a provider's address is missing (IP, IP:PORT, [IPv6] or [IPv6]:PORT)")?;
        Ok(Provider { ip, port: spec.port })
    }
}

impl Provider {
    /// Appends it as `Display` writes it. A faster twin, for every reply names a provider.
    pub fn write(&self, out: &mut Vec<u8>) {
        let IpAddr::V4(ip) = self.ip else {
            return out.extend_from_slice(self.to_string().as_bytes());
        };
        for (number, byte) in ip.octets().into_iter().enumerate() {
            if number > 0 {
                out.push(b'.');
            }
            digits(byte.into(), out);
        }
        if let Some(port) = self.port {
            out.push(b':');
            digits(port.into(), out);
        }
    }
}

/// Appends a number in decimal.
pub fn digits(mut number: u32, out: &mut Vec<u8>) {
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

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ProviderSpec::from(*self).fmt(f)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SocketAddr> for Provider {
    fn from(socket: SocketAddr) -> Provider {
        Provider { ip: socket.ip().to_canonical(), port: Some(socket.port()) }
    }
}

/// Somebody to connect to: `HOST:PORT`, `IP:PORT` or `[IPv6]:PORT`.
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
        let port = port(digits).filter(|port| *port != 0).ok_or(WRONG)?;
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
        const WRONG: &str = "not an address to listen on (IP:PORT, [IPv6]:PORT, HOST:PORT or *:PORT; the port may be a range, /udp may follow)";
        let (address, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((address, "tcp")) => (address, Transport::Tcp),
            Some((address, "udp")) => (address, Transport::Udp),
            Some(_) => return Err(WRONG),
        };
        let (host, ports) = host_and_port(address).ok_or(WRONG)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (port(first).ok_or(WRONG)?, port(last).ok_or(WRONG)?);
        if first > last || (first == 0 && last != 0) {
            return Err(WRONG);
        }
        Ok(ListenAddr { host: host.to_string(), first, last, transport })
    }
}

/// A network: `10.0.0.0/8`, `::1/128`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl Cidr {
    /// This host: `127.0.0.0/8` and `::1`.
    pub const LOOPBACK: [Cidr; 2] = [
        Cidr { ip: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
        Cidr { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
    ];

    /// Whether `ip` is in it. An IPv4-mapped address is the IPv4 one.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (u32::from(net) ^ u32::from(ip)) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (u128::from(net) ^ u128::from(ip)) & mask == 0
            }
            _ => false,
        }
    }

    /// Whether it reaches beyond this host.
    pub fn beyond_loopback(&self) -> bool {
        !(self.ip.is_loopback() && (self.bits >= 8 || self.ip.is_ipv6()))
    }
}

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Cidr, Self::Err> {
        const WRONG: &str = "not a network (10.0.0.0/8, ::1, 0.0.0.0/0)";
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| WRONG)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => port(bits)
                .and_then(|bits| u8::try_from(bits).ok())
                .filter(|bits| *bits <= most)
                .ok_or(WRONG)?,
            None => most,
        };
        Ok(Cidr { ip, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_read_and_print_alike() {
        for text in ["10.0.0.7", "10.0.0.7:80", "[::1]", "[2001:db8::5]:443"] {
            assert_eq!(text.parse::<Provider>().unwrap().to_string(), text);
        }
        assert_eq!("[::ffff:10.0.0.7]:80".parse::<Provider>().unwrap().to_string(), "10.0.0.7:80");
        assert_eq!("::1".parse::<Provider>().unwrap().to_string(), "[::1]");
        for bad in [
            "",
            ":80",
            "web:80",
            "10.0.0",
            "10.0.0.7:",
            "10.0.0.7:0",
            "10.0.0.7:65536",
            "10.0.0.7:+80",
            "[::1",
            "[::1]80",
            "[10.0.0.7]:80",
            "::1%lo",
        ] {
            assert!(bad.parse::<Provider>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_missing_address_is_the_source() {
        let source = "::ffff:192.0.2.9".parse().unwrap();
        assert_eq!(ProviderSpec::default().resolve(source).to_string(), "192.0.2.9");
        assert_eq!(
            ":81".parse::<ProviderSpec>().unwrap().resolve(source).to_string(),
            "192.0.2.9:81"
        );
    }

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
        for bad in [
            "80",
            ":80",
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

    #[test]
    fn networks_contain_what_they_say() {
        let inside =
            |net: &str, ip: &str| net.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(
            inside("0.0.0.0/0", "203.0.113.9")
                && inside("::/0", "2001:db8::1")
                && !inside("::/0", "1.2.3.4")
        );
        assert!(inside("192.0.2.1", "::ffff:192.0.2.1") && !inside("192.0.2.1", "192.0.2.2"));
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?} was taken");
        }
        assert!(
            Cidr::LOOPBACK.iter().all(|net| !net.beyond_loopback())
                && "0.0.0.0/0".parse::<Cidr>().unwrap().beyond_loopback()
        );
    }
}
