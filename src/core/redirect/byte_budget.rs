//! How much more each source may be sent than it sent itself.
//!
//! The source of a datagram may be forged (BCP 38), so that answers hit a host that asked
//! nothing. An answer that is no longer than its question gains an attacker nothing; what
//! longer ones have more is limited for each source. Owns the balances, of which there are
//! at most [`SOURCES_MAX`]: while they are all in use, others have nothing to spend.

use crate::base::source_key::SourceKey;
use crate::base::time::{Moment, Span};
use std::collections::HashMap;

/// Bytes that a source may be sent in a second beyond what it sent, and at once after a
/// silence: about 1,000 answers with one IPv4 address, or 125 with eight.
pub const BYTES_PER_SECOND: u64 = 16_000;
/// Sources with a balance.
pub const SOURCES_MAX: usize = 16_384;

/// How long a source pays for at the most: what it may be sent at once.
const DEBT_MAX: Span = Span::from_secs(1);

/// The balances.
#[derive(Debug, Default)]
pub struct ByteBudget {
    /// Until when a source pays for what it was sent.
    paid_at: HashMap<SourceKey, Moment>,
    swept: Option<Moment>,
}

impl ByteBudget {
    /// Whether this source may be sent so many bytes beyond what it sent; they are spent.
    pub fn spend(&mut self, source: SourceKey, bytes: usize, now: Moment) -> bool {
        if bytes == 0 {
            return true;
        }
        let debt = self.paid_at.get(&source).copied();
        if debt.is_none() && !self.has_room(now) {
            return false;
        }
        let cost = Span::from_nanos(DEBT_MAX.as_nanos() / BYTES_PER_SECOND * bytes as u64);
        let paid_at = debt.unwrap_or(now).max(now) + cost;
        let affordable = paid_at.since(now) <= DEBT_MAX;
        if affordable {
            self.paid_at.insert(source, paid_at);
        }
        affordable
    }

    /// Whether this source can be sent hardly more than it sends.
    pub fn is_spent(&self, source: SourceKey, now: Moment) -> bool {
        let debt = self.paid_at.get(&source).map(|paid_at| paid_at.since(now));
        debt.is_some_and(|debt| debt + DEBT_MAX.part(100) > DEBT_MAX)
    }

    /// Whether there is room for one more source. Those that have paid are forgotten, at
    /// most once a second.
    fn has_room(&mut self, now: Moment) -> bool {
        let may_sweep = self.swept.is_none_or(|swept| now.since(swept) >= DEBT_MAX);
        if self.paid_at.len() >= SOURCES_MAX && may_sweep {
            self.swept = Some(now);
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        self.paid_at.len() < SOURCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Span::from_millis(millis)
    }

    fn source(number: u32) -> SourceKey {
        IpAddr::from(Ipv4Addr::from(number)).into()
    }

    #[test]
    fn a_source_is_sent_so_much_at_once_and_so_much_in_a_second() {
        let mut budget = ByteBudget::default();
        let sent = |budget: &mut ByteBudget, from: u64, to: u64| {
            (from..to).filter(|millis| budget.spend(source(1), 160, at(*millis))).count()
        };
        assert_eq!(sent(&mut budget, 5000, 5001), 1);
        assert!((99..=199).contains(&sent(&mut budget, 5001, 6000)));
        let lasting = sent(&mut budget, 6000, 16_000);
        assert!((990..=1010).contains(&lasting), "{lasting}");
        assert!(budget.spend(source(2), 16_000, at(16_000)), "others are not concerned");
        assert!(!budget.spend(source(2), 1, at(16_000)) && budget.spend(source(2), 0, at(16_000)));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_has_paid() {
        let mut budget = ByteBudget::default();
        for number in 0..SOURCES_MAX as u32 {
            assert!(budget.spend(source(number), 8000, at(0)));
        }
        assert!(!budget.spend(source(u32::MAX), 1, at(0)), "all are in use");
        assert!(budget.spend(source(0), 8000, at(0)), "those that are known go on");
        assert!(!budget.spend(source(u32::MAX), 1, at(900)), "looked at a moment ago");
        assert!(budget.spend(source(u32::MAX), 1, at(1000)));
        assert_eq!(budget.paid_at.len(), 1);
    }
}
