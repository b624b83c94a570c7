//! The ticket law over all queues, checked from outside at every grant.
//!
//! Owns a reference model of each queue, and what only all of them together show:
//! the capacity that was bid, and figures of it. Panics when a law is broken.

use super::cluster::PORT;
use crate::reference_model::{Ask, Model, Place, Terms};
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::request::{Request, RequestResult};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// How long requests granted under former shares may still run.
const CHANGE: Span = Span::from_secs(10);

/// What one queue is told of one provider.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// Capacity that its requests in progress were once granted under.
    allowed: u32,
    last_grant: Moment,
    last_ticket: Moment,
}

/// The reference model of each queue, and what all of them together promise.
pub struct Ledger {
    services: Vec<ServiceName>,
    providers: usize,
    /// By balancer.
    models: Vec<Model>,
    /// By balancer, by service and provider.
    shown: Vec<Vec<Shown>>,
    /// The requests without an answer.
    open: HashMap<usize, Ask>,
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
    pub fn new(
        services: Vec<ServiceName>,
        balancers: usize,
        providers: usize,
        paper: bool,
    ) -> Ledger {
        let offers = services.len() * providers;
        Ledger {
            services,
            providers,
            models: (0..balancers).map(|_| Model::default()).collect(),
            shown: vec![vec![Shown::default(); offers]; balancers],
            open: HashMap::new(),
            paper,
            bids: vec![VecDeque::new(); offers],
            tickets: vec![(0, 0); providers],
            overshoot: 0.0,
            grants: vec![0; providers],
        }
    }

    fn place(&self, provider: usize, service: usize) -> Place {
        let ip = super::cluster::address(provider);
        (self.services[service], Provider { ip, port: Some(PORT) })
    }

    /// The number of a service at a provider.
    fn offer(&self, provider: usize, service: usize) -> usize {
        service * self.providers + provider
    }

    fn number(&self, service: ServiceName) -> usize {
        self.services.iter().position(|known| *known == service).expect("one of ours")
    }

    /// A monitor sent this about one service to all queues at once.
    pub fn bid(&mut self, provider: usize, service: usize, messages: &[&Request], now: Moment) {
        let (mut tickets, mut capacity) = (0, 0);
        for message in messages {
            let Request::Ticket { tickets: t, capacity: k, .. } = message else { continue };
            assert!(self.paper || *t == 0 || t <= k, "more tickets than capacity: {message:?}");
            (tickets, capacity) = (tickets + t, capacity + k);
        }
        let offer = self.offer(provider, service);
        let bids = &mut self.bids[offer];
        bids.push_back((now, capacity));
        while bids.len() > 1 && now.since(bids[1].0) > CHANGE {
            bids.pop_front();
        }
        let sums = &mut self.tickets[provider];
        *sums = (sums.0 + u64::from(tickets), sums.1 + 1);
    }

    /// A ticket message reached a queue.
    pub fn offered(
        &mut self,
        balancer: usize,
        connection: Key,
        provider: usize,
        message: &Request,
        now: Moment,
    ) {
        let Request::Ticket { tickets, capacity, weight, lease, service, .. } = message else {
            return;
        };
        let (tickets, capacity, weighted) = (*tickets, *capacity, weight.is_some());
        let terms = Terms { tickets, capacity, weighted, lease: lease.expect("a lease") };
        let service = self.number(*service);
        let (place, offer) = (self.place(provider, service), self.offer(provider, service));
        self.models[balancer].offer(connection, place, terms, now);
        let shown = &mut self.shown[balancer][offer];
        shown.last_ticket = now;
        shown.allowed = capacity.max(self.models[balancer].active(place));
    }

    /// A request asks for a provider.
    pub fn asked(&mut self, request: usize, ask: Ask) {
        let before = self.open.insert(request, ask);
        assert!(before.is_none(), "request {request} asked before its answer");
    }

    fn answered(&mut self, request: usize, now: Moment) -> Ask {
        let ask = self.open.remove(&request);
        let ask = ask.unwrap_or_else(|| panic!("a second answer to request {request}"));
        let waited = now.since(ask.since);
        assert!(waited <= ask.wait, "request {request} waited {waited}");
        ask
    }

    /// Its answer was that there is no place.
    pub fn refused(&mut self, request: usize, now: Moment) {
        self.answered(request, now);
    }

    /// Its answer was a provider.
    pub fn granted(
        &mut self,
        balancer: usize,
        connection: Key,
        request: usize,
        provider: usize,
        now: Moment,
    ) {
        self.grants[provider] += 1;
        let ask = self.answered(request, now);
        let service = self.number(ask.service);
        let (place, offer) = (self.place(provider, service), self.offer(provider, service));
        let id = ask.counted.then_some(request as u32 + 1);
        let model = &mut self.models[balancer];
        model.grant(connection, id, &ask, place.1, now);
        let shown = &mut self.shown[balancer][offer];
        shown.last_grant = now;
        let active = model.active(place);
        assert!(self.paper || active <= shown.allowed, "active {active} of {}", shown.allowed);
        self.over_all(provider, service);
    }

    /// All queues together: at most what was bid, and while shares change what
    /// was granted under the former ones.
    fn over_all(&mut self, provider: usize, service: usize) {
        if self.paper {
            return;
        }
        let place = self.place(provider, service);
        let active: u32 = self.models.iter().map(|model| model.active(place)).sum();
        let bids = &self.bids[self.offer(provider, service)];
        let most = bids.iter().map(|bid| bid.1).max().unwrap_or(0);
        assert!(
            active <= 2 * most + self.models.len() as u32,
            "provider {provider}: {active} requests in progress, lately at most {most} bid"
        );
        if let Some((_, capacity)) = bids.back().filter(|bid| bid.1 > 0) {
            self.overshoot = self.overshoot.max(f64::from(active) / f64::from(*capacity));
        }
    }

    /// A counted request ended.
    pub fn ended(
        &mut self,
        balancer: usize,
        (connection, provider, service): (Key, usize, usize),
        request: usize,
        result: RequestResult,
        now: Moment,
    ) {
        let id = request as u32 + 1;
        let known = self.models[balancer].done(connection, id, result, now);
        assert!(known, "request {request} was not in progress");
        self.lowered(balancer, provider, service);
    }

    /// What is in progress may have become less.
    fn lowered(&mut self, balancer: usize, provider: usize, service: usize) {
        let (place, model) = (self.place(provider, service), &self.models[balancer]);
        let offer = self.offer(provider, service);
        let most = model.capacity(place).max(model.active(place));
        let shown = &mut self.shown[balancer][offer];
        shown.allowed = shown.allowed.min(most);
    }

    /// The queue was told that the provider failed a request.
    pub fn failed(
        &mut self,
        balancer: usize,
        (connection, provider, service): (Key, usize, usize),
        asker: IpAddr,
        request: usize,
        now: Moment,
    ) {
        let id = (!self.paper).then_some(request as u32 + 1);
        let place = self.place(provider, service);
        self.models[balancer].fail(connection, asker, place, id, now);
        self.lowered(balancer, provider, service);
    }

    /// Time passed at a queue.
    pub fn passed(&mut self, balancer: usize, now: Moment) {
        self.models[balancer].pass(now);
    }

    /// Conservation: what a queue's `status` says, against its model.
    pub fn audit(&self, balancer: usize, status: &str, now: Moment) {
        self.models[balancer].check_status(status, now);
    }

    /// At the end: all were answered, nothing is held.
    pub fn settle(&self) {
        assert!(self.open.is_empty(), "{} requests without an answer", self.open.len());
        for model in &self.models {
            assert_eq!(model.in_progress(), 0, "a place held for ever");
        }
    }

    /// How long after its last ticket a provider got its last grant, at any queue.
    pub fn grants_after_tickets(&self, provider: usize) -> Span {
        let shown = self.shown.iter().map(|shown| &shown[provider]);
        shown.map(|shown| shown.last_grant.since(shown.last_ticket)).max().unwrap_or(Span::ZERO)
    }
}
