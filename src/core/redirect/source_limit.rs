//! How many clients each source has at once. Owns the counts, of which there
//! are never more than clients.

use std::collections::HashMap;
use std::net::IpAddr;

/// Where clients come from: an IPv4 address, or the network of 64 bits that one
/// host may have all of with IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceKey(u64);

impl From<IpAddr> for SourceKey {
    fn from(ip: IpAddr) -> SourceKey {
        match ip.to_canonical() {
            // No client comes from the network ::ffff:0:0:0/64, which these would be.
            IpAddr::V4(ip) => SourceKey(0xffff << 32 | u64::from(u32::from(ip))),
            IpAddr::V6(ip) => SourceKey((u128::from(ip) >> 64) as u64),
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub struct SourceLimiter(HashMap<SourceKey, usize>);

impl SourceLimiter {
    /// One more client of this source, unless it has `most` already.
    pub fn try_acquire(&mut self, source: SourceKey, most: usize) -> bool {
        let count = self.0.get(&source).copied().unwrap_or(0);
        if count >= most {
            return false;
        }
        self.0.insert(source, count + 1);
        true
    }

    /// One client less.
    pub fn release(&mut self, source: SourceKey) {
        match self.0.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(&source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str) -> SourceKey {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_source_has_its_own_count() {
        let mut sources = SourceLimiter::default();
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        assert!(
            sources.try_acquire(one, 2)
                && sources.try_acquire(one, 2)
                && !sources.try_acquire(one, 2)
        );
        assert!(sources.try_acquire(other, 2) && sources.try_acquire(one, 3));
        (0..3).for_each(|_| sources.release(one));
        assert!(sources.try_acquire(one, 1) && !sources.try_acquire(one, 1));
        sources.release(one);
        sources.release(other);
        assert!(sources.0.is_empty(), "nothing is left of those that are gone");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        assert_eq!(source("2001:db8:0:1::7"), source("2001:db8:0:1:ffff::8"));
        assert_ne!(source("2001:db8:0:1::7"), source("2001:db8:0:2::7"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("::1"), source("0.0.0.1"));
    }
}
