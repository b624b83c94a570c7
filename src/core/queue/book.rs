//! One service's providers: what each offered, what of it is in use.
//!
//! Owns the law of tickets: register, spend, refill, discard, expire. A ticket
//! is a place at the provider where a request starts at once; a counted grant
//! occupies one until it ends, another spends one until the next offer.
//! Knows no connection and no waiting line; a scheduler chooses, and is told
//! of every change. Nothing here looks at all providers for one request.

mod entry;

pub use entry::{Entry, PROBATION_MAX};

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
    pub entry: Key,
    at: Moment,
    on_ticket: bool,
    deaths: u32,
}

/// All providers of one service.
pub struct Book {
    entries: Slab<Entry>,
    by_provider: HashMap<Provider, Key>,
    scheduler: Box<dyn Scheduler>,
    /// How many entries are in each state, as of the last look at the clock.
    states: [usize; Availability::COUNT],
    /// Entries by the moment at which their state changes by time alone.
    alarms: OrderedIndex,
    beginnings: u64,
    turns: u64,
    /// Requests that had to wait or got an error, of all times.
    pub waited: u64,
}

struct PoolView<'a> {
    entries: &'a Slab<Entry>,
    states: &'static [Availability],
    avoid: &'a [Provider],
}

impl Candidates for PoolView<'_> {
    fn slots(&self) -> usize {
        self.entries.slots()
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn stats(&self, slot: usize) -> Option<&ProviderStats> {
        self.entries.get_at(slot).map(|entry| &entry.record)
    }

    fn candidate(&self, slot: usize) -> Option<&ProviderStats> {
        let suits = |record: &&ProviderStats| {
            self.states.contains(&record.availability) && !self.avoid.contains(&record.provider)
        };
        self.stats(slot).filter(suits)
    }
}

/// A moment as a key.
fn at(moment: Moment) -> Numbers {
    [moment.since(Moment::ZERO).as_nanos(), 0, 0, 0]
}

impl Book {
    /// An empty book.
    pub fn new(scheduler: Box<dyn Scheduler>) -> Book {
        Book {
            entries: Slab::default(),
            by_provider: HashMap::new(),
            scheduler,
            states: [0; Availability::COUNT],
            alarms: OrderedIndex::new(),
            beginnings: 0,
            turns: 0,
            waited: 0,
        }
    }

    /// Another scheduler from now on.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        let mut known: Vec<&ProviderStats> = self.entries.iter().map(|(_, entry)| &entry.record).collect();
        known.sort_unstable_by_key(|record| record.last_grant_seq);
        known.into_iter().for_each(|record| self.scheduler.on_update(record));
    }

    /// The state of this entry may have changed: counts it, sets its alarm and
    /// tells the scheduler.
    fn note(&mut self, key: Key, now: Moment) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let state = entry.state(now);
        self.states[entry.record.availability as usize] -= 1;
        self.states[state as usize] += 1;
        entry.record.availability = state;
        let alarm = entry.changes(now);
        if alarm != entry.alarm {
            self.alarms.remove(at(entry.alarm), key.index());
            if alarm != Moment::NEVER {
                self.alarms.insert(at(alarm), key.index());
            }
            entry.alarm = alarm;
        }
        self.scheduler.on_update(&entry.record);
    }

    /// Leases and holds that have ended by now are over.
    fn look_at_the_clock(&mut self, now: Moment) {
        while let Some((_, slot)) = self.alarms.first().filter(|(alarm, _)| *alarm <= at(now)) {
            let Some(key) = self.entries.key_at(slot) else { return };
            self.note(key, now);
        }
    }

    /// How many providers it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The providers it knows.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// The provider of an entry.
    pub fn provider(&self, entry: Key) -> Option<Provider> {
        self.entries.get(entry).map(|entry| entry.record.provider)
    }

    /// Whether this provider is known.
    pub fn knows(&self, provider: Provider) -> bool {
        self.by_provider.contains_key(&provider)
    }

    /// Enters an offer, in place of the provider's earlier one.
    pub fn offer(&mut self, offer: Offer, now: Moment) -> Feedback {
        let key = match self.by_provider.get(&offer.provider) {
            Some(key) => *key,
            None => self.enter(offer.provider, now),
        };
        let waited = self.waited;
        let Some(entry) = self.entries.get_mut(key) else { return Feedback::default() };
        entry.count_active(now);
        if entry.granted_counted + entry.granted_plain > 0 {
            entry.mode = if entry.granted_plain > entry.granted_counted { Mode::Paper } else { Mode::Slots };
        }
        let standing = Feedback {
            active: match now.since(entry.offered_at).as_secs_f64() {
                0.0 => f64::from(entry.record.active),
                seconds => entry.active_seconds / seconds,
            },
            granted: entry.granted_counted + entry.granted_plain,
            waiting: waited - entry.waited_before,
            mode: entry.mode,
        };
        (entry.offered_at, entry.active_seconds, entry.waited_before) = (now, 0.0, waited);
        (entry.granted_counted, entry.granted_plain) = (0, 0);

        let had_tickets = now < entry.lease_end && entry.record.free() > 0;
        if now >= entry.hold_end {
            // Uncounted requests never end; those nobody called a failure went well.
            for _ in 0..entry.record.spent.min(PROBATION_MAX) {
                entry.vouch();
            }
        }
        entry.record.tickets = offer.tickets;
        entry.record.capacity = offer.capacity;
        entry.record.spent = 0;
        entry.lease_end = if offer.capacity == 0 { now } else { now + offer.lease };
        if !had_tickets {
            // A repeated offer keeps its place in the order, a new one comes last.
            self.beginnings += 1;
            entry.record.free_since_seq = self.beginnings;
        }
        self.note(key, now);
        standing
    }

    fn enter(&mut self, provider: Provider, now: Moment) -> Key {
        self.turns += 1;
        let key = self.entries.insert(Entry::new(provider, self.turns, self.waited, now));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.record.slot = key.index();
        }
        self.states[Availability::Unavailable as usize] += 1;
        self.by_provider.insert(provider, key);
        key
    }

    /// Whether any request at all would find a candidate.
    pub fn could_grant(&mut self, now: Moment) -> bool {
        self.look_at_the_clock(now);
        self.states[..Availability::GRANTABLE].iter().any(|count| *count > 0)
    }

    /// Whether such a request would find a candidate.
    pub fn suits(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> bool {
        self.look_at_the_clock(now);
        self.question(counted, None, avoid).is_some()
    }

    /// What to ask the scheduler: for candidates with free tickets, or (for a
    /// counted request) within their capacity; nothing if there are none.
    fn question(&self, counted: bool, client: Option<IpAddr>, avoid: &[Provider]) -> Option<Placement> {
        [true, false].map(|on_tickets| Placement { free_tickets_only: on_tickets, counted, client }).into_iter().find(
            |question| {
                let states = question.availabilities();
                let all: usize = states.iter().map(|state| self.states[*state as usize]).sum();
                let view = PoolView { entries: &self.entries, states, avoid: &[] };
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
        self.look_at_the_clock(now);
        let question = self.question(counted, client, avoid)?;
        let view = PoolView { entries: &self.entries, states: question.availabilities(), avoid };
        let slot = self.scheduler.choose(&view, question).filter(|slot| view.candidate(*slot).is_some())?;
        self.occupy(self.entries.key_at(slot)?, question.free_tickets_only, counted, now)
    }

    /// A place for one request at this provider, on a free ticket or (for a
    /// counted one) within its capacity.
    pub fn grant_at(&mut self, provider: Provider, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.look_at_the_clock(now);
        let key = *self.by_provider.get(&provider)?;
        let on_ticket = self.entries.get(key)?.takes(counted, now)?;
        self.occupy(key, on_ticket, counted, now)
    }

    /// Whether this provider could take such a request now.
    pub fn takes(&self, provider: Provider, counted: bool, now: Moment) -> bool {
        let entry = self.by_provider.get(&provider).and_then(|key| self.entries.get(*key));
        entry.is_some_and(|entry| entry.takes(counted, now).is_some())
    }

    /// The candidates for a request, longest ago granted first.
    pub fn candidates(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> Vec<&ProviderStats> {
        self.look_at_the_clock(now);
        let Some(question) = self.question(counted, None, avoid) else { return Vec::new() };
        let states = question.availabilities();
        let records = self.entries.iter().map(|(_, entry)| &entry.record);
        let mut found: Vec<_> = records
            .filter(|record| states.contains(&record.availability) && !avoid.contains(&record.provider))
            .collect();
        found.sort_unstable_by_key(|record| record.last_grant_seq);
        found
    }

    fn occupy(&mut self, key: Key, on_ticket: bool, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.turns += 1;
        let entry = self.entries.get_mut(key)?;
        entry.granted += 1;
        entry.record.last_grant_seq = self.turns;
        if counted {
            entry.count_active(now);
            entry.record.active += 1;
            entry.probing += 1;
            entry.granted_counted += 1;
        } else {
            entry.record.spent += 1;
            entry.granted_plain += 1;
        }
        debug_assert!(!counted || entry.record.active <= entry.record.capacity);
        let provider = entry.record.provider;
        let grant = Grant { entry: key, at: now, on_ticket, deaths: entry.deaths };
        self.note(key, now);
        Some((provider, grant))
    }

    /// A ticket that was spent for nobody is free again, unless the provider has
    /// offered anew or died since.
    pub fn unspend(&mut self, grant: Grant, now: Moment) {
        let Some(entry) = self.entries.get_mut(grant.entry) else { return };
        if grant.deaths == entry.deaths && grant.at >= entry.offered_at && entry.record.spent > 0 {
            if entry.record.free() == 0 {
                self.beginnings += 1;
                entry.record.free_since_seq = self.beginnings;
            }
            entry.record.spent -= 1;
            self.note(grant.entry, now);
        }
    }

    /// A counted request ended; `well` if its asker said so itself, and that the
    /// provider had to do with it.
    pub fn end(&mut self, grant: Grant, well: bool, now: Moment) {
        let beginnings = self.beginnings + 1;
        let Some(entry) = self.entries.get_mut(grant.entry) else { return };
        entry.count_active(now);
        let had_tickets = entry.record.free() > 0;
        debug_assert!(entry.record.active > 0);
        entry.record.active = entry.record.active.saturating_sub(1);
        if !had_tickets && entry.record.free() > 0 {
            entry.record.free_since_seq = beginnings;
            self.beginnings = beginnings;
        }
        let fresh = grant.deaths == entry.deaths;
        if fresh {
            entry.probing = entry.probing.saturating_sub(1);
        }
        if well && fresh {
            entry.vouch();
        }
        // What was in progress at a death took as long as its client's patience,
        // which says nothing about how quick the provider is when it is back.
        if well && fresh && grant.on_ticket {
            let record = &mut entry.record;
            record.samples += 1;
            let part = (1.0 / record.samples as f64).max(0.02);
            let (mean, held) = (record.service_time.as_secs_f64(), now.since(grant.at).as_secs_f64());
            record.service_time = Span::from_secs_f64(mean + part * (held - mean));
        }
        self.note(grant.entry, now);
    }

    /// A provider was found dead: its tickets go, and it is held back for a
    /// while. With the grant of the request that failed: one from before the
    /// death that is already known says nothing new. Answers how many free
    /// tickets went.
    pub fn fail(&mut self, provider: Provider, grant: Option<Grant>, now: Moment) -> u64 {
        let Some(key) = self.by_provider.get(&provider).copied() else { return 0 };
        let Some(entry) = self.entries.get_mut(key) else { return 0 };
        entry.failures += 1;
        if grant.is_some_and(|grant| grant.deaths != entry.deaths) {
            return 0;
        }
        entry.deaths = entry.deaths.wrapping_add(1);
        entry.probation = 1;
        entry.probing = 0;
        if now >= entry.hold_end {
            // Many clients may notice one death; it counts once.
            entry.failures_in_row = entry.failures_in_row.saturating_add(1);
            let hold = HOLD_FIRST.times(1 << (entry.failures_in_row - 1).min(16)).min(HOLD_MAX);
            entry.hold_end = now + hold;
        }
        let free = entry.close(now);
        self.note(key, now);
        free
    }

    /// A provider leaves; its running requests stay. Answers how many free
    /// tickets went.
    pub fn withdraw(&mut self, provider: Provider, now: Moment) -> u64 {
        let Some(key) = self.by_provider.get(&provider).copied() else { return 0 };
        let free = self.entries.get_mut(key).map_or(0, |entry| entry.close(now));
        self.note(key, now);
        free
    }

    /// What is known of a provider.
    pub fn entry_mut(&mut self, provider: Provider) -> Option<&mut Entry> {
        self.by_provider.get(&provider).and_then(|key| self.entries.get_mut(*key))
    }

    /// All entries, to mark what the log knows.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// Forgets providers whose lease ended long enough ago.
    pub fn sweep(&mut self, now: Moment) {
        self.look_at_the_clock(now);
        let forgotten = |(key, entry): (Key, &Entry)| entry.forgotten(now).then_some(key);
        let keys: Vec<Key> = self.entries.iter().filter_map(forgotten).collect();
        for key in keys {
            self.scheduler.on_remove(key.index());
            if let Some(entry) = self.entries.remove(key) {
                self.states[entry.record.availability as usize] -= 1;
                self.alarms.remove(at(entry.alarm), key.index());
                self.by_provider.remove(&entry.record.provider);
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
