//! A provider in the pool: its offer, what of it is in use, its failures.
//!
//! Owns what it can take at a moment and when time alone changes that. The
//! pool owns when it changes otherwise.

use crate::base::address::Provider;
use crate::base::time::{Moment, Span};
use crate::protocol::message::Mode;
use crate::scheduler::interface::{Availability, ProviderStats};

/// Requests at once after which a provider on probation is free.
pub const PROBATION_MAX: u32 = 64;
/// How long the failures of a provider that left are remembered.
const MEMORY: Span = Span::from_secs(60);

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
    /// When its state will change by time alone.
    pub(super) wakeup: Moment,
    pub(super) consecutive_failures: u32,
    /// How many deaths are known; a grant from before the last one is stale.
    pub(super) failure_epoch: u32,
    /// Requests at once while on probation; `u32::MAX` when free.
    pub(super) probation: u32,
    /// Counted requests in progress that were granted since the last death.
    pub(super) probation_active: u32,
    // Since the last offer:
    pub(super) offered_at: Moment,
    pub(super) active_changed: Moment,
    pub(super) active_seconds: f64,
    pub(super) granted_counted: u64,
    pub(super) granted_uncounted: u64,
    pub(super) waited_before: u64,
    pub(super) mode: Mode,
}

impl PoolMember {
    /// Somebody who has not offered anything yet.
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
            active: 0,
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
            wakeup: Moment::NEVER,
            consecutive_failures: 0,
            failure_epoch: 0,
            probation: u32::MAX,
            probation_active: 0,
            offered_at: now,
            active_changed: now,
            active_seconds: 0.0,
            granted_counted: 0,
            granted_uncounted: 0,
            waited_before,
            mode: Mode::default(),
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

    /// What it can take. A counted request needs room within its capacity; on
    /// probation nobody goes beyond that.
    pub fn availability(&self, now: Moment) -> Availability {
        if !self.is_open(now) {
            return Availability::Unavailable;
        }
        let able =
            self.stats.active < self.stats.capacity && self.probation_active < self.probation;
        let free = self.stats.free() > 0
            && self.probation_active.saturating_add(self.stats.spent) < self.probation;
        match (free, able) {
            (true, true) => Availability::FreeTicket,
            (true, false) => Availability::UncountedOnly,
            (false, true) => Availability::SpareCapacity,
            (false, false) => Availability::Full,
        }
    }

    /// Whether it can take such a request: on a free ticket (true), or beyond.
    pub(super) fn can_take(&self, counted: bool, now: Moment) -> Option<bool> {
        match self.availability(now) {
            Availability::FreeTicket => Some(true),
            Availability::UncountedOnly => (!counted).then_some(true),
            Availability::SpareCapacity => counted.then_some(false),
            Availability::Full | Availability::Unavailable => None,
        }
    }

    /// When time alone will change its state.
    pub(super) fn next_transition(&self, now: Moment) -> Moment {
        if now < self.opens_at() && self.opens_at() < self.lease_end {
            self.opens_at()
        } else if self.is_open(now) {
            self.lease_end
        } else {
            Moment::NEVER
        }
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

    /// A request ended well: the row of failures ends, probation widens.
    pub(super) fn record_success(&mut self) {
        self.consecutive_failures = 0;
        if self.probation < PROBATION_MAX {
            self.probation = self.probation.saturating_mul(2);
        }
        if self.probation >= PROBATION_MAX {
            self.probation = u32::MAX;
        }
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
