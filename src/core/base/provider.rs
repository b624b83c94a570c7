//! A provider's address, as it is registered and as messages write it.
//!
//! Owns both notations. Resolves no name.

use super::decimal::{append_digits, parse_digits};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

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

impl Provider {
    /// Refuses an address to which no client can connect.
    ///
    /// # Errors
    /// Why none can.
    pub fn check_reachable(&self) -> Result<(), &'static str> {
        reachable(self.ip).map(drop)
    }
}

impl From<Provider> for ProviderSpec {
    fn from(provider: Provider) -> ProviderSpec {
        ProviderSpec { ip: Some(provider.ip), port: provider.port }
    }
}

/// Refuses an address to which no client can connect.
fn reachable(ip: IpAddr) -> Result<IpAddr, &'static str> {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() {
        Err("an unspecified address: clients cannot connect to it")
    } else if ip.is_multicast() || broadcast {
        Err("a multicast or broadcast address: clients cannot connect to it")
    } else if link_local {
        Err("a link-local IPv6 address: it means nothing without its link")
    } else {
        Ok(ip)
    }
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
            Some(digits) => Some(parse_digits(digits).filter(|port| *port != 0).ok_or(WRONG)?),
            None if rest.is_empty() && ip.is_some() => None,
            None => return Err(WRONG),
        };
        let ip = ip.map(|ip| reachable(ip.to_canonical())).transpose()?;
        Ok(ProviderSpec { ip, port })
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
            append_digits(byte.into(), out);
        }
        if let Some(port) = self.port {
            out.push(b':');
            append_digits(port.into(), out);
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
    fn an_address_that_no_client_can_connect_to_is_refused() {
        for text in
            ["0.0.0.0:80", "[::]:80", "224.0.0.1", "255.255.255.255:80", "ff02::1", "[fe80::1]:80"]
        {
            assert!(text.parse::<ProviderSpec>().is_err(), "{text} was taken");
        }
        let link_local = "fe80::1".parse().unwrap();
        let source = ":80".parse::<ProviderSpec>().unwrap().resolve(link_local);
        assert!(source.check_reachable().is_err());
        assert!("169.254.1.2:80".parse::<ProviderSpec>().is_ok(), "IPv4 needs no scope");
    }
}
