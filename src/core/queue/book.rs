//! One service's providers: what each offered, what of it is in use.
//!
//! Owns the law of tickets: register, spend, refill, discard, expire. A ticket
//! is a place at the provider where a request starts at once; a counted grant
//! occupies one until it ends, another spends one until the next offer.
//! Knows no connection and no waiting line; a scheduler chooses, and is told
//! of every change. Nothing here looks at all providers for one request.

mod entry;
mod pace;
mod trust;

pub use entry::{Entry, PROBATION_MAX};

use crate::base::address::Provider;
use crate::base::order::{Numbers, Order};
use crate::base::slab::{Key, Slab};
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::schedule::scheduler::{Question, Record, Scheduler, State, View};
use crate::wire::message::{Mode, Progress, RequestResult, Standing};
use std::collections::HashMap;
use std::net::IpAddr;

/// The first hold after a failure; doubled with each failure in a row.
pub const HOLD_FIRST: Span = Span::from_millis(500);
/// The longest hold.
pub const HOLD_MAX: Span = Span::from_secs(30);

/// How the times of a provider that gets few requests are forgotten: half of
/// what it is slower than the others after so long.
const HELD_MEMORY: Span = Span::from_secs(5);
/// With so many requests between two offers a provider's times are known.
const SAMPLES_KNOWN: u64 = 10;

/// What a report of a failure led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is of a death that is known, or of a provider that is not.
    Stale,
    /// Only the asker that reported it is led elsewhere.
    Avoided,
    /// The provider is held for everybody; so many free tickets are gone.
    Held(u64),
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
    scheduler: Box<dyn Scheduler>,
    /// How many entries are in each state, as of the last look at the clock.
    states: [usize; State::COUNT],
    /// Entries by the moment at which their state changes by time alone.
    alarms: Order,
    beginnings: u64,
    turns: u64,
    /// The median of the times that requests take, and when it was found.
    typical: (Span, Moment),
    /// Until then an asker may be led elsewhere because it alone found a provider dead.
    avoiding_until: Moment,
    /// Requests that had to wait or got an error, of all times.
    pub waited: u64,
}

struct Candidates<'a> {
    entries: &'a Slab<Entry>,
    states: &'static [State],
    avoid: &'a [Provider],
}

impl View for Candidates<'_> {
    fn slots(&self) -> usize {
        self.entries.slots()
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn record(&self, slot: usize) -> Option<&Record> {
        self.entries.at(slot).map(|entry| &entry.record)
    }

    fn candidate(&self, slot: usize) -> Option<&Record> {
        let suits = |record: &&Record| self.states.contains(&record.state) && !self.avoid.contains(&record.provider);
        self.record(slot).filter(suits)
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
            states: [0; State::COUNT],
            alarms: Order::new(),
            beginnings: 0,
            turns: 0,
            typical: (Span::ZERO, Moment::ZERO),
            avoiding_until: Moment::ZERO,
            waited: 0,
        }
    }

    /// Another scheduler from now on.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        let mut known: Vec<&Record> = self.entries.iter().map(|(_, entry)| &entry.record).collect();
        known.sort_unstable_by_key(|record| record.turn);
        known.into_iter().for_each(|record| self.scheduler.changed(record));
    }

    /// The state of this entry may have changed: counts it, sets its alarm and
    /// tells the scheduler.
    fn note(&mut self, key: Key, now: Moment) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let state = entry.state(now);
        self.states[entry.record.state as usize] -= 1;
        self.states[state as usize] += 1;
        entry.record.state = state;
        let alarm = entry.changes(now);
        if alarm != entry.alarm {
            self.alarms.remove(at(entry.alarm), key.index());
            if alarm != Moment::NEVER {
                self.alarms.insert(at(alarm), key.index());
            }
            entry.alarm = alarm;
        }
        self.scheduler.changed(&entry.record);
    }

    /// Leases and holds that have ended by now are over.
    fn look_at_the_clock(&mut self, now: Moment) {
        while let Some((_, slot)) = self.alarms.first().filter(|(alarm, _)| *alarm <= at(now)) {
            let Some(key) = self.entries.key_at(slot) else { return };
            if let Some(entry) = self.entries.get_mut(key) {
                entry.look_at_the_clock(now);
            }
            self.note(key, now);
        }
    }

    /// When time alone will change something here.
    pub fn next_change(&self) -> Moment {
        let first = self.alarms.first().map(|([alarm, ..], _)| Moment::after_start(Span::from_nanos(alarm)));
        first.unwrap_or(Moment::NEVER)
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
        self.look_at_the_clock(now);
        let (waited, typical) = (self.waited, self.typical(now));
        let Some(entry) = self.entries.get_mut(key) else { return Standing::default() };
        entry.count_active(now);
        if entry.granted_counted + entry.granted_plain > 0 {
            entry.mode = if entry.granted_plain > entry.granted_counted { Mode::Paper } else { Mode::Slots };
        }
        let passed = now.since(entry.offered_at);
        let standing = Standing {
            active: match passed.as_secs_f64() {
                0.0 => f64::from(entry.record.active),
                seconds => entry.active_seconds / seconds,
            },
            granted: entry.granted_counted + entry.granted_plain,
            waiting: waited - entry.waited_before,
            mode: entry.mode,
            progress: Some(entry.progress()),
            contested: false,
        };
        if entry.record.held > typical && entry.record.samples > 0 && entry.granted_counted < SAMPLES_KNOWN {
            // It gets few requests because it was slow once, and so would stay slow.
            let kept = 0.5f64.powf(passed.as_secs_f64() / HELD_MEMORY.as_secs_f64());
            let (held, typical) = (entry.record.held.as_secs_f64(), typical.as_secs_f64());
            entry.record.held = Span::from_secs_f64(typical + kept * (held - typical));
        }
        (entry.offered_at, entry.active_seconds, entry.waited_before) = (now, 0.0, waited);
        (entry.granted_counted, entry.granted_plain) = (0, 0);

        let offered = now < entry.lease_end;
        let had_tickets = offered && entry.record.free() > 0;
        if now >= entry.hold_end {
            // Uncounted requests never end; those nobody called a failure went well.
            for _ in 0..entry.record.spent.min(PROBATION_MAX) {
                entry.vouch(true);
            }
        }
        if !offered {
            entry.came = now;
        }
        entry.record.tickets = offer.tickets;
        entry.record.capacity = offer.capacity;
        entry.record.weight = offer.weight.thousandths().max(1);
        entry.record.spent = 0;
        // One with slots and no place here now has not left.
        let leaves = offer.capacity == 0 && offer.weight.thousandths() == 0;
        entry.lease_end = if leaves { now } else { now + offer.lease };
        if !had_tickets {
            // A repeated offer keeps its place in the order, a new one comes last.
            self.beginnings += 1;
            entry.record.since = self.beginnings;
        }
        self.note(key, now);
        standing
    }

    /// What is known of a provider, without any change.
    pub fn standing(&self, provider: Provider) -> Standing {
        let entry = self.by_provider.get(&provider).and_then(|key| self.entries.get(*key));
        let Some(entry) = entry else { return Standing::default() };
        let progress = Progress { now: entry.record.active, ..Progress::default() };
        let active = f64::from(entry.record.active);
        Standing { active, mode: entry.mode, progress: Some(progress), ..Standing::default() }
    }

    /// The median of the times that requests take at the providers; looked up
    /// once a second at most.
    fn typical(&mut self, now: Moment) -> Span {
        let (known, at) = self.typical;
        if now.since(at) < Span::from_secs(1) {
            return known;
        }
        let records = self.entries.iter().map(|(_, entry)| &entry.record);
        let mut times: Vec<Span> = records.filter(|record| record.samples > 0).map(|record| record.held).collect();
        let middle = times.len() / 2;
        let median = if times.is_empty() { Span::MAX } else { *times.select_nth_unstable(middle).1 };
        self.typical = (median, now);
        median
    }

    fn enter(&mut self, provider: Provider, now: Moment) -> Key {
        self.turns += 1;
        let key = self.entries.insert(Entry::new(provider, self.turns, self.waited, now));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.record.slot = key.index();
        }
        self.states[State::Closed as usize] += 1;
        self.by_provider.insert(provider, key);
        key
    }

    /// Whether any request at all would find a candidate.
    pub fn could_grant(&mut self, now: Moment) -> bool {
        self.look_at_the_clock(now);
        self.states[..State::TAKING].iter().any(|count| *count > 0)
    }

    /// Whether such a request would find a candidate.
    pub fn suits(&mut self, counted: bool, patient: bool, avoid: &[Provider], now: Moment) -> bool {
        self.look_at_the_clock(now);
        self.question(counted, patient, None, avoid).is_some()
    }

    /// What to ask the scheduler: for candidates with free tickets, or (for a
    /// counted request) within their capacity, or (if it has no time to wait)
    /// beyond the pace at which new ones are let in; nothing if there are none.
    fn question(&self, counted: bool, patient: bool, client: Option<IpAddr>, avoid: &[Provider]) -> Option<Question> {
        let tiers = [(true, false), (false, false), (false, true)];
        let tiers = if patient { &tiers[..2] } else { &tiers[..] };
        let questions = tiers.iter().map(|(on_tickets, on_reserve)| Question {
            on_tickets: *on_tickets,
            on_reserve: *on_reserve,
            counted,
            client,
        });
        questions.into_iter().find(|question| {
            let states = question.states();
            let all: usize = states.iter().map(|state| self.states[*state as usize]).sum();
            let view = Candidates { entries: &self.entries, states, avoid: &[] };
            let avoided = |provider: &&Provider| {
                self.by_provider.get(*provider).is_some_and(|key| view.candidate(key.index()).is_some())
            };
            // Mostly there are more than could be avoided, and nobody has to be counted.
            all > avoid.len() || all > 0 && all > distinct(avoid).filter(avoided).count()
        })
    }

    /// A place for one request: on a free ticket, else (only for a counted
    /// one) within somebody's capacity; else none. One that is patient can wait,
    /// and finds no provider beyond the pace at which new ones are let in.
    pub fn grant(
        &mut self,
        counted: bool,
        patient: bool,
        client: Option<IpAddr>,
        avoid: &[Provider],
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        self.look_at_the_clock(now);
        let question = self.question(counted, patient, client, avoid)?;
        let view = Candidates { entries: &self.entries, states: question.states(), avoid };
        let slot = self.scheduler.choose(&view, question).filter(|slot| view.candidate(*slot).is_some())?;
        self.occupy(self.entries.key_at(slot)?, question.on_tickets, counted, now)
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
    pub fn candidates(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> Vec<&Record> {
        self.look_at_the_clock(now);
        let Some(question) = self.question(counted, false, None, avoid) else { return Vec::new() };
        let states = question.states();
        let records = self.entries.iter().map(|(_, entry)| &entry.record);
        let mut found: Vec<_> =
            records.filter(|record| states.contains(&record.state) && !avoid.contains(&record.provider)).collect();
        found.sort_unstable_by_key(|record| record.turn);
        found
    }

    fn occupy(&mut self, key: Key, on_ticket: bool, counted: bool, now: Moment) -> Option<(Provider, Grant)> {
        self.turns += 1;
        let entry = self.entries.get_mut(key)?;
        entry.granted += 1;
        entry.record.turn = self.turns;
        if counted {
            entry.count_active(now);
            entry.record.active += 1;
            entry.probing += 1;
            entry.granted_counted += 1;
            if entry.probation != u32::MAX {
                entry.probes.push_back(now);
            }
            entry.pace.granted(now);
            entry.record.shadow = entry.pace.shadow(now);
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

    /// Whose request a grant is for, where it is counted.
    pub fn began(&mut self, grant: &Grant, asker: IpAddr) {
        if let Some(entry) = self.entries.get_mut(grant.entry).filter(|entry| entry.deaths == grant.deaths) {
            entry.trust.began(asker, grant.at);
        }
    }

    /// A ticket that was spent for nobody is free again, unless the provider has
    /// offered anew or died since.
    pub fn unspend(&mut self, grant: Grant, now: Moment) {
        let Some(entry) = self.entries.get_mut(grant.entry) else { return };
        if grant.deaths == entry.deaths && grant.at >= entry.offered_at && entry.record.spent > 0 {
            if entry.record.free() == 0 {
                self.beginnings += 1;
                entry.record.since = self.beginnings;
            }
            entry.record.spent -= 1;
            self.note(grant.entry, now);
        }
    }

    /// A counted request of this asker ended. Answers whether that was one too
    /// many in a row that ended without a byte: the provider's failure, and which
    /// asker's word that is (none: of several).
    pub fn end(&mut self, grant: Grant, result: RequestResult, asker: IpAddr, now: Moment) -> Option<Option<IpAddr>> {
        self.look_at_the_clock(now);
        let beginnings = self.beginnings + 1;
        let entry = self.entries.get_mut(grant.entry)?;
        entry.count_active(now);
        let had_tickets = entry.record.free() > 0;
        debug_assert!(entry.record.active > 0);
        entry.record.active = entry.record.active.saturating_sub(1);
        if !had_tickets && entry.record.free() > 0 {
            entry.record.since = beginnings;
            self.beginnings = beginnings;
        }
        let mut failed = None;
        // What was in progress at a death took as long as its client's patience,
        // which says nothing about how quick the provider is when it is back.
        if grant.deaths == entry.deaths {
            entry.probing = entry.probing.saturating_sub(1);
            entry.trust.over(asker);
            let probe = entry.take_probe(grant.at);
            match result {
                RequestResult::Good => {
                    entry.vouch(probe);
                    entry.trust.served(asker);
                    sample(entry, &grant, now);
                }
                RequestResult::Empty | RequestResult::Reset => failed = entry.trust.vain(asker),
                RequestResult::Unused => {}
            }
        }
        self.note(grant.entry, now);
        failed
    }

    /// This asker (none: several) found a provider dead: its tickets go, and it
    /// is held back for a while; or only the asker is led elsewhere. With the
    /// grant of the request that failed: one from before the death that is already
    /// known says nothing new.
    pub fn fail(&mut self, provider: Provider, grant: Option<Grant>, asker: Option<IpAddr>, now: Moment) -> Verdict {
        let Some(key) = self.by_provider.get(&provider).copied() else { return Verdict::Stale };
        self.look_at_the_clock(now);
        let Some(entry) = self.entries.get_mut(key) else { return Verdict::Stale };
        entry.failures += 1;
        if grant.is_some_and(|grant| grant.deaths != entry.deaths) {
            return Verdict::Stale;
        }
        if let Some(asker) = asker.filter(|asker| !entry.trust.believes(*asker, now)) {
            self.avoiding_until = self.avoiding_until.max(entry.trust.avoided_until(asker));
            return Verdict::Avoided;
        }
        entry.deaths = entry.deaths.wrapping_add(1);
        entry.probation = 1;
        entry.probing = 0;
        entry.probes.clear();
        if now >= entry.hold_end {
            // Many clients may notice one death; it counts once.
            entry.failures_in_row = entry.failures_in_row.saturating_add(1);
            let hold = HOLD_FIRST.times(1 << (entry.failures_in_row - 1).min(16)).min(HOLD_MAX);
            entry.hold_end = now + hold;
        }
        let free = entry.close(now);
        self.note(key, now);
        Verdict::Held(free)
    }

    /// The providers that this asker alone found dead, and the first moment at
    /// which one of them may be tried again.
    pub fn avoided(&self, asker: IpAddr, now: Moment) -> (Vec<Provider>, Moment) {
        let mut first = Moment::NEVER;
        if now >= self.avoiding_until {
            return (Vec::new(), first);
        }
        let avoided = self.entries().filter(|entry| {
            let until = entry.trust.avoided_until(asker);
            if now < until {
                first = first.min(until);
            }
            now < until
        });
        (avoided.map(|entry| entry.record.provider).collect(), first)
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
        self.entries.iter_mut().for_each(|entry| entry.trust.sweep(now, HOLD_MAX));
        let forgotten = |(key, entry): (Key, &Entry)| entry.forgotten(now).then_some(key);
        let keys: Vec<Key> = self.entries.iter().filter_map(forgotten).collect();
        for key in keys {
            self.scheduler.gone(key.index());
            if let Some(entry) = self.entries.remove(key) {
                self.states[entry.record.state as usize] -= 1;
                self.alarms.remove(at(entry.alarm), key.index());
                self.by_provider.remove(&entry.record.provider);
            }
        }
    }
}

/// The time of a request that was served is a sample of the provider's speed.
fn sample(entry: &mut Entry, grant: &Grant, now: Moment) {
    let seconds = now.since(grant.at).as_secs_f64();
    entry.ended += 1;
    entry.ended_seconds += seconds;
    entry.ended_logarithms += seconds.max(1e-6).ln();
    entry.pace.ended(seconds, now);
    if grant.on_ticket && !entry.pace.suspect() {
        let record = &mut entry.record;
        record.samples += 1;
        let part = (1.0 / record.samples as f64).max(0.02);
        let mean = record.held.as_secs_f64();
        record.held = Span::from_secs_f64(mean + part * (seconds - mean));
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
