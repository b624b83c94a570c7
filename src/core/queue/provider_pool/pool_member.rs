//! A provider in the pool: its offer, what of it is in use, its failures.
//!
//! Owns what it can take at a moment and when time alone changes that. The
//! pool owns when it changes otherwise.

use super::pace::Pace;
use super::trust::{Trust, VOUCH_AFTER};
use crate::base::cidr::host_network;
use crate::base::provider::Provider;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{Feedback, Mode, Progress};
use crate::scheduler::interface::{Availability, ProviderStats};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Requests at once after which a provider on probation is free.
pub const PROBATION_MAX: u32 = 64;
/// How the times of a provider that gets few requests are forgotten: half of
/// what it is slower than the others after so long.
const SLOWNESS_HALVED: Span = Span::from_secs(5);
/// How long the failures of a provider that left are remembered.
const MEMORY: Span = Span::from_secs(60);
/// How long a new provider is let in at the pace of its tickets: twice as many
/// requests at once after each step.
const PACE_STEP: Span = Span::from_millis(500);
const PACE_STEPS: u64 = 6;

/// A provider and what is between it and this queue.
#[derive(Debug)]
pub struct PoolMember {
    /// What the scheduler sees.
    pub stats: ProviderStats,
    /// Until when the offer holds.
    pub lease_end: Moment,
    /// Grants of all times.
    pub granted: u64,
    /// Failures of all times.
    pub failures: u64,
    /// No grants before this moment.
    pub hold_end: Moment,
    /// No grants before this moment either: an operator drained it.
    pub drain_end: Moment,
    /// Whether the log knows it as offering.
    pub present: bool,
    /// What the host that offered it last can choose its address from; where that is this
    /// host, the same of the provider.
    pub(super) source: IpAddr,
    /// Providers before it, of all times, and grants.
    pub(super) serial: u64,
    /// The connection that offered it last.
    pub owner: Option<Key>,
    /// The one that offered it before, if it was alive then; and whether the log
    /// knows that two of them offer it.
    pub rival: Option<Key>,
    /// The log knows that two connections offer it.
    pub contested: bool,
    /// When its state will change by time alone.
    pub(super) wakeup: Moment,
    pub(super) consecutive_failures: u32,
    /// How many deaths are known; a grant from before the last one is stale.
    pub(super) failure_epoch: u32,
    /// Requests at once while on probation; `u32::MAX` when free.
    pub(super) probation: u32,
    /// Counted requests in progress that were granted since the last death.
    pub(super) probation_active: u32,
    /// When those were granted that have still to show that it serves; only
    /// while on probation, so no more than [`PROBATION_MAX`].
    pub(super) probes: VecDeque<Moment>,
    /// Whose word is taken about it.
    pub(super) trust: Trust,
    /// The askers that were led there last, and when.
    pub(super) takers: Vec<(IpAddr, Moment)>,
    /// How quick it is lately and usually.
    pub(super) pace: Pace,
    /// Since when it offers.
    pub(super) came: Moment,
    // Since the last offer:
    pub(super) offered_at: Moment,
    pub(super) active_changed: Moment,
    pub(super) active_seconds: f64,
    pub(super) granted_counted: u64,
    pub(super) granted_uncounted: u64,
    pub(super) waited_before: u64,
    pub(super) ended: u64,
    pub(super) ended_seconds: f64,
    pub(super) ended_logarithms: f64,
    pub(super) mode: Mode,
}

impl PoolMember {
    /// A provider that has not offered anything yet.
    pub(super) fn new(
        provider: Provider,
        turn: u64,
        waited_before: u64,
        now: Moment,
    ) -> PoolMember {
        let stats = ProviderStats {
            slot: 0,
            provider,
            availability: Availability::Unavailable,
            tickets: 0,
            capacity: 0,
            weight: 1,
            active: 0,
            shadow: 0,
            spent: 0,
            free_since_seq: 0,
            last_grant_seq: turn,
            service_time: Span::ZERO,
            samples: 0,
        };
        PoolMember {
            stats,
            lease_end: now,
            granted: 0,
            failures: 0,
            hold_end: Moment::ZERO,
            drain_end: Moment::ZERO,
            present: false,
            source: host_network(provider.ip),
            serial: turn,
            owner: None,
            rival: None,
            contested: false,
            wakeup: Moment::NEVER,
            consecutive_failures: 0,
            failure_epoch: 0,
            probation: u32::MAX,
            probation_active: 0,
            probes: VecDeque::new(),
            trust: Trust::default(),
            takers: Vec::new(),
            pace: Pace::new(now),
            came: now,
            offered_at: now,
            active_changed: now,
            active_seconds: 0.0,
            granted_counted: 0,
            granted_uncounted: 0,
            waited_before,
            ended: 0,
            ended_seconds: 0.0,
            ended_logarithms: 0.0,
            mode: Mode::default(),
        }
    }

    /// What its monitor hears of the time `passed` since its last offer. `waited` is the count of
    /// requests that had to wait for any provider.
    pub(super) fn feedback(&mut self, passed: Span, waited: u64) -> Feedback {
        Feedback {
            active: match passed.as_secs_f64() {
                0.0 => f64::from(self.stats.active),
                seconds => self.active_seconds / seconds,
            },
            granted: self.granted_counted + self.granted_uncounted,
            waiting: waited - self.waited_before,
            mode: self.mode,
            progress: Some(self.progress()),
            contested: false,
            share: None,
            tickets_max: None,
            lease_max: None,
        }
    }

    /// A time above the typical one comes closer to it, by half in [`SLOWNESS_HALVED`].
    pub(super) fn forget_slowness(&mut self, typical: Span, passed: Span) {
        let above = self.stats.service_time.as_secs_f64() - typical.as_secs_f64();
        if above > 0.0 && self.stats.samples > 0 {
            let kept = 0.5f64.powf(passed.as_secs_f64() / SLOWNESS_HALVED.as_secs_f64());
            self.stats.service_time = Span::from_secs_f64(typical.as_secs_f64() + kept * above);
        }
    }

    /// When neither a hold nor a drain keeps requests from it any more.
    fn opens_at(&self) -> Moment {
        self.hold_end.max(self.drain_end)
    }

    /// Whether it may get requests: its lease runs, and it is not held or drained.
    fn is_open(&self, now: Moment) -> bool {
        now < self.lease_end && now >= self.opens_at()
    }

    /// Requests at once that it may have while it is new here.
    pub(super) fn let_in(&self, now: Moment) -> u32 {
        let steps = now.since(self.came).as_nanos() / PACE_STEP.as_nanos();
        if steps >= PACE_STEPS {
            return u32::MAX;
        }
        self.stats.tickets.max(1).saturating_mul(1 << steps)
    }

    /// What it can take. A counted request needs room within its capacity; on
    /// probation no request goes beyond that.
    pub fn availability(&self, now: Moment) -> Availability {
        if !self.is_open(now) {
            return Availability::Unavailable;
        }
        let able =
            self.stats.active < self.stats.capacity && self.probation_active < self.probation;
        // Tickets that requests would hold if they took their usual time are in use.
        let free = self.stats.free() > 0
            && self.stats.shadow < self.stats.tickets
            && self.probation_active.saturating_add(self.stats.spent) < self.probation;
        match (free, able) {
            (true, true) => Availability::FreeTicket,
            (true, false) => Availability::UncountedOnly,
            (false, true) if self.stats.active >= self.let_in(now) => Availability::Reserve,
            (false, true) => Availability::SpareCapacity,
            (false, false) => Availability::Full,
        }
    }

    /// Whether it can take such a request: on a free ticket (true), or beyond.
    pub(super) fn can_take(&self, counted: bool, now: Moment) -> Option<bool> {
        match self.availability(now) {
            Availability::FreeTicket => Some(true),
            Availability::UncountedOnly => (!counted).then_some(true),
            Availability::SpareCapacity | Availability::Reserve => counted.then_some(false),
            Availability::Full | Availability::Unavailable => None,
        }
    }

    /// When time alone will change its state, or what is known of it.
    pub(super) fn next_transition(&self, now: Moment) -> Moment {
        let turn = if now < self.opens_at() && self.opens_at() < self.lease_end {
            self.opens_at()
        } else if self.is_open(now) {
            self.lease_end
        } else {
            Moment::NEVER
        };
        let paced = (self.stats.availability == Availability::Reserve)
            .then(|| now.since(self.came).as_nanos() / PACE_STEP.as_nanos() + 1)
            .filter(|step| *step <= PACE_STEPS)
            .map_or(Moment::NEVER, |step| self.came + PACE_STEP.times(step));
        let vouch = self.probes.front().map_or(Moment::NEVER, |at| *at + VOUCH_AFTER);
        turn.min(paced).min(vouch).min(self.pace.changes())
    }

    /// Requests that live on by now vouch.
    pub(super) fn look_at_the_clock(&mut self, now: Moment) {
        while self.probes.front().is_some_and(|at| *at + VOUCH_AFTER <= now) {
            self.probes.pop_front();
            self.record_success(true);
        }
        self.stats.shadow = self.pace.shadow(now);
    }

    pub(super) fn count_active(&mut self, now: Moment) {
        self.active_seconds +=
            f64::from(self.stats.active) * now.since(self.active_changed).as_secs_f64();
        self.active_changed = now;
    }

    /// Whether its last news was a failure, not long ago.
    pub fn has_failed(&self, now: Moment) -> bool {
        self.consecutive_failures > 0 && now < self.lease_end + MEMORY
    }

    /// A request was served: the row of failures ends, and probation widens if
    /// that was not known of this one.
    pub(super) fn record_success(&mut self, widen: bool) {
        self.consecutive_failures = 0;
        if widen && self.probation < PROBATION_MAX {
            self.probation = self.probation.saturating_mul(2);
        }
        if self.probation >= PROBATION_MAX {
            self.probation = u32::MAX;
            self.probes.clear();
        }
    }

    /// Whether this request had still to show that its provider serves; it has
    /// not to any more.
    pub(super) fn take_probe(&mut self, granted: Moment) -> bool {
        let place = self.probes.iter().position(|at| *at == granted);
        place.is_some_and(|place| self.probes.remove(place).is_some())
    }

    /// Requests at once while on probation; `u32::MAX` when free.
    pub fn probation(&self) -> u32 {
        self.probation
    }

    /// How many askers are led elsewhere because they alone found it dead.
    pub fn avoiding(&self, now: Moment) -> usize {
        self.trust.avoiding(now)
    }

    /// What is known of its requests; what ended is then told.
    fn progress(&mut self) -> Progress {
        let ended = std::mem::take(&mut self.ended);
        let seconds = std::mem::take(&mut self.ended_seconds);
        let logarithms = std::mem::take(&mut self.ended_logarithms);
        let count = ended.max(1) as f64;
        let usual = if ended > 0 { (logarithms / count).exp() } else { 0.0 };
        Progress { now: self.stats.active, ended, held: seconds / count, usual, queued: 0 }
    }

    /// All that was offered goes; answers how many free tickets that were.
    pub(super) fn close(&mut self, now: Moment) -> u64 {
        let free = if now < self.lease_end { self.stats.free() } else { 0 };
        (self.stats.tickets, self.stats.capacity, self.stats.spent) = (0, 0, 0);
        self.lease_end = self.lease_end.min(now);
        u64::from(free)
    }

    pub(super) fn is_expired(&self, now: Moment) -> bool {
        let remembered = self.consecutive_failures > 0 || self.probation != u32::MAX;
        let until = self.lease_end + if remembered { MEMORY } else { Span::ZERO };
        // A drain is an operator's word: it outlives the lease.
        self.stats.active == 0 && now >= until && now >= self.drain_end
    }
}
