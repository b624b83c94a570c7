//! One service's providers: what each offered, what of it is in use.
//!
//! Owns the law of tickets: register, spend, refill, discard, expire. A ticket
//! is a place at the provider where a request starts at once; a counted grant
//! occupies one until it ends, another spends one until the next offer.
//! Knows no connection and no waiting line; a scheduler chooses, and is told
//! of every change. Nothing here looks at all providers for one request.

mod pool_member;

pub use pool_member::{PoolMember, PROBATION_MAX};

use crate::base::address::Provider;
use crate::base::ordered_index::{Numbers, OrderedIndex};
use crate::base::slab::{Key, Slab};
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::message::{Feedback, Mode};
use crate::scheduler::scheduler::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use std::collections::HashMap;
use std::net::IpAddr;

/// The first hold after a failure; doubled with each failure in a row.
pub const HOLD_FIRST: Span = Span::from_millis(500);
/// The longest hold.
pub const HOLD_MAX: Span = Span::from_secs(30);

/// A grant that is counted until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The provider's entry.
    pub member: Key,
    granted_at: Moment,
    on_ticket: bool,
    failure_epoch: u32,
}

/// All providers of one service.
pub struct ProviderPool {
    members: Slab<PoolMember>,
    by_provider: HashMap<Provider, Key>,
    scheduler: Box<dyn Scheduler>,
    /// How many entries are in each state, as of the last look at the clock.
    availability_counts: [usize; Availability::COUNT],
    /// Entries by the moment at which their state changes by time alone.
    wakeups: OrderedIndex,
    free_seq: u64,
    grant_seq: u64,
    /// Requests that had to wait or got an error, of all times.
    pub waited: u64,
}

struct PoolView<'a> {
    members: &'a Slab<PoolMember>,
    availabilities: &'static [Availability],
    avoid: &'a [Provider],
}

impl Candidates for PoolView<'_> {
    fn slots(&self) -> usize {
        self.members.slots()
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn stats(&self, slot: usize) -> Option<&ProviderStats> {
        self.members.get_at(slot).map(|entry| &entry.stats)
    }

    fn candidate(&self, slot: usize) -> Option<&ProviderStats> {
        let suits = |record: &&ProviderStats| {
            self.availabilities.contains(&record.availability) && !self.avoid.contains(&record.provider)
        };
        self.stats(slot).filter(suits)
    }
}

/// A moment as a key.
fn at(moment: Moment) -> Numbers {
    [moment.since(Moment::ZERO).as_nanos(), 0, 0, 0]
}

impl ProviderPool {
    /// An empty book.
    pub fn new(scheduler: Box<dyn Scheduler>) -> ProviderPool {
        ProviderPool {
            members: Slab::default(),
            by_provider: HashMap::new(),
            scheduler,
            availability_counts: [0; Availability::COUNT],
            wakeups: OrderedIndex::new(),
            free_seq: 0,
            grant_seq: 0,
            waited: 0,
        }
    }

    /// Another scheduler from now on.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        let mut known: Vec<&ProviderStats> = self.members.iter().map(|(_, entry)| &entry.stats).collect();
        known.sort_unstable_by_key(|record| record.last_grant_seq);
        known.into_iter().for_each(|record| self.scheduler.on_update(record));
    }

    /// The state of this entry may have changed: counts it, sets its alarm and
    /// tells the scheduler.
    fn refresh(&mut self, key: Key, now: Moment) {
        let Some(entry) = self.members.get_mut(key) else { return };
        let state = entry.availability(now);
        self.availability_counts[entry.stats.availability as usize] -= 1;
        self.availability_counts[state as usize] += 1;
        entry.stats.availability = state;
        let alarm = entry.next_transition(now);
        if alarm != entry.wakeup {
            self.wakeups.remove(at(entry.wakeup), key.index());
            if alarm != Moment::NEVER {
                self.wakeups.insert(at(alarm), key.index());
            }
            entry.wakeup = alarm;
        }
        self.scheduler.on_update(&entry.stats);
    }

    /// Leases and holds that have ended by now are over.
    fn advance(&mut self, now: Moment) {
        while let Some((_, slot)) = self.wakeups.first().filter(|(alarm, _)| *alarm <= at(now)) {
            let Some(key) = self.members.key_at(slot) else { return };
            self.refresh(key, now);
        }
    }

    /// How many providers it knows.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The providers it knows.
    pub fn members(&self) -> impl Iterator<Item = &PoolMember> {
        self.members.iter().map(|(_, entry)| entry)
    }

    /// The provider of an entry.
    pub fn provider(&self, entry: Key) -> Option<Provider> {
        self.members.get(entry).map(|entry| entry.stats.provider)
    }

    /// Whether this provider is known.
    pub fn contains(&self, provider: Provider) -> bool {
        self.by_provider.contains_key(&provider)
    }

    /// Enters an offer, in place of the provider's earlier one.
    pub fn offer(&mut self, offer: Offer, now: Moment) -> Feedback {
        let key = match self.by_provider.get(&offer.provider) {
            Some(key) => *key,
            None => self.add_member(offer.provider, now),
        };
        let waited = self.waited;
        let Some(entry) = self.members.get_mut(key) else { return Feedback::default() };
        entry.count_active(now);
        if entry.granted_counted + entry.granted_uncounted > 0 {
            entry.mode = if entry.granted_uncounted > entry.granted_counted { Mode::Paper } else { Mode::Slots };
        }
        let standing = Feedback {
            active: match now.since(entry.offered_at).as_secs_f64() {
                0.0 => f64::from(entry.stats.active),
                seconds => entry.active_seconds / seconds,
            },
            granted: entry.granted_counted + entry.granted_uncounted,
            waiting: waited - entry.waited_before,
            mode: entry.mode,
        };
        (entry.offered_at, entry.active_seconds, entry.waited_before) = (now, 0.0, waited);
        (entry.granted_counted, entry.granted_uncounted) = (0, 0);

        let had_tickets = now < entry.lease_end && entry.stats.free() > 0;
        if now >= entry.hold_end {
            // Uncounted requests never end; those nobody called a failure went well.
            for _ in 0..entry.stats.spent.min(PROBATION_MAX) {
                entry.record_success();
            }
        }
        entry.stats.tickets = offer.tickets;
        entry.stats.capacity = offer.capacity;
        entry.stats.spent = 0;
        entry.lease_end = if offer.capacity == 0 { now } else { now + offer.lease };
        if !had_tickets {
            // A repeated offer keeps its place in the order, a new one comes last.
            self.free_seq += 1;
            entry.stats.free_since_seq = self.free_seq;
        }
        self.refresh(key, now);
        standing
    }

    fn add_member(&mut self, provider: Provider, now: Moment) -> Key {
        self.grant_seq += 1;
        let key = self.members.insert(PoolMember::new(provider, self.grant_seq, self.waited, now));
        if let Some(entry) = self.members.get_mut(key) {
            entry.stats.slot = key.index();
        }
        self.availability_counts[Availability::Unavailable as usize] += 1;
        self.by_provider.insert(provider, key);
        key
    }

    /// Whether any request at all would find a candidate.
    pub fn any_available(&mut self, now: Moment) -> bool {
        self.advance(now);
        self.availability_counts[..Availability::GRANTABLE].iter().any(|count| *count > 0)
    }

    /// Whether such a request would find a candidate.
    pub fn has_candidate(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> bool {
        self.advance(now);
        self.placement(counted, None, avoid).is_some()
    }

    /// What to ask the scheduler: for candidates with free tickets, or (for a
    /// counted request) within their capacity; nothing if there are none.
    fn placement(&self, counted: bool, client: Option<IpAddr>, avoid: &[Provider]) -> Option<Placement> {
        [true, false].map(|on_tickets| Placement { free_tickets_only: on_tickets, counted, client }).into_iter().find(
            |question| {
                let states = question.availabilities();
                let all: usize = states.iter().map(|state| self.availability_counts[*state as usize]).sum();
                let view = PoolView { members: &self.members, availabilities: states, avoid: &[] };
                let avoided = |provider: &&Provider| {
                    self.by_provider.get(*provider).is_some_and(|key| view.candidate(key.index()).is_some())
                };
                // Mostly there are more than could be avoided, and nobody has to be counted.
                all > avoid.len() || all > 0 && all > distinct(avoid).filter(avoided).count()
            },
        )
    }

    /// A place for one request: on a free ticket, else (only for a counted
    /// one) within somebody's capacity; else none.
    pub fn grant(
        &mut self,
        counted: bool,
        client: Option<IpAddr>,
        avoid: &[Provider],
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        self.advance(now);
        let question = self.placement(counted, client, avoid)?;
        let view = PoolView { members: &self.members, availabilities: question.availabilities(), avoid };
        let slot = self.scheduler.choose(&view, question).filter(|slot| view.candidate(*slot).is_some())?;
        self.allocate(self.members.key_at(slot)?, question.free_tickets_only, counted, now)
    }

    /// A place for one request at this provider, on a free ticket or (for a
    /// counted one) within its capacity.
    pub fn grant_at(&mut self, provider: Provider, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.advance(now);
        let key = *self.by_provider.get(&provider)?;
        let on_ticket = self.members.get(key)?.can_take(counted, now)?;
        self.allocate(key, on_ticket, counted, now)
    }

    /// Whether this provider could take such a request now.
    pub fn can_take(&self, provider: Provider, counted: bool, now: Moment) -> bool {
        let entry = self.by_provider.get(&provider).and_then(|key| self.members.get(*key));
        entry.is_some_and(|entry| entry.can_take(counted, now).is_some())
    }

    /// The candidates for a request, longest ago granted first.
    pub fn candidates(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> Vec<&ProviderStats> {
        self.advance(now);
        let Some(question) = self.placement(counted, None, avoid) else { return Vec::new() };
        let states = question.availabilities();
        let records = self.members.iter().map(|(_, entry)| &entry.stats);
        let mut found: Vec<_> = records
            .filter(|record| states.contains(&record.availability) && !avoid.contains(&record.provider))
            .collect();
        found.sort_unstable_by_key(|record| record.last_grant_seq);
        found
    }

    fn allocate(&mut self, key: Key, on_ticket: bool, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.grant_seq += 1;
        let entry = self.members.get_mut(key)?;
        entry.granted += 1;
        entry.stats.last_grant_seq = self.grant_seq;
        if counted {
            entry.count_active(now);
            entry.stats.active += 1;
            entry.probation_active += 1;
            entry.granted_counted += 1;
        } else {
            entry.stats.spent += 1;
            entry.granted_uncounted += 1;
        }
        debug_assert!(!counted || entry.stats.active <= entry.stats.capacity);
        let provider = entry.stats.provider;
        let grant = Grant { member: key, granted_at: now, on_ticket, failure_epoch: entry.failure_epoch };
        self.refresh(key, now);
        Some((provider, grant))
    }

    /// A ticket that was spent for nobody is free again, unless the provider has
    /// offered anew or died since.
    pub fn refund(&mut self, grant: Grant, now: Moment) {
        let Some(entry) = self.members.get_mut(grant.member) else { return };
        if grant.failure_epoch == entry.failure_epoch && grant.granted_at >= entry.offered_at && entry.stats.spent > 0 {
            if entry.stats.free() == 0 {
                self.free_seq += 1;
                entry.stats.free_since_seq = self.free_seq;
            }
            entry.stats.spent -= 1;
            self.refresh(grant.member, now);
        }
    }

    /// A counted request ended; `well` if its asker said so itself, and that the
    /// provider had to do with it.
    pub fn release(&mut self, grant: Grant, well: bool, now: Moment) {
        let beginnings = self.free_seq + 1;
        let Some(entry) = self.members.get_mut(grant.member) else { return };
        entry.count_active(now);
        let had_tickets = entry.stats.free() > 0;
        debug_assert!(entry.stats.active > 0);
        entry.stats.active = entry.stats.active.saturating_sub(1);
        if !had_tickets && entry.stats.free() > 0 {
            entry.stats.free_since_seq = beginnings;
            self.free_seq = beginnings;
        }
        let fresh = grant.failure_epoch == entry.failure_epoch;
        if fresh {
            entry.probation_active = entry.probation_active.saturating_sub(1);
        }
        if well && fresh {
            entry.record_success();
        }
        // What was in progress at a death took as long as its client's patience,
        // which says nothing about how quick the provider is when it is back.
        if well && fresh && grant.on_ticket {
            let record = &mut entry.stats;
            record.samples += 1;
            let part = (1.0 / record.samples as f64).max(0.02);
            let (mean, held) = (record.service_time.as_secs_f64(), now.since(grant.granted_at).as_secs_f64());
            record.service_time = Span::from_secs_f64(mean + part * (held - mean));
        }
        self.refresh(grant.member, now);
    }

    /// A provider was found dead: its tickets go, and it is held back for a
    /// while. With the grant of the request that failed: one from before the
    /// death that is already known says nothing new. Answers how many free
    /// tickets went.
    pub fn fail(&mut self, provider: Provider, grant: Option<Grant>, now: Moment) -> u64 {
        let Some(key) = self.by_provider.get(&provider).copied() else { return 0 };
        let Some(entry) = self.members.get_mut(key) else { return 0 };
        entry.failures += 1;
        if grant.is_some_and(|grant| grant.failure_epoch != entry.failure_epoch) {
            return 0;
        }
        entry.failure_epoch = entry.failure_epoch.wrapping_add(1);
        entry.probation = 1;
        entry.probation_active = 0;
        if now >= entry.hold_end {
            // Many clients may notice one death; it counts once.
            entry.consecutive_failures = entry.consecutive_failures.saturating_add(1);
            let hold = HOLD_FIRST.times(1 << (entry.consecutive_failures - 1).min(16)).min(HOLD_MAX);
            entry.hold_end = now + hold;
        }
        let free = entry.close(now);
        self.refresh(key, now);
        free
    }

    /// A provider leaves; its running requests stay. Answers how many free
    /// tickets went.
    pub fn withdraw(&mut self, provider: Provider, now: Moment) -> u64 {
        let Some(key) = self.by_provider.get(&provider).copied() else { return 0 };
        let free = self.members.get_mut(key).map_or(0, |entry| entry.close(now));
        self.refresh(key, now);
        free
    }

    /// What is known of a provider.
    pub fn member_mut(&mut self, provider: Provider) -> Option<&mut PoolMember> {
        self.by_provider.get(&provider).and_then(|key| self.members.get_mut(*key))
    }

    /// All entries, to mark what the log knows.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut PoolMember> {
        self.members.iter_mut()
    }

    /// Forgets providers whose lease ended long enough ago.
    pub fn sweep(&mut self, now: Moment) {
        self.advance(now);
        let forgotten = |(key, entry): (Key, &PoolMember)| entry.is_expired(now).then_some(key);
        let keys: Vec<Key> = self.members.iter().filter_map(forgotten).collect();
        for key in keys {
            self.scheduler.on_remove(key.index());
            if let Some(entry) = self.members.remove(key) {
                self.availability_counts[entry.stats.availability as usize] -= 1;
                self.wakeups.remove(at(entry.wakeup), key.index());
                self.by_provider.remove(&entry.stats.provider);
            }
        }
    }
}

fn distinct(providers: &[Provider]) -> impl Iterator<Item = &Provider> {
    providers
        .iter()
        .enumerate()
        .filter(|(at, provider)| !providers[..*at].contains(provider))
        .map(|(_, provider)| provider)
}

#[cfg(test)]
mod scheduler_tests;
#[cfg(test)]
mod tests;
