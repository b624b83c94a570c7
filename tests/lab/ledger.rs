//! The laws of tickets, checked from outside at every grant.
//!
//! Owns what each queue should hold, from nothing but what was said to it and
//! what it answered. Panics when a law is broken.

use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::message::Request;
use std::collections::{HashMap, VecDeque};

/// The shortest hold after a failure.
const HOLD: Span = Span::from_millis(500);
/// How long requests granted under former shares may still run.
const CHANGE: Span = Span::from_secs(10);

/// What one queue holds of one provider.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    tickets: u32,
    capacity: u32,
    lease_end: Moment,
    active: u32,
    spent: u32,
    hold_end: Moment,
    failed: bool,
    /// Capacity that its requests in progress were once granted under.
    allowed: u32,
    last_grant: Moment,
    last_ticket: Moment,
}

/// See the file's head.
pub struct Ledger {
    /// By balancer, by provider.
    places: Vec<Vec<Place>>,
    /// When the requests without an answer were asked.
    open: HashMap<usize, Moment>,
    wait: Span,
    paper: bool,
    /// The capacity of all queues together, as bid lately, by provider.
    bids: Vec<VecDeque<(Moment, u32)>>,
    /// All tickets of one bid, summed over bids, and how many; by provider.
    pub tickets: Vec<(u64, u64)>,
    /// The most requests in progress in parts of the capacity of the latest bid.
    pub overshoot: f64,
    /// Grants by provider.
    pub grants: Vec<u64>,
}

impl Ledger {
    pub fn new(balancers: usize, providers: usize, wait: Span, paper: bool) -> Ledger {
        Ledger {
            places: vec![vec![Place::default(); providers]; balancers],
            open: HashMap::new(),
            wait,
            paper,
            bids: vec![VecDeque::new(); providers],
            tickets: vec![(0, 0); providers],
            overshoot: 0.0,
            grants: vec![0; providers],
        }
    }

    /// A monitor sent this to all queues at once.
    pub fn bid(&mut self, provider: usize, messages: &[&Request], now: Moment) {
        let (mut tickets, mut capacity) = (0, 0);
        for message in messages {
            let Request::Ticket { tickets: t, capacity: k, .. } = message else { continue };
            assert!(self.paper || *t == 0 || t <= k, "more tickets than capacity: {message:?}");
            (tickets, capacity) = (tickets + t, capacity + k);
        }
        let bids = &mut self.bids[provider];
        bids.push_back((now, capacity));
        while bids.len() > 1 && now.since(bids[1].0) > CHANGE {
            bids.pop_front();
        }
        let sums = &mut self.tickets[provider];
        *sums = (sums.0 + u64::from(tickets), sums.1 + 1);
    }

    /// A ticket message reached a queue.
    pub fn offered(&mut self, balancer: usize, provider: usize, message: &Request, now: Moment) {
        let Request::Ticket { tickets, capacity, lease, .. } = message else { return };
        let place = &mut self.places[balancer][provider];
        (place.tickets, place.capacity, place.spent) = (*tickets, *capacity, 0);
        place.lease_end = if *capacity == 0 { now } else { now + lease.expect("a lease") };
        place.last_ticket = now;
        place.allowed = (*capacity).max(place.active);
    }

    /// A request asks for a provider.
    pub fn asked(&mut self, request: usize, now: Moment) {
        assert!(
            self.open.insert(request, now).is_none(),
            "request {request} asked before its answer"
        );
    }

    /// It got its answer.
    pub fn answered(&mut self, request: usize, now: Moment) {
        let asked = self
            .open
            .remove(&request)
            .unwrap_or_else(|| panic!("a second answer to request {request}"));
        assert!(now.since(asked) <= self.wait, "request {request} waited {}", now.since(asked));
    }

    /// Which was a provider.
    pub fn granted(&mut self, balancer: usize, provider: usize, avoid: &[usize], now: Moment) {
        self.grants[provider] += 1;
        let places = &mut self.places[balancer];
        let place = places[provider];
        assert!(!avoid.contains(&provider), "provider {provider} was to be avoided");
        assert!(
            now < place.lease_end,
            "provider {provider}: the lease ended {}",
            now.since(place.lease_end)
        );
        assert!(now >= place.hold_end, "provider {provider} is held");
        if self.paper {
            assert!(place.spent < place.tickets, "provider {provider} has no ticket left");
            places[provider].spent += 1;
        } else {
            assert!(place.active < place.capacity, "provider {provider} has no capacity left");
            // That free tickets go first is the business of tests/exhaustive and tests/sim;
            // here providers are passed over that suddenly are much quicker than usual.
            places[provider].active += 1;
        }
        let place = &mut places[provider];
        place.last_grant = now;
        assert!(
            self.paper || place.active <= place.allowed,
            "active {} of {}",
            place.active,
            place.allowed
        );
        self.over_all(provider);
    }

    /// All queues together: at most what was bid, and while shares change what
    /// was granted under the former ones.
    fn over_all(&mut self, provider: usize) {
        if self.paper {
            return;
        }
        let active: u32 = self.places.iter().map(|places| places[provider].active).sum();
        let bids = &self.bids[provider];
        let most = bids.iter().map(|bid| bid.1).max().unwrap_or(0);
        assert!(
            active <= 2 * most + self.places.len() as u32,
            "provider {provider}: {active} requests in progress, lately at most {most} bid"
        );
        if let Some((_, capacity)) = bids.back().filter(|bid| bid.1 > 0) {
            self.overshoot = self.overshoot.max(f64::from(active) / f64::from(*capacity));
        }
    }

    /// A request ended without a byte of the provider: it may be held for that.
    pub fn vain(&mut self, balancer: usize, provider: usize) {
        self.places[balancer][provider].failed = true;
    }

    /// A counted request ended.
    pub fn ended(&mut self, balancer: usize, provider: usize) {
        let place = &mut self.places[balancer][provider];
        place.active = place.active.checked_sub(1).expect("one in progress");
        place.allowed = place.allowed.min(place.capacity.max(place.active));
    }

    /// The queue was told that the provider failed a request. One of before a
    /// death that is known already says nothing new, so only a first one holds.
    pub fn failed(&mut self, balancer: usize, provider: usize, now: Moment) {
        let place = &mut self.places[balancer][provider];
        if !place.failed {
            place.hold_end = now + HOLD;
            (place.tickets, place.capacity, place.spent, place.lease_end) = (0, 0, 0, now);
        }
        place.failed = true;
    }

    /// Conservation: what a queue's `status` says, against this book.
    pub fn audit(&self, balancer: usize, status: &str, now: Moment) {
        let mut seen = 0;
        for line in status.lines().filter(|line| line.starts_with("provider ")) {
            let value = |key: &str| {
                line.split(' ').find_map(|pair| pair.strip_prefix(key)).expect("a pair")
            };
            let number = |key| value(key).parse::<u32>().expect("a number");
            let provider = super::cluster::number(value("address="));
            let place = &self.places[balancer][provider];
            let (free, active, spent) = (number("free="), number("active="), number("spent="));
            assert_eq!(number("offered="), free + active + spent, "conservation: {line}");
            assert_eq!(active, place.active, "{line}");
            if !place.failed {
                assert_eq!(spent, place.spent, "{line}");
                let tickets = if now < place.lease_end { place.tickets } else { 0 };
                assert_eq!(free, tickets.saturating_sub(active + spent), "{line}");
            }
            seen += active;
        }
        let active: u32 = self.places[balancer].iter().map(|place| place.active).sum();
        assert_eq!(seen, active, "requests in progress that the queue forgot");
    }

    /// At the end: all were answered, nothing is held.
    pub fn settle(&self) {
        assert!(self.open.is_empty(), "{} requests without an answer", self.open.len());
        for place in self.places.iter().flatten() {
            assert_eq!(place.active, 0, "a place held for ever");
        }
    }

    /// How long after its last ticket a provider got its last grant, at any queue.
    pub fn grants_after_tickets(&self, provider: usize) -> Span {
        let places = self.places.iter().map(|places| &places[provider]);
        places.map(|place| place.last_grant.since(place.last_ticket)).max().unwrap_or(Span::ZERO)
    }
}
