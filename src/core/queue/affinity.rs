//! Affinity: which provider a client address stays with.
//!
//! Owns a bounded table. It forgets addresses whose timeout has passed and, when full,
//! the one that came least recently. An address keeps one host for all services with
//! affinity, so that a session of several connections, as with FTP, stays there. Not
//! responsible for whether the provider can take the client now (`provider_pool`).

use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::source_key::SourceKey;
use crate::base::time::{Moment, Span};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Most addresses that are remembered.
pub const STICKY_CLIENTS_MAX: usize = 1 << 16;

/// Entries in `turns` that may be kept beyond two for each address.
const STALE_SPARE: usize = 64;

#[derive(Debug)]
struct StickyClient {
    /// Its position in the order of arrivals: a number that only grows.
    turn: u64,
    until: Moment,
    /// Requests in progress: an address that has some is not forgotten.
    active: u32,
    homes: Vec<(ServiceName, Provider)>,
}

/// The table. All operations but [`sweep`](Affinity::sweep) take constant time on
/// average.
#[derive(Debug, Default)]
pub struct Affinity {
    visitors: HashMap<SourceKey, StickyClient>,
    /// The order of arrivals, oldest first. An entry whose number is not its address's
    /// `turn` is stale: the address came again.
    turns: VecDeque<(u64, SourceKey)>,
    next: u64,
}

impl Affinity {
    /// How many addresses are remembered.
    pub fn len(&self) -> usize {
        self.visitors.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Returns where `client` belongs for `service`: a provider of it, or the address of
    /// a provider that it has for another service.
    pub fn assignment(
        &self,
        client: SourceKey,
        service: ServiceName,
        now: Moment,
    ) -> Option<Assignment> {
        let visitor = self
            .visitors
            .get(&client)
            .filter(|visitor| visitor.active > 0 || now < visitor.until)?;
        match visitor.homes.iter().find(|(known, _)| *known == service) {
            Some((_, provider)) => Some(Assignment::Provider(*provider)),
            None => visitor.homes.last().map(|(_, provider)| Assignment::Address(provider.ip)),
        }
    }

    /// Assigns `provider` to `client` for `timeout`; if `counted`, for as long as the
    /// request runs, until [`ended`](Affinity::ended), and then for `timeout`.
    pub fn assign(
        &mut self,
        client: SourceKey,
        service: ServiceName,
        provider: Provider,
        counted: bool,
        now: Moment,
        timeout: Span,
    ) {
        let until = now + timeout;
        if !self.visitors.contains_key(&client) {
            self.make_room();
            self.visitors.insert(
                client,
                StickyClient { turn: self.next, until, active: 0, homes: Vec::new() },
            );
        }
        let Some(visitor) = self.visitors.get_mut(&client) else { return };
        visitor.turn = self.next;
        self.turns.push_back((self.next, client));
        self.next += 1;
        visitor.until = until;
        visitor.active += u32::from(counted);
        // A client that moves to another host takes its other services along.
        visitor.homes.retain(|(known, home)| *known != service && home.ip == provider.ip);
        visitor.homes.push((service, provider));
        if self.turns.len() > 2 * self.visitors.len() + STALE_SPARE {
            self.forget_turns();
        }
    }

    fn forget_turns(&mut self) {
        let visitors = &self.visitors;
        self.turns.retain(|(turn, client)| {
            visitors.get(client).is_some_and(|visitor| visitor.turn == *turn)
        });
    }

    /// A counted request of `client` has ended.
    pub fn ended(&mut self, client: SourceKey, now: Moment, timeout: Span) {
        if let Some(visitor) = self.visitors.get_mut(&client) {
            visitor.active = visitor.active.saturating_sub(1);
            visitor.until = visitor.until.max(now + timeout);
        }
    }

    fn make_room(&mut self) {
        while self.visitors.len() >= STICKY_CLIENTS_MAX {
            let Some((turn, client)) = self.turns.pop_front() else { return };
            if self.visitors.get(&client).is_some_and(|visitor| visitor.turn == turn) {
                self.visitors.remove(&client);
            }
        }
    }

    /// Forgets addresses whose timeout has passed.
    pub fn sweep(&mut self, now: Moment) {
        // Timeouts differ between services, so addresses do not expire in order of
        // arrival.
        self.visitors.retain(|_, visitor| visitor.active > 0 || now < visitor.until);
        self.forget_turns();
    }
}

/// Where a client belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assignment {
    /// With this provider.
    Provider(Provider),
    /// With any provider at this address.
    Address(IpAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Span = Span::from_secs(3600);

    fn at(secs: u64) -> Moment {
        Moment::after_start(Span::from_secs(secs))
    }

    fn ip(n: u32) -> SourceKey {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes()).into()
    }

    #[test]
    fn an_ipv6_host_that_changes_its_address_keeps_its_provider() {
        let mut affinity = Affinity::default();
        let provider: Provider = "10.0.0.7:80".parse().unwrap();
        let [here, there, elsewhere] =
            ["2001:db8:0:1::5", "2001:db8:0:1:aaaa::9", "2001:db8:0:2::5"]
                .map(|text| text.parse::<IpAddr>().unwrap().into());
        let service = ServiceName::DEFAULT;
        let (now, timeout) = (Moment::ZERO, Span::from_secs(60));
        affinity.assign(here, service, provider, true, now, timeout);
        let home = Some(Assignment::Provider(provider));
        assert_eq!(affinity.assignment(there, service, now), home);
        assert_eq!(affinity.assignment(elsewhere, service, now), None);
        affinity.ended(there, now, timeout);
        assert_eq!(affinity.assignment(here, service, now + timeout), None);
    }

    #[test]
    fn an_address_keeps_its_provider_over_services_until_it_stays_away() {
        let (web, ftp) = ("web".parse().unwrap(), "ftp".parse().unwrap());
        let provider: Provider = "10.9.0.1:80".parse().unwrap();
        let mut affinity = Affinity::default();
        affinity.assign(ip(1), web, provider, false, at(0), Span::from_secs(10));
        assert_eq!(affinity.assignment(ip(1), web, at(9)), Some(Assignment::Provider(provider)));
        assert_eq!(affinity.assignment(ip(1), ftp, at(9)), Some(Assignment::Address(provider.ip)));
        assert_eq!(
            (affinity.assignment(ip(2), web, at(9)), affinity.assignment(ip(1), web, at(10))),
            (None, None)
        );
        affinity.sweep(at(10));
        assert!(affinity.is_empty());
    }

    #[test]
    fn a_long_connection_is_not_forgotten() {
        let (ftp, provider) = ("ftp".parse().unwrap(), "10.9.0.1".parse().unwrap());
        let mut affinity = Affinity::default();
        affinity.assign(ip(1), ftp, provider, true, at(0), Span::from_secs(10));
        affinity.sweep(at(1000));
        assert_eq!(affinity.assignment(ip(1), ftp, at(1000)), Some(Assignment::Provider(provider)));
        affinity.ended(ip(1), at(1000), Span::from_secs(10));
        assert_eq!(affinity.assignment(ip(1), ftp, at(1009)), Some(Assignment::Provider(provider)));
        assert_eq!(affinity.assignment(ip(1), ftp, at(1010)), None);
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_away_goes_first() {
        let (web, provider) = ("web".parse().unwrap(), "10.9.0.1:80".parse().unwrap());
        let mut affinity = Affinity::default();
        for n in 0..STICKY_CLIENTS_MAX as u32 {
            affinity.assign(ip(n), web, provider, false, at(0), HOUR);
        }
        affinity.assign(ip(0), web, provider, false, at(1), HOUR);
        affinity.assign(ip(1 << 20), web, provider, false, at(1), HOUR);
        assert_eq!(affinity.len(), STICKY_CLIENTS_MAX);
        assert!(
            affinity.assignment(ip(0), web, at(1)).is_some()
                && affinity.assignment(ip(1), web, at(1)).is_none()
        );
    }
}
