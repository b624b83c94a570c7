//! `source-hash`: a client address stays with its provider while that can take it.
//!
//! Owns a Maglev table (Eisenbud and others, 2016) over all providers of the service.
//! Each has an equal part of it, and when one joins or leaves, hardly any client of the
//! others moves. The table depends on addresses alone, so all balancers agree. A provider
//! is passed over for the next in the table if it cannot take a request or has more than
//! 1.25 times its share of the requests in progress (Mirrokni, Thorup and Zadimoghaddam
//! 2018). Shares are proportional to weight. Requests without `client=` use
//! `least-loaded`.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use super::least_loaded::LeastLoaded;
use crate::base::address::Provider;
use crate::base::random::Random;
use std::net::IpAddr;

/// Highest load of a provider, as a multiple of its share.
const LOAD_BOUND: f64 = 1.25;
/// Table lengths, prime: for up to some thousand providers, and for more.
const LENGTHS: [usize; 2] = [65_537, 1_048_573];
/// Fewest entries per provider; with fewer the parts would be uneven.
const ENTRIES_MIN: usize = 8;
/// Most entries that are examined for one client.
const PROBES_MAX: usize = 512;

#[derive(Clone, Copy)]
struct HashedProvider {
    provider: Provider,
    weight: u32,
    used: u32,
}

/// The scheduler. A choice costs a few looks into the table; making the table anew costs
/// its length.
#[derive(Default)]
pub struct SourceHash {
    /// By slot.
    providers: Vec<Option<HashedProvider>>,
    count: usize,
    /// Sum over all providers with an offer.
    weight: u64,
    used: u64,
    table: Vec<u32>,
    /// Providers that joined or left since the table was made.
    changes_pending: usize,
    /// Choices since then.
    choices_since_fill: usize,
    fallback: LeastLoaded,
}

fn hash(ip: IpAddr, number: u64) -> u64 {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let high = Random::new((bits >> 64) as u64 ^ number).bits();
    Random::new(high ^ bits as u64).bits()
}

impl SourceHash {
    /// Rebuilds the table if it must be. That is expensive, so it waits until an eighth
    /// of the providers has changed, or until enough choices have been made to pay for
    /// it. Meanwhile new providers are not chosen, and providers that left are passed
    /// over.
    fn refresh(&mut self) {
        self.choices_since_fill += 1;
        if self.changes_pending > 0
            && (self.changes_pending * 8 >= self.count
                || self.choices_since_fill * 256 >= self.table.len())
        {
            (self.changes_pending, self.choices_since_fill) = (0, 0);
            self.fill();
        }
    }

    fn fill(&mut self) {
        // The table never shrinks: another length would move every client.
        let length = if self.count * ENTRIES_MIN > LENGTHS[0] { LENGTHS[1] } else { LENGTHS[0] };
        let length = length.max(self.table.len());
        let mut order: Vec<_> =
            self.providers.iter().enumerate().filter_map(|(slot, m)| Some(((*m)?, slot))).collect();
        order.sort_unstable_by_key(|(provider, _)| provider.provider);
        let mut walks: Vec<_> = order
            .iter()
            .map(|(HashedProvider { provider, .. }, slot)| {
                let port = u64::from(provider.port.unwrap_or(0));
                let at = hash(provider.ip, port) % length as u64;
                let step = hash(provider.ip, port | 1 << 32) % (length as u64 - 1) + 1;
                (at as usize, step as usize, *slot as u32)
            })
            .collect();
        self.table.clear();
        self.table.resize(length, u32::MAX);
        let mut left = if walks.is_empty() { 0 } else { length };
        // In turn, each takes the next empty entry on its own walk.
        while left > 0 {
            for (at, step, slot) in walks.iter_mut().take(left) {
                while self.table[*at] != u32::MAX {
                    // Both are less than the length: no division is needed.
                    *at = if *at + *step < length { *at + *step } else { *at + *step - length };
                }
                self.table[*at] = *slot;
                left -= 1;
            }
        }
    }

    /// Whether this provider may have one more request.
    fn within(&self, provider: &HashedProvider) -> bool {
        let mean = (self.used + 1) as f64 * f64::from(provider.weight) / self.weight as f64;
        f64::from(provider.used) + 1.0 <= (LOAD_BOUND * mean).ceil()
    }

    fn by_table(&mut self, candidates: &dyn Candidates, client: IpAddr) -> Option<usize> {
        self.refresh();
        let start = (hash(client, 0) % self.table.len().max(1) as u64) as usize;
        let entries = self.table[start.min(self.table.len())..].iter().chain(&self.table[..start]);
        entries.take(PROBES_MAX).map(|slot| *slot as usize).find(|slot| {
            let provider = self.providers.get(*slot).and_then(Option::as_ref);
            candidates.candidate(*slot).is_some()
                && provider.is_some_and(|provider| self.within(provider))
        })
    }

    fn forget(&mut self, slot: usize) -> Option<HashedProvider> {
        let provider = self.providers.get_mut(slot)?.take()?;
        self.weight -= u64::from(provider.weight);
        self.used -= u64::from(provider.used);
        Some(provider)
    }
}

impl Scheduler for SourceHash {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        let found = placement.client.and_then(|client| self.by_table(candidates, client));
        found.or_else(|| self.fallback.choose(candidates, placement))
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        self.fallback.on_update(stats);
        if self.providers.len() <= stats.slot {
            self.providers.resize(stats.slot + 1, None);
        }
        if self.forget(stats.slot).is_none() {
            (self.count, self.changes_pending) = (self.count + 1, self.changes_pending + 1);
        }
        let open = stats.availability != Availability::Unavailable;
        let (weight, used) = if open { (stats.weight, stats.used()) } else { (0, 0) };
        self.providers[stats.slot] =
            Some(HashedProvider { provider: stats.provider, weight, used });
        self.weight += u64::from(weight);
        self.used += u64::from(used);
    }

    fn on_remove(&mut self, slot: usize) {
        self.fallback.on_remove(slot);
        if self.forget(slot).is_some() {
            (self.count, self.changes_pending) = (self.count - 1, self.changes_pending + 1);
        }
    }
}
