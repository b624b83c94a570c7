//! Where clients come from, in eight bytes.
//!
//! Owns how a source is written as a number. What counts as one is what one host can choose
//! its address from: see [`host_network`].

use super::cidr::host_network;
use std::net::IpAddr;
use std::num::NonZeroU64;

/// An IPv4 address, or the network of 64 bits that one host may have all of with IPv6.
/// There may be one for each client, so an `Option` of it takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceKey(NonZeroU64);

/// The IPv4 address 0.0.0.0. No client comes from the networks of IPv6 that IPv4 addresses
/// have the numbers of: `0:ffff::/32`.
const IPV4: u64 = 0xffff << 32;

impl From<IpAddr> for SourceKey {
    fn from(ip: IpAddr) -> SourceKey {
        let number = match host_network(ip) {
            IpAddr::V4(ip) => IPV4 | u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        // The complement is 0 for a network of multicast only, where no client is.
        SourceKey(NonZeroU64::new(!number).unwrap_or(NonZeroU64::MIN))
    }
}

impl SourceKey {
    /// Whether it is this host.
    pub fn is_loopback(self) -> bool {
        let number = !self.0.get();
        number >> 24 == (IPV4 >> 24 | 127) || number == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str) -> SourceKey {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        assert_eq!(source("2001:db8:0:1::7"), source("2001:db8:0:1:ffff::8"));
        assert_ne!(source("2001:db8:0:1::7"), source("2001:db8:0:2::7"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
        assert_ne!(source("::1"), source("0.0.0.1"));
        assert_eq!(size_of::<Option<SourceKey>>(), 8);
    }

    #[test]
    fn this_host_is_known_by_each_of_its_loopback_addresses() {
        for ip in ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"] {
            assert!(source(ip).is_loopback(), "{ip}");
        }
        for ip in ["126.0.0.1", "128.0.0.1", "2001:db8::1", "ffff:ffff:ffff:ffff::1", "0.0.0.0"] {
            assert!(!source(ip).is_loopback(), "{ip}");
        }
    }
}
