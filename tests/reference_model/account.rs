//! One provider of a service: its offer, what of it is in use, its failures.
//!
//! Owns what it may be given at a moment.

use super::trust::Trust;
use super::SECOND;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Mode;
use std::collections::HashMap;
use std::net::IpAddr;

/// A new provider is let in at the pace of its tickets, doubled after each step.
const PACE_STEP: Span = Span::from_millis(500);
const PACE_STEPS: u64 = 6;
/// Requests at once after which a provider on probation is free.
const PROBATION_MAX: u64 = 64;
/// The first hold after a failure, and the longest.
pub const HOLD: Span = Span::from_millis(500);
pub const HOLD_MAX: Span = Span::from_secs(30);
/// How long the failures of a provider that left are remembered.
const MEMORY: Span = Span::from_secs(60);
/// With more requests than this it may be suspected of answering errors, and so be
/// passed over although it has a free ticket.
const SUSPECTED: u64 = 20;

/// A provider of a service: its offer, what of it is in use, its failures.
#[derive(Debug)]
pub struct Account {
    pub tickets: u32,
    pub capacity: u32,
    pub lease_end: Moment,
    /// Since when it offers.
    pub came: Moment,
    pub spent: u32,
    pub active: u32,
    pub hold_end: Moment,
    pub failures_in_row: u32,
    /// A request that was granted before the last death says nothing new.
    pub deaths: u32,
    /// Requests at once while on probation; none: it is free.
    pub probation: Option<u64>,
    /// Counted requests in progress that were granted since the last death.
    pub probing: u64,
    /// When those were granted that have still to show that it serves.
    pub probes: Vec<Moment>,
    pub trust: Trust,
    /// When each asker was led there last.
    pub takers: HashMap<IpAddr, Moment>,
    /// The connection that offered it last, and the one before.
    pub owner: Option<Key>,
    pub rival: Option<Key>,
    /// Requests that were served, of all times.
    pub samples: u64,
    // For the answer to its next ticket message:
    pub offered_at: Moment,
    pub active_seconds: f64,
    pub active_changed: Moment,
    pub granted_counted: u64,
    pub granted_uncounted: u64,
    pub waited_before: u64,
    pub mode: Option<Mode>,
}

impl Account {
    pub fn new(waited: u64, now: Moment) -> Account {
        Account {
            tickets: 0,
            capacity: 0,
            lease_end: now,
            came: now,
            spent: 0,
            active: 0,
            hold_end: Moment::ZERO,
            failures_in_row: 0,
            deaths: 0,
            probation: None,
            probing: 0,
            probes: Vec::new(),
            trust: Trust::default(),
            takers: HashMap::new(),
            owner: None,
            rival: None,
            samples: 0,
            offered_at: now,
            active_seconds: 0.0,
            active_changed: now,
            granted_counted: 0,
            granted_uncounted: 0,
            waited_before: waited,
            mode: None,
        }
    }

    pub fn offers(&self, now: Moment) -> bool {
        now < self.lease_end
    }

    /// Tickets, less those in use.
    pub fn free(&self, now: Moment) -> u32 {
        let tickets = if self.offers(now) { self.tickets } else { 0 };
        tickets.saturating_sub(self.active + self.spent)
    }

    fn open(&self, now: Moment) -> bool {
        self.hold_end <= now && self.offers(now)
    }

    fn on_trial(&self, more: u32) -> bool {
        self.probation.is_none_or(|most| self.probing + u64::from(more) < most)
    }

    /// Whether a counted request finds room.
    pub fn on_capacity(&self, now: Moment) -> bool {
        self.open(now) && self.active < self.capacity && self.on_trial(0)
    }

    /// Whether a request finds a ticket, and room if it is counted.
    pub fn on_ticket(&self, counted: bool, now: Moment) -> bool {
        let ticket = self.open(now) && self.free(now) > 0 && self.on_trial(self.spent);
        ticket && (!counted || self.on_capacity(now))
    }

    /// The same, of one that cannot be suspected and passed over.
    pub fn on_sure_ticket(&self, counted: bool, now: Moment) -> bool {
        self.samples <= SUSPECTED && self.on_ticket(counted, now)
    }

    /// Whether a counted request finds room at the pace at which it is let in.
    pub fn in_pace(&self, now: Moment) -> bool {
        let steps = now.since(self.came).as_millis() / PACE_STEP.as_millis();
        let let_in = steps >= PACE_STEPS || self.active < self.tickets.max(1) << steps;
        self.on_capacity(now) && let_in
    }

    pub fn on_probation(&self) -> bool {
        self.probation.is_some()
    }

    /// One more that is known to be served.
    pub fn vouch(&mut self) {
        self.failures_in_row = 0;
        self.probation = self.probation.map(|most| 2 * most).filter(|most| *most < PROBATION_MAX);
        if self.probation.is_none() {
            self.probes.clear();
        }
    }

    pub fn tick(&mut self, now: Moment) {
        while self.probes.first().is_some_and(|at| *at + SECOND <= now) {
            self.probes.remove(0);
            self.vouch();
        }
    }

    /// Requests in progress times seconds, before their number changes.
    pub fn count_active(&mut self, now: Moment) {
        let seconds = now.since(self.active_changed).as_secs_f64();
        self.active_seconds += f64::from(self.active) * seconds;
        self.active_changed = now;
    }

    /// Everybody believes that it is dead. Answers the tickets that are gone.
    pub fn die(&mut self, now: Moment) -> u64 {
        self.trust.forget();
        self.probes.clear();
        (self.deaths, self.probation, self.probing) = (self.deaths + 1, Some(1), 0);
        if self.hold_end <= now {
            // Many clients may notice one death.
            let hold = HOLD.times(1 << self.failures_in_row.min(10));
            self.failures_in_row += 1;
            self.hold_end = now + hold.min(HOLD_MAX);
        }
        self.discard(now)
    }

    pub fn discard(&mut self, now: Moment) -> u64 {
        let free = self.free(now);
        (self.tickets, self.capacity, self.spent) = (0, 0, 0);
        self.lease_end = self.lease_end.min(now);
        u64::from(free)
    }

    /// A provider that failed is shown for a minute, although it offers nothing.
    pub fn is_shown(&self, now: Moment) -> bool {
        let failed = self.failures_in_row > 0 && now < self.lease_end + MEMORY;
        self.offers(now) || self.active > 0 || failed
    }

    pub fn is_remembered(&mut self, now: Moment) -> bool {
        self.trust.sweep(now);
        let suspect = self.failures_in_row > 0 || self.probation.is_some();
        let memory = if suspect { MEMORY } else { Span::ZERO };
        self.active > 0 || now < self.lease_end + memory
    }

    /// The moments at which time alone changes what it may be given.
    pub fn changes(&self) -> Vec<Moment> {
        let paces = (1..=PACE_STEPS).map(|step| self.came + PACE_STEP.times(step));
        let probes = self.probes.iter().map(|at| *at + SECOND);
        paces.chain(probes).chain([self.hold_end, self.came + SECOND]).collect()
    }
}
