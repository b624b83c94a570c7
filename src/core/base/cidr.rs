//! Networks, as allow lists write them.
//!
//! Owns the notation and what is inside.

use super::decimal::parse_digits;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Of an IPv4-mapped address (`::ffff:10.0.0.1`) so many bits say that it is one.
const MAPPED_BITS: u8 = 96;

/// The addresses that one host may have: itself with IPv4, a network of 64 bits with IPv6.
pub fn host_network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
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

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.ip.is_ipv4() { 32 } else { 128 };
        match self.bits {
            bits if bits == whole => write!(f, "{}", self.ip),
            bits => write!(f, "{}/{bits}", self.ip),
        }
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
            Some(bits) => parse_digits(bits).filter(|bits| *bits <= most).ok_or(WRONG)?,
            None => most,
        };
        Ok(match (ip.to_canonical(), bits) {
            // Mapped addresses are IPv4 ones, and so are their networks.
            (IpAddr::V4(mapped), MAPPED_BITS..) if ip.is_ipv6() => {
                Cidr { ip: mapped.into(), bits: bits - MAPPED_BITS }
            }
            _ => Cidr { ip, bits },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(inside("::ffff:10.0.0.0/104", "10.1.2.3") && inside("::ffff:1.2.3.4", "1.2.3.4"));
        assert!(!inside("::ffff:10.0.0.0/104", "11.0.0.1"));
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?} was taken");
        }
        assert!(
            Cidr::LOOPBACK.iter().all(|net| !net.beyond_loopback())
                && "0.0.0.0/0".parse::<Cidr>().unwrap().beyond_loopback()
        );
    }
}
