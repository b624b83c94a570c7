//! The redirector, as a state machine: each client asks, connects, is relayed,
//! and is gone.
//!
//! Owns whom each client is led to, the retries, what the queue is told, and
//! the time all that may take. Knows no socket: the relay of bytes is the
//! hand's, and the machine hears of it when both directions have ended.

use crate::base::address::Provider;
use crate::base::machine::Machine;
use crate::base::name::Service;
use crate::base::outcome::Outcome;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::base::timers::Timers;
use crate::wire::message::{Next, Reason, Reply, Request, RequestResult};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

/// Providers that a question asks to avoid: eight of the longest addresses fit
/// into a line. The queue holds every one that was reported anyway.
const AVOID: usize = 8;

use client::{Client, Stage};
use stock::Stock;
pub use talk::{Failure, Input, Note, Output, RedirectOptions};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Queue {
    #[default]
    Unknown,
    Up,
    Down,
}

/// A service that clients came for: as many as are configured.
#[derive(Debug)]
struct Known {
    name: Service,
    /// Static providers, and whose turn it is.
    fallback: Vec<SocketAddr>,
    turn: usize,
}

/// See the file's head.
#[derive(Default)]
pub struct Redirector {
    options: RedirectOptions,
    clients: Vec<Option<(Key, Client)>>,
    count: usize,
    asked: HashMap<u32, Key>,
    next_id: u32,
    queue: Queue,
    /// How many connections to the queue there have been.
    connection: u32,
    services: Vec<Known>,
    stock: Stock,
    timers: Timers<Key>,
    outputs: VecDeque<Output>,
}

impl Machine for Redirector {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Moment) {
        match input {
            Input::Arrived { client, service, from, port } => {
                let slot = client.index();
                if self.clients.len() <= slot {
                    self.clients.resize_with(slot + 1, || None);
                }
                debug_assert!(self.clients[slot].is_none());
                let service = self.number(service);
                self.clients[slot] = Some((
                    client,
                    Client {
                        service,
                        from,
                        port,
                        stage: Stage::Queueless,
                        provider: None,
                        place: None,
                        tries: 0,
                        arrived: now,
                        connected: Moment::NEVER,
                        patience: Moment::NEVER,
                        trouble: None,
                        deadline: Moment::NEVER,
                        timer: Moment::NEVER,
                    },
                ));
                self.count += 1;
                self.find(client, now);
            }
            Input::Told { id, reply } => {
                let provider = if let Reply::Provider { provider, .. } = reply { Some(provider) } else { None };
                if self.stock.answered(id, provider, now) {
                    return;
                }
                if let Some(client) = self.asked.remove(&id) {
                    self.told(client, id, reply, now);
                }
            }
            Input::QueueUp => {
                if self.queue != Queue::Up {
                    self.connection = self.connection.wrapping_add(1);
                }
                self.queue = Queue::Up;
                let mut waiting = self.in_stage(|stage| stage == Stage::Queueless);
                waiting.sort_by_key(|(arrived, _)| *arrived);
                for (_, client) in waiting {
                    self.find(client, now);
                }
            }
            Input::QueueDown => self.queue_lost(Queue::Down, now),
            Input::Connected { client } => {
                if let Some(client) = self.client(client).filter(|client| client.stage == Stage::Connecting) {
                    client.stage = Stage::Relaying;
                    client.connected = now;
                    client.deadline = Moment::NEVER;
                    if let Some(trouble) = &mut client.trouble {
                        trouble.stuck = None;
                    }
                }
            }
            Input::Failed { client, why } => self.failed(client, why, now),
            Input::Stuck { client } => self.turn_away(client, Outcome::OutOfSockets, now),
            Input::Waits { client: key } => {
                let until = now + self.options.connect_timeout;
                if let Some(client) = self.client(key).filter(|client| client.stage == Stage::Connecting) {
                    client.stage = Stage::Stuck;
                    let until = *client.trouble().stuck.get_or_insert(until);
                    self.arm(key, until);
                }
            }
            Input::Calls { client: key } => {
                let deadline = now + self.options.connect_timeout;
                if let Some(client) = self.client(key).filter(|client| client.stage == Stage::Stuck) {
                    client.stage = Stage::Connecting;
                    self.arm(key, deadline);
                }
            }
            Input::GaveUp { client } => self.turn_away(client, Outcome::GaveUp, now),
            Input::Served { client } => {
                if let Some(client) = self.client(client) {
                    client.tries = 1;
                    client.patience = Moment::NEVER;
                    if let Some(trouble) = &mut client.trouble {
                        (trouble.avoid, trouble.outage) = (Vec::new(), None);
                    }
                }
            }
            Input::Lost { client, why, sent, received } => {
                self.report(client, why);
                self.close(client, Outcome::ProviderReset, sent, received, now);
            }
            Input::Closed { client, outcome, result, sent, received } => {
                self.let_go(client, result);
                self.close(client, outcome, sent, received, now);
            }
            Input::Fallback { service, addresses } => {
                let number = self.number(service);
                self.services[usize::from(number)].fallback = addresses;
            }
            Input::Reconfigure(options) => self.options = options,
        }
    }

    fn expire(&mut self, now: Moment) {
        for id in self.stock.expire(now) {
            self.say(Request::Done { id, result: RequestResult::Unused });
        }
        while let Some(key) = self.timers.due(now) {
            let Some(client) = self.client(key) else { continue };
            client.timer = Moment::NEVER;
            let (deadline, stage) = (client.deadline, client.stage);
            if deadline > now {
                self.arm(key, deadline);
                continue;
            }
            match stage {
                Stage::Asking(_) | Stage::Queueless => self.fall_back(key, Outcome::QueueUnreachable, now),
                Stage::Connecting => {
                    self.outputs.push_back(Output::HangUp { client: key });
                    self.failed(key, Failure::TimedOut, now);
                }
                Stage::Stuck => self.turn_away(key, Outcome::OutOfSockets, now),
                Stage::Relaying => {}
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        self.timers.next().into_iter().chain(self.stock.deadline()).min()
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

impl Redirector {
    /// A redirector that has not heard of its queue yet.
    pub fn new(options: RedirectOptions) -> Redirector {
        Redirector { options, ..Redirector::default() }
    }

    /// Clients that are not gone.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whom the queue granted to a client, if it did.
    pub fn granted(&self, key: Key) -> Option<Provider> {
        let (_, client) = self.clients.get(key.index())?.as_ref().filter(|(holder, _)| *holder == key)?;
        client.provider.filter(|_| client.place.is_some())
    }

    fn client(&mut self, key: Key) -> Option<&mut Client> {
        self.clients.get_mut(key.index())?.as_mut().filter(|(holder, _)| *holder == key).map(|(_, client)| client)
    }

    fn in_stage(&self, stage: impl Fn(Stage) -> bool) -> Vec<(Moment, Key)> {
        self.clients
            .iter()
            .flatten()
            .filter(|(_, client)| stage(client.stage))
            .map(|(key, client)| (client.arrived, *key))
            .collect()
    }

    fn say(&mut self, request: Request) {
        self.outputs.push_back(Output::Say(request));
    }

    /// Sets a client's deadline. An earlier timer that is still set will find
    /// the deadline moved and set itself again.
    fn arm(&mut self, key: Key, deadline: Moment) {
        let Some(client) = self.client(key) else { return };
        client.deadline = deadline;
        if deadline >= client.timer || deadline == Moment::NEVER {
            return;
        }
        client.timer = deadline;
        self.timers.set(deadline, key);
        if self.timers.len() > 4 * self.count + 1024 {
            let clients = &self.clients;
            self.timers.retain(|key| {
                clients.get(key.index()).is_some_and(|slot| slot.as_ref().is_some_and(|(holder, _)| *holder == key))
            });
        }
    }

    /// Asks the queue for a provider, or waits for the queue.
    fn find(&mut self, key: Key, now: Moment) {
        if self.queue != Queue::Up {
            let queue_timeout = self.options.queue_timeout;
            let down = self.queue == Queue::Down;
            let Some(client) = self.client(key) else { return };
            client.stage = Stage::Queueless;
            // A queue that is back may need a moment to hear of its providers.
            client.patience = Moment::NEVER;
            let (number, until) = (client.service, *client.trouble().outage.get_or_insert(now + queue_timeout));
            self.arm(key, until);
            if down && self.has_fallback(number) {
                self.fall_back(key, Outcome::QueueUnreachable, now);
            }
            return;
        }
        let stocked = self.stocked(key);
        if !self.supply(key, now) {
            self.ask(key, now);
        }
        // Whoever is here goes before those who may come.
        if let Some(number) = stocked {
            self.restock(number);
        }
    }

    /// Asks the queue for a provider.
    fn ask(&mut self, key: Key, now: Moment) {
        let (wait, queue_timeout) = (self.options.wait, self.options.queue_timeout);
        let (id, connection) = (self.new_id(), self.connection);
        let Some(client) = self.client(key) else { return };
        if client.patience == Moment::NEVER {
            client.patience = now + wait;
        }
        let wait = client.patience.since(now);
        client.stage = Stage::Asking(id);
        client.place = Some((id, connection));
        let (number, from) = (client.service, client.from.ip().to_canonical());
        let avoid = client.trouble.as_ref().map_or(Vec::new(), |trouble| trouble.avoid.clone());
        let next = Next { service: self.name(number), wait, id: Some(id), client: Some(from), avoid };
        self.asked.insert(id, key);
        self.say(Request::Next(next));
        self.arm(key, now + wait + queue_timeout);
    }

    fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.next_id
    }

    /// The service of a client that was not led to anybody yet, if places of it
    /// are asked for ahead.
    fn stocked(&mut self, key: Key) -> Option<u16> {
        let client = self.client(key).filter(|client| client.tries == 0 && client.trouble.is_none())?;
        let number = client.service;
        (self.options.stock > 0 && !self.options.by_client.contains(&self.name(number))).then_some(number)
    }

    /// Leads a client to a place that is at hand, if it may have one.
    fn supply(&mut self, key: Key, now: Moment) -> bool {
        let taken = self.stocked(key).and_then(|number| self.stock.take(number));
        let connection = self.connection;
        let (Some((id, provider)), Some(client)) = (taken, self.client(key)) else { return false };
        client.place = Some((id, connection));
        client.provider = Some(provider);
        let to = provider.socket(client.port);
        self.connect(key, to, now);
        true
    }

    /// Orders the places of a service that are to be at hand.
    fn restock(&mut self, number: u16) {
        let service = self.name(number);
        for _ in 0..self.stock.wanted(number, self.options.stock) {
            let id = self.new_id();
            self.stock.order(number, id);
            let next = Next { service, wait: Span::ZERO, id: Some(id), client: None, avoid: Vec::new() };
            self.say(Request::Next(next));
        }
    }

    fn told(&mut self, key: Key, id: u32, reply: Reply, now: Moment) {
        if self.client(key).is_none_or(|client| client.stage != Stage::Asking(id)) {
            return;
        }
        match reply {
            Reply::Provider { provider, .. } => {
                let Some(client) = self.client(key) else { return };
                client.provider = Some(provider);
                let to = provider.socket(client.port);
                self.connect(key, to, now);
            }
            Reply::Error { refusal, .. } => {
                if let Some(client) = self.client(key) {
                    client.place = None;
                }
                match refusal.reason {
                    // What was ordered for others may be what it lacks.
                    Reason::NoTicket | Reason::Crowded if self.supply(key, now) => {}
                    Reason::NoTicket | Reason::Crowded => {
                        let tried = self.client(key).is_some_and(|client| client.tries > 0);
                        self.fall_back(key, if tried { Outcome::NobodyLeft } else { Outcome::NoTicket }, now);
                    }
                    // It is about to be replaced: as if it were away already.
                    Reason::Draining => self.queue_lost(Queue::Unknown, now),
                    _ => self.fall_back(key, Outcome::QueueRefused, now),
                }
            }
            _ => self.fall_back(key, Outcome::QueueRefused, now),
        }
    }

    fn queue_lost(&mut self, queue: Queue, now: Moment) {
        self.queue = queue;
        self.asked.clear();
        self.stock.clear();
        for (_, key) in self.in_stage(|stage| matches!(stage, Stage::Asking(_) | Stage::Queueless)) {
            let Some(client) = self.client(key) else { continue };
            let (number, waits) = (client.service, client.stage == Stage::Queueless);
            // Whoever waits for the queue already goes on waiting as long as it was told to.
            if !waits || (queue == Queue::Down && self.has_fallback(number)) {
                if let Some(client) = self.client(key) {
                    client.place = None;
                }
                self.find(key, now);
            }
        }
    }

    fn connect(&mut self, client: Key, to: SocketAddr, now: Moment) {
        let deadline = now + self.options.connect_timeout;
        if let Some(client) = self.client(client) {
            client.stage = Stage::Connecting;
            client.tries += 1;
        }
        self.outputs.push_back(Output::Connect { client, to });
        self.arm(client, deadline);
    }

    fn failed(&mut self, key: Key, why: Failure, now: Moment) {
        let tries = self.options.tries;
        let Some(client) = self.client(key) else { return };
        if !matches!(client.stage, Stage::Connecting | Stage::Relaying) {
            // Of a call that was given up: the client has asked again since.
            return;
        }
        let (tried, from_queue) = (client.tries, client.fallbacks() == 0);
        client.connected = Moment::NEVER;
        if let Some(provider) = self.report(key, why) {
            if let Some(client) = self.client(key) {
                client.provider = None;
                let avoid = &mut client.trouble().avoid;
                if from_queue && avoid.len() < AVOID {
                    avoid.push(provider);
                }
            }
        }
        if tried >= tries {
            self.turn_away(key, Outcome::NobodyLeft, now);
        } else if from_queue {
            self.find(key, now);
        } else {
            self.fall_back(key, Outcome::NobodyLeft, now);
        }
    }

    /// Tells the queue and the operator that the client's provider failed.
    fn report(&mut self, key: Key, why: Failure) -> Option<Provider> {
        let id = self.take_place(key);
        let client = self.client(key)?;
        let (number, provider, from_queue) = (client.service, client.provider?, client.fallbacks() == 0);
        let service = self.name(number);
        self.outputs.push_back(Output::Note(Note::ProviderFailed { service, provider, why }));
        if from_queue {
            self.say(Request::Failure { provider: provider.into(), service, id });
            for id in self.stock.give_up(number, provider) {
                self.say(Request::Done { id, result: RequestResult::Unused });
            }
        }
        Some(provider)
    }

    /// The number of a service, from now on.
    fn number(&mut self, name: Service) -> u16 {
        let known = self.services.iter().position(|service| service.name == name);
        let number = known.unwrap_or(self.services.len());
        if known.is_none() {
            self.services.push(Known { name, fallback: Vec::new(), turn: 0 });
        }
        number as u16
    }

    fn name(&self, number: u16) -> Service {
        self.services.get(usize::from(number)).map_or(Service::DEFAULT, |service| service.name)
    }

    fn has_fallback(&self, number: u16) -> bool {
        self.services.get(usize::from(number)).is_some_and(|service| !service.fallback.is_empty())
    }

    /// Leads a client for whom the queue has nobody to a static provider, each
    /// at most once; without one it is turned away.
    fn fall_back(&mut self, key: Key, outcome: Outcome, now: Moment) {
        self.let_go(key, RequestResult::Unused);
        let Some(client) = self.client(key) else { return };
        let (number, used, first) = (client.service, client.fallbacks(), client.trouble().first_fallback);
        let service = self.services.get_mut(usize::from(number));
        let service = service.filter(|service| (used as usize) < service.fallback.len());
        let Some(Known { fallback, turn, .. }) = service else { return self.turn_away(key, outcome, now) };
        let first = if used == 0 { *turn } else { first };
        let to = fallback[(first + used as usize) % fallback.len()];
        if used == 0 {
            *turn = (first + 1) % fallback.len();
        }
        if let Some(client) = self.client(key) {
            client.trouble().fallbacks += 1;
            client.trouble().first_fallback = first;
            client.provider = Some(to.into());
        }
        self.connect(key, to, now);
    }

    /// Gives a client's place at the queue back, or stops waiting for one.
    fn let_go(&mut self, key: Key, result: RequestResult) {
        if let Some(id) = self.take_place(key) {
            self.asked.remove(&id);
            self.say(Request::Done { id, result });
        }
    }

    /// The id of the place that a client had, if the queue still counts it. One
    /// that drains does.
    fn take_place(&mut self, key: Key) -> Option<u32> {
        let (id, of) = self.client(key)?.place.take()?;
        (of == self.connection && self.queue != Queue::Down).then_some(id)
    }

    fn turn_away(&mut self, key: Key, outcome: Outcome, now: Moment) {
        if self.client(key).is_some() {
            self.outputs.push_back(Output::TurnAway { client: key });
            self.close(key, outcome, 0, 0, now);
        }
    }

    fn close(&mut self, key: Key, outcome: Outcome, sent: u64, received: u64, now: Moment) {
        self.let_go(key, RequestResult::Unused);
        if self.client(key).is_none() {
            return;
        }
        let Some((_, client)) = self.clients[key.index()].take() else { return };
        self.count -= 1;
        self.outputs.push_back(Output::Note(Note::Closed {
            service: self.name(client.service),
            client: client.from,
            provider: client.provider,
            outcome,
            sent,
            received,
            waited: client.connected.min(now).since(client.arrived),
            lasted: now.since(client.arrived),
        }));
    }
}

mod client;
mod stock;
mod talk;
#[cfg(test)]
mod tests;
