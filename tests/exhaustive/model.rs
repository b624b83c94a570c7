//! A ticket queue as its specification reads, and nothing more.
//!
//! Owns the naive rules: lists, no indexes, no timers. It does not choose
//! among candidates; it follows the choice of the queue under test and says
//! whether that was one.

use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::message::Mode;

/// A request that lives so long vouches for its provider.
const SECOND: Span = Span::from_secs(1);
pub const LEASE: Span = Span::from_secs(5);
/// Not a hold time, so that nothing ends in the same moment.
pub const WAIT: Span = Span::from_millis(700);

/// A `next` that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub number: u32,
    pub counted: bool,
    pub waits: bool,
    pub since: Moment,
}

impl Ask {
    /// It has waited less than half of its time.
    fn patient(&self, now: Moment) -> bool {
        self.waits && now.since(self.since) < (self.since + WAIT).since(now)
    }
}

#[derive(Clone, Copy, Debug)]
struct Active {
    number: u32,
    provider: usize,
    /// Granted before the provider was last found dead.
    stale: bool,
    /// It has still to show that its provider serves, since then.
    probe: Option<Moment>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Provider {
    heard: bool,
    tickets: u32,
    capacity: u32,
    lease_end: Moment,
    hold_end: Moment,
    spent: u32,
    /// Failures in a row.
    row: u32,
    /// Requests at once while on probation.
    limit: Option<u32>,
    /// Since when it offers.
    came: Moment,
    // For the answer to its next ticket message:
    asked_at: Moment,
    active_time: f64,
    granted: [u64; 2],
    waited_before: u64,
    mode: Option<Mode>,
}

/// What a ticket message should be answered, as far as that is specified.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub active: f64,
    pub granted: u64,
    pub waiting: u64,
    pub mode: Option<Mode>,
}

/// See the file's head.
#[derive(Default)]
pub struct Model {
    pub now: Moment,
    providers: [Provider; 3],
    active: Vec<Active>,
    pub line: Vec<Ask>,
    waited: u64,
}

impl Model {
    fn actives(&self, provider: usize) -> u32 {
        self.active.iter().filter(|active| active.provider == provider).count() as u32
    }

    /// Tickets, less those in use.
    pub fn free(&self, provider: usize) -> u32 {
        let p = &self.providers[provider];
        let tickets = if self.now < p.lease_end { p.tickets } else { 0 };
        tickets.saturating_sub(self.actives(provider) + p.spent)
    }

    /// Active and spent, as `status` shows them.
    pub fn used(&self, provider: usize) -> (u32, u32) {
        (self.actives(provider), self.providers[provider].spent)
    }

    fn within(&self, provider: usize, more: u32) -> bool {
        let p = &self.providers[provider];
        let probing = self
            .active
            .iter()
            .filter(|active| active.provider == provider && !active.stale)
            .count() as u32;
        let open = self.now < p.lease_end && self.now >= p.hold_end;
        open && p.limit.is_none_or(|limit| probing + more < limit)
    }

    /// Whether the queue may choose this one for such a request.
    pub fn candidates(&self, ask: &Ask) -> Vec<usize> {
        let counted = ask.counted;
        let room = |p: &usize| self.actives(*p) < self.providers[*p].capacity;
        let ticket = |p: &usize| {
            self.within(*p, self.providers[*p].spent) && self.free(*p) > 0 && (!counted || room(p))
        };
        let with_ticket: Vec<usize> = (0..3).filter(ticket).collect();
        if !with_ticket.is_empty() || !counted {
            return with_ticket;
        }
        let able: Vec<usize> = (0..3).filter(|p| self.within(*p, 0) && room(p)).collect();
        // New ones are let in at the pace of their tickets, while there is time.
        let paced = |p: &usize| {
            let steps = self.now.since(self.providers[*p].came).as_millis() / 500;
            steps >= 6 || self.actives(*p) < self.providers[*p].tickets.max(1) << steps
        };
        let in_pace: Vec<usize> = able.iter().copied().filter(paced).collect();
        // Shortly after one came, others may be about to.
        let settled = self.providers.iter().all(|p| !p.heard || self.now >= p.came + SECOND);
        if in_pace.is_empty() && (settled || !ask.patient(self.now)) {
            able
        } else {
            in_pace
        }
    }

    /// Who of those who wait is served next, if anybody can be.
    pub fn first(&self) -> Option<Ask> {
        let oldest = self.line.first()?;
        let late = self.now.since(oldest.since) > (oldest.since + WAIT).since(self.now);
        let served = |ask: &&Ask| !self.candidates(ask).is_empty();
        if late { self.line.iter().rev().find(served) } else { self.line.iter().find(served) }
            .copied()
    }

    pub fn leave(&mut self, number: u32) {
        self.line.retain(|ask| ask.number != number);
    }

    pub fn grant(&mut self, ask: Ask, provider: usize) {
        self.leave(ask.number);
        self.providers[provider].granted[usize::from(ask.counted)] += 1;
        if ask.counted {
            let probe = self.providers[provider].limit.map(|_| self.now);
            self.active.push(Active { number: ask.number, provider, stale: false, probe });
        } else {
            self.providers[provider].spent += 1;
        }
    }

    /// A `next` found nobody.
    pub fn unlucky(&mut self) {
        self.waited += 1;
    }

    pub fn ticket(&mut self, provider: usize, tickets: u32, capacity: u32) -> Option<Expected> {
        let active = self.actives(provider);
        let (now, waited) = (self.now, self.waited);
        let p = &mut self.providers[provider];
        let [plain, counted] = p.granted;
        if plain + counted > 0 {
            p.mode = Some(if plain > counted { Mode::Paper } else { Mode::Slots });
        }
        let seconds = now.since(p.asked_at).as_secs_f64();
        let expected = Expected {
            active: if seconds > 0.0 { p.active_time / seconds } else { f64::from(active) },
            granted: plain + counted,
            waiting: waited - p.waited_before,
            mode: p.mode,
        };
        // What is told to one that was away may be forgotten, sooner or later.
        let known = now < p.lease_end;
        if !known {
            p.mode = None;
        }
        if now >= p.hold_end {
            // Uncounted ones that nobody called a failure went well.
            (0..p.spent).for_each(|_| p.vouch());
        }
        let free = p.limit.is_none();
        if !known {
            p.came = now;
        }
        (p.asked_at, p.active_time, p.granted, p.waited_before) = (now, 0.0, [0, 0], waited);
        (p.heard, p.tickets, p.capacity, p.spent) = (true, tickets, capacity, 0);
        p.lease_end = if capacity == 0 { now } else { now + LEASE };
        if free {
            self.no_probes(provider);
        }
        known.then_some(expected)
    }

    /// The oldest number in use, active or waiting.
    pub fn oldest(&self) -> Option<u32> {
        let waiting = self.line.iter().filter(|ask| ask.counted).map(|ask| ask.number);
        self.active.iter().map(|active| active.number).chain(waiting).min()
    }

    /// The provider of the oldest active request.
    pub fn oldest_active(&self) -> Option<(u32, usize)> {
        self.active.iter().map(|active| (active.number, active.provider)).min()
    }

    fn end(&mut self, number: u32) -> Option<Active> {
        let place = self.active.iter().position(|active| active.number == number)?;
        Some(self.active.remove(place))
    }

    /// It ended well. False: it was only waiting.
    pub fn done(&mut self, number: u32) -> bool {
        let Some(active) = self.end(number) else {
            self.leave(number);
            return false;
        };
        if !active.stale {
            self.providers[active.provider].row = 0;
            if active.probe.is_some() {
                self.vouch(active.provider);
            }
        }
        true
    }

    /// A provider failed, perhaps with a request; answers the tickets that are gone.
    pub fn fail(&mut self, provider: usize, number: Option<u32>) -> u32 {
        let known = number.and_then(|number| self.end(number)).is_some_and(|active| active.stale);
        if known {
            return 0;
        }
        if !self.providers[provider].heard {
            // Nothing is known of it, and nothing kept.
            return 0;
        }
        let free = self.free(provider);
        let now = self.now;
        self.active
            .iter_mut()
            .filter(|active| active.provider == provider)
            .for_each(|active| active.stale = true);
        let p = &mut self.providers[provider];
        if now >= p.hold_end {
            p.row += 1;
            p.hold_end = now + Span::from_millis(500).times(1 << (p.row - 1));
        }
        (p.tickets, p.capacity, p.spent, p.limit) = (0, 0, 0, Some(1));
        p.lease_end = p.lease_end.min(now);
        free
    }

    /// A second after its lease at the latest, a provider without requests and
    /// without failures is one that was never heard of.
    pub fn forget(&mut self) {
        for provider in 0..3 {
            let p = &self.providers[provider];
            if self.now >= p.lease_end && self.actives(provider) == 0 && p.limit.is_none() {
                self.providers[provider] = Provider::default();
            }
        }
    }

    fn vouch(&mut self, provider: usize) {
        self.providers[provider].vouch();
        if self.providers[provider].limit.is_none() {
            self.no_probes(provider);
        }
    }

    fn no_probes(&mut self, provider: usize) {
        self.active
            .iter_mut()
            .filter(|active| active.provider == provider)
            .for_each(|active| active.probe = None);
    }

    /// The next moment that changes something, besides leases.
    pub fn next_change(&self) -> Option<Moment> {
        let holds = self.providers.iter().map(|p| p.hold_end).filter(|end| *end > self.now);
        let waits = self.line.iter().flat_map(|ask| [ask.since + WAIT.part(2), ask.since + WAIT]);
        let paces = self
            .providers
            .iter()
            .flat_map(|p| (1..=6).map(|step| p.came + Span::from_millis(500).times(step)));
        let probes = self.active.iter().filter_map(|active| active.probe).map(|at| at + SECOND);
        holds.chain(waits).chain(paces).chain(probes).filter(|at| *at > self.now).min()
    }

    pub fn pass(&mut self, to: Moment) {
        for provider in 0..3 {
            let seconds = to.since(self.now).as_secs_f64();
            self.providers[provider].active_time += f64::from(self.actives(provider)) * seconds;
        }
        self.now = to;
        for place in 0..self.active.len() {
            let active = self.active[place];
            if !active.stale && active.probe.is_some_and(|at| at + SECOND <= to) {
                self.active[place].probe = None;
                self.vouch(active.provider);
            }
        }
    }
}

impl Provider {
    fn vouch(&mut self) {
        self.row = 0;
        self.limit = self.limit.map(|limit| 2 * limit).filter(|limit| *limit < 64);
    }
}
