//! One service's providers: what each offered, what of it is in use.
//!
//! Owns the law of tickets: register, spend, refill, discard, expire. A ticket
//! is a place at the provider where a request starts at once; a counted grant
//! occupies one until it ends, another spends one until the next offer.
//! Knows no connection and no waiting line; a scheduler chooses.

use crate::base::address::Provider;
use crate::base::slab::{Key, Slab};
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::schedule::scheduler::{Question, Record, Scheduler, View};
use crate::wire::message::{Mode, Standing};
use std::collections::HashMap;

/// The first hold after a failure; doubled with each failure in a row.
pub const HOLD_FIRST: Span = Span::from_millis(500);
/// The longest hold.
pub const HOLD_MAX: Span = Span::from_secs(30);
/// Requests at once after which a provider on probation is free.
pub const PROBATION_MAX: u32 = 64;
/// How long the failures of a provider that left are remembered.
const MEMORY: Span = Span::from_secs(60);

/// A provider and what is between it and this queue.
#[derive(Debug)]
pub struct Entry {
    /// What the scheduler sees.
    pub record: Record,
    /// Until when the offer holds.
    pub lease_end: Moment,
    /// Grants of all times.
    pub granted: u64,
    /// Failures of all times.
    pub failures: u64,
    /// No grants before this moment.
    pub hold_end: Moment,
    /// Whether the log knows it as offering.
    pub present: bool,
    failures_in_row: u32,
    /// How many deaths are known; a grant from before the last one is stale.
    deaths: u32,
    /// Requests at once while on probation; `u32::MAX` when free.
    probation: u32,
    /// Counted requests in progress that were granted since the last death.
    probing: u32,
    // Since the last offer:
    offered_at: Moment,
    active_changed: Moment,
    active_seconds: f64,
    granted_counted: u64,
    granted_plain: u64,
    waited_before: u64,
    mode: Mode,
}

impl Entry {
    /// Whether it may get requests: its lease runs, and it is not held.
    fn open(&self, now: Moment) -> bool {
        now < self.lease_end && now >= self.hold_end
    }

    fn able(&self, now: Moment) -> bool {
        self.open(now) && self.record.active < self.record.capacity && self.probing < self.probation
    }

    /// `counted`: the request would be active until it ends.
    fn has_ticket(&self, now: Moment, counted: bool) -> bool {
        let probing = self.probing.saturating_add(self.record.spent);
        self.open(now) && self.record.free() > 0 && probing < self.probation && (!counted || self.able(now))
    }

    fn count_active(&mut self, now: Moment) {
        self.active_seconds += f64::from(self.record.active) * now.since(self.active_changed).as_secs_f64();
        self.active_changed = now;
    }

    /// A request ended well: the row of failures ends, probation widens.
    fn vouch(&mut self) {
        self.failures_in_row = 0;
        if self.probation < PROBATION_MAX {
            self.probation = self.probation.saturating_mul(2);
        }
        if self.probation >= PROBATION_MAX {
            self.probation = u32::MAX;
        }
    }

    /// All that was offered goes; answers how many free tickets that were.
    fn close(&mut self, now: Moment) -> u64 {
        let free = if now < self.lease_end { self.record.free() } else { 0 };
        (self.record.tickets, self.record.capacity, self.record.spent) = (0, 0, 0);
        self.lease_end = self.lease_end.min(now);
        u64::from(free)
    }

    fn forgotten(&self, now: Moment) -> bool {
        let remembered = self.failures_in_row > 0 || self.probation != u32::MAX;
        let until = self.lease_end + if remembered { MEMORY } else { Span::ZERO };
        self.record.active == 0 && now >= until
    }
}

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
    /// The rotation: longest ago granted first.
    rotation: Vec<Key>,
    scheduler: Box<dyn Scheduler>,
    beginnings: u64,
    /// Requests that had to wait or got an error, of all times.
    pub waited: u64,
}

struct Candidates<'a> {
    book: &'a Book,
    now: Moment,
    question: Question,
    avoid: &'a [Provider],
}

impl Candidates<'_> {
    fn suits(&self, entry: &Entry) -> bool {
        let place = if self.question.on_tickets {
            entry.has_ticket(self.now, self.question.counted)
        } else {
            self.question.counted && entry.able(self.now)
        };
        place && !self.avoid.contains(&entry.record.provider)
    }

    fn entry(&self, place: usize) -> Option<&Entry> {
        self.book.entries.get(*self.book.rotation.get(place)?)
    }

    fn any(&self) -> bool {
        self.book.entries.iter().any(|(_, entry)| self.suits(entry))
    }
}

impl View for Candidates<'_> {
    fn len(&self) -> usize {
        self.book.rotation.len()
    }

    fn able(&self, place: usize) -> Option<&Record> {
        self.entry(place).filter(|entry| entry.able(self.now)).map(|entry| &entry.record)
    }

    fn candidate(&self, place: usize) -> Option<&Record> {
        self.entry(place).filter(|entry| self.suits(entry)).map(|entry| &entry.record)
    }
}

impl Book {
    /// An empty book.
    pub fn new(scheduler: Box<dyn Scheduler>) -> Book {
        Book {
            entries: Slab::default(),
            by_provider: HashMap::new(),
            rotation: Vec::new(),
            scheduler,
            beginnings: 0,
            waited: 0,
        }
    }

    /// Another scheduler from now on.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
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
    pub fn offer(&mut self, offer: Offer, now: Moment) -> Standing {
        let key = match self.by_provider.get(&offer.provider) {
            Some(key) => *key,
            None => self.enter(offer.provider, now),
        };
        let waited = self.waited;
        let Some(entry) = self.entries.get_mut(key) else { return Standing::default() };
        entry.count_active(now);
        if entry.granted_counted + entry.granted_plain > 0 {
            entry.mode = if entry.granted_plain > entry.granted_counted { Mode::Paper } else { Mode::Slots };
        }
        let standing = Standing {
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
            entry.record.since = self.beginnings;
        }
        standing
    }

    fn enter(&mut self, provider: Provider, now: Moment) -> Key {
        let waited_before = self.waited;
        let record = Record {
            slot: 0,
            provider,
            tickets: 0,
            capacity: 0,
            active: 0,
            spent: 0,
            since: 0,
            held: Span::ZERO,
            samples: 0,
        };
        let key = self.entries.insert(Entry {
            record,
            lease_end: now,
            granted: 0,
            failures: 0,
            hold_end: Moment::ZERO,
            present: false,
            failures_in_row: 0,
            deaths: 0,
            probation: u32::MAX,
            probing: 0,
            offered_at: now,
            active_changed: now,
            active_seconds: 0.0,
            granted_counted: 0,
            granted_plain: 0,
            waited_before,
            mode: Mode::default(),
        });
        if let Some(entry) = self.entries.get_mut(key) {
            entry.record.slot = key.index();
        }
        self.by_provider.insert(provider, key);
        self.rotation.push(key);
        key
    }

    /// Whether anybody has a place for a counted request.
    pub fn could_grant(&self, now: Moment) -> bool {
        self.suits(true, &[], now) || self.suits(false, &[], now)
    }

    /// Whether such a request would find a candidate.
    pub fn suits(&self, counted: bool, avoid: &[Provider], now: Moment) -> bool {
        self.tier(counted, avoid, now).is_some()
    }

    /// Whether there are candidates, with free tickets or (for a counted
    /// request) within somebody's capacity.
    fn tier(&self, counted: bool, avoid: &[Provider], now: Moment) -> Option<bool> {
        let any = |on_tickets| {
            Candidates { book: self, now, question: Question { on_tickets, counted, client: None }, avoid }.any()
        };
        if any(true) {
            Some(true)
        } else {
            (counted && any(false)).then_some(false)
        }
    }

    /// A place for one request: on a free ticket, else (only for a counted
    /// one) within somebody's capacity; else none.
    pub fn grant(
        &mut self,
        counted: bool,
        client: Option<std::net::IpAddr>,
        avoid: &[Provider],
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        let on_tickets = self.tier(counted, avoid, now)?;
        let question = Question { on_tickets, counted, client };
        let mut scheduler = std::mem::replace(&mut self.scheduler, Box::new(Nobody));
        let view = Candidates { book: self, now, question, avoid };
        let place = scheduler.choose(&view, question).filter(|place| view.candidate(*place).is_some());
        self.scheduler = scheduler;
        let place = place?;
        let key = *self.rotation.get(place)?;
        self.occupy(key, question.on_tickets, counted, now)
    }

    /// A place for one request at this provider, if it is a candidate: or, for
    /// a counted one, at least able.
    pub fn grant_at(&mut self, provider: Provider, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        if !self.takes(provider, counted, now) {
            return None;
        }
        let key = *self.by_provider.get(&provider)?;
        let on_ticket = self.entries.get(key)?.has_ticket(now, counted);
        self.occupy(key, on_ticket, counted, now)
    }

    /// Whether this provider could take such a request now.
    pub fn takes(&self, provider: Provider, counted: bool, now: Moment) -> bool {
        let entry = self.by_provider.get(&provider).and_then(|key| self.entries.get(*key));
        entry.is_some_and(|entry| entry.has_ticket(now, counted) || (counted && entry.able(now)))
    }

    /// The candidates for a request, longest ago granted first.
    pub fn candidates(&self, counted: bool, avoid: &[Provider], now: Moment) -> Vec<&Record> {
        let Some(on_tickets) = self.tier(counted, avoid, now) else { return Vec::new() };
        let view = Candidates { book: self, now, question: Question { on_tickets, counted, client: None }, avoid };
        let entries = self.rotation.iter().filter_map(|key| self.entries.get(*key));
        entries.filter(|entry| view.suits(entry)).map(|entry| &entry.record).collect()
    }

    fn occupy(&mut self, key: Key, on_ticket: bool, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.rotation.retain(|other| *other != key);
        self.rotation.push(key);
        let entry = self.entries.get_mut(key)?;
        entry.granted += 1;
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
        Some((entry.record.provider, Grant { entry: key, at: now, on_ticket, deaths: entry.deaths }))
    }

    /// A counted request ended; `well` if its asker said so itself.
    pub fn end(&mut self, grant: Grant, well: bool, now: Moment) {
        let beginnings = self.beginnings + 1;
        let Some(entry) = self.entries.get_mut(grant.entry) else { return };
        entry.count_active(now);
        let had_tickets = entry.record.free() > 0;
        debug_assert!(entry.record.active > 0);
        entry.record.active = entry.record.active.saturating_sub(1);
        if !had_tickets && entry.record.free() > 0 {
            entry.record.since = beginnings;
            self.beginnings = beginnings;
        }
        let fresh = grant.deaths == entry.deaths;
        if fresh {
            entry.probing = entry.probing.saturating_sub(1);
        }
        if !well {
            return;
        }
        if fresh {
            entry.vouch();
        }
        if grant.on_ticket {
            let record = &mut entry.record;
            record.samples += 1;
            let part = (1.0 / record.samples as f64).max(0.02);
            let (mean, held) = (record.held.as_secs_f64(), now.since(grant.at).as_secs_f64());
            record.held = Span::from_secs_f64(mean + part * (held - mean));
        }
    }

    /// A provider was found dead: its tickets go, and it is held back for a
    /// while. With the grant of the request that failed: one from before the
    /// death that is already known says nothing new. Answers how many free
    /// tickets went.
    pub fn fail(&mut self, provider: Provider, grant: Option<Grant>, now: Moment) -> u64 {
        let Some(entry) = self.entry_mut(provider) else { return 0 };
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
        entry.close(now)
    }

    /// A provider leaves; its running requests stay. Answers how many free
    /// tickets went.
    pub fn withdraw(&mut self, provider: Provider, now: Moment) -> u64 {
        self.entry_mut(provider).map_or(0, |entry| entry.close(now))
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
        for key in self.entries.keys() {
            if self.entries.get(key).is_some_and(|entry| entry.forgotten(now)) {
                self.rotation.retain(|other| *other != key);
                self.scheduler.gone(key.index());
                if let Some(entry) = self.entries.remove(key) {
                    self.by_provider.remove(&entry.record.provider);
                }
            }
        }
    }
}

/// Stands in while the scheduler looks at the book.
struct Nobody;

impl Scheduler for Nobody {
    fn choose(&mut self, _: &dyn View, _: Question) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests;
