//! `source-hash`: the same client to the same provider, as long as it can.
//!
//! Owns a Maglev table (Eisenbud and others, 2016) over all providers of the
//! service: each has an even part of it, and who comes or goes moves hardly
//! anybody else's. It depends on addresses alone, so all balancers agree. A
//! provider with more than 1.25 times its share of the requests in progress
//! (Mirrokni, Thorup and Zadimoghaddam 2018), or that cannot take one, is
//! passed over for the next in the table. Its share is that of its weight.
//! Without `client=` in the question it is `least-loaded`.

use super::least_loaded::LeastLoaded;
use super::scheduler::{Question, Record, Scheduler, State, View};
use crate::base::address::Provider;
use crate::base::random::Random;
use std::net::IpAddr;

/// Most load of a provider, as a multiple of its share.
const BOUND: f64 = 1.25;
/// Lengths of tables, prime: for some thousand providers, and for more.
const LENGTHS: [usize; 2] = [65_537, 1_048_573];
/// Entries that a provider should have at least; fewer make uneven parts.
const PART_MIN: usize = 8;
/// Entries to look at for one client.
const LOOKS: usize = 512;

#[derive(Clone, Copy)]
struct Member {
    provider: Provider,
    weight: u32,
    used: u32,
}

/// See the file's head.
#[derive(Default)]
pub struct SourceHash {
    /// By slot.
    members: Vec<Option<Member>>,
    count: usize,
    /// Of all that have an offer.
    weight: u64,
    used: u64,
    table: Vec<u32>,
    /// Who came or went since the table was made.
    news: usize,
    /// Choices since then.
    choices: usize,
    others: LeastLoaded,
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
    /// Makes the table anew if it must be. That is some work, so where many
    /// come and go it waits until a good part of them did, or until as many
    /// choices were made that it weighs little; who is not in the table is
    /// not chosen by it meanwhile, who is gone is passed over.
    fn refresh(&mut self) {
        self.choices += 1;
        if self.news > 0 && (self.news * 8 >= self.count || self.choices * 256 >= self.table.len()) {
            (self.news, self.choices) = (0, 0);
            self.fill();
        }
    }

    fn fill(&mut self) {
        // It never shrinks: another length would move every client.
        let length = if self.count * PART_MIN > LENGTHS[0] { LENGTHS[1] } else { LENGTHS[0] };
        let length = length.max(self.table.len());
        let mut order: Vec<_> = self.members.iter().enumerate().filter_map(|(slot, m)| Some(((*m)?, slot))).collect();
        order.sort_unstable_by_key(|(member, _)| member.provider);
        let mut walks: Vec<_> = order
            .iter()
            .map(|(Member { provider, .. }, slot)| {
                let port = u64::from(provider.port.unwrap_or(0));
                let at = hash(provider.ip, port) % length as u64;
                let step = hash(provider.ip, port | 1 << 32) % (length as u64 - 1) + 1;
                (at as usize, step as usize, *slot as u32)
            })
            .collect();
        self.table.clear();
        self.table.resize(length, u32::MAX);
        let mut left = if walks.is_empty() { 0 } else { length };
        // In turn each takes the next entry of its own walk that is empty.
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

    /// Whether this member may have one more request.
    fn within(&self, member: &Member) -> bool {
        let mean = (self.used + 1) as f64 * f64::from(member.weight) / self.weight as f64;
        f64::from(member.used) + 1.0 <= (BOUND * mean).ceil()
    }

    fn by_table(&mut self, view: &dyn View, client: IpAddr) -> Option<usize> {
        self.refresh();
        let start = (hash(client, 0) % self.table.len().max(1) as u64) as usize;
        let entries = self.table[start.min(self.table.len())..].iter().chain(&self.table[..start]);
        entries.take(LOOKS).map(|slot| *slot as usize).find(|slot| {
            let member = self.members.get(*slot).and_then(Option::as_ref);
            view.candidate(*slot).is_some() && member.is_some_and(|member| self.within(member))
        })
    }

    fn forget(&mut self, slot: usize) -> Option<Member> {
        let member = self.members.get_mut(slot)?.take()?;
        self.weight -= u64::from(member.weight);
        self.used -= u64::from(member.used);
        Some(member)
    }
}

impl Scheduler for SourceHash {
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        let found = question.client.and_then(|client| self.by_table(view, client));
        found.or_else(|| self.others.choose(view, question))
    }

    fn changed(&mut self, record: &Record) {
        self.others.changed(record);
        if self.members.len() <= record.slot {
            self.members.resize(record.slot + 1, None);
        }
        if self.forget(record.slot).is_none() {
            (self.count, self.news) = (self.count + 1, self.news + 1);
        }
        let open = record.state != State::Closed;
        let (weight, used) = if open { (record.weight, record.used()) } else { (0, 0) };
        self.members[record.slot] = Some(Member { provider: record.provider, weight, used });
        self.weight += u64::from(weight);
        self.used += u64::from(used);
    }

    fn gone(&mut self, slot: usize) {
        self.others.gone(slot);
        if self.forget(slot).is_some() {
            (self.count, self.news) = (self.count - 1, self.news + 1);
        }
    }
}
