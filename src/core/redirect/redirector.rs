//! The redirector, as a state machine: each client asks, connects, is relayed,
//! and is gone.
//!
//! Owns the provider of each client, the retries, the messages to the queue, and
//! the time all that may take. Knows no socket: the handler relays the
//! bytes, and says when both directions have ended.

use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::state_machine::StateMachine;
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::reply::{ErrorCode, Reply};
use crate::protocol::request::{Next, Request, RequestResult};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;

/// Providers that a question asks to avoid: eight of the longest addresses fit
/// into a line. The queue holds every one that was reported anyway.
const AVOID_MAX: usize = 8;

use client::{Client, ClientState};
pub use interface::{Failure, Input, Output, PrefetchSize, RedirectLog, RedirectOptions};
use prefetch::Prefetch;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum QueueStatus {
    #[default]
    Unknown,
    Up,
    Down,
}

/// A service that clients came for: as many as are configured.
#[derive(Debug)]
struct ServiceFallbacks {
    name: ServiceName,
    /// Static providers, and whose turn it is.
    providers: Vec<SocketAddr>,
    next: usize,
}

/// Finds a provider for each client, as a state machine.
#[derive(Default)]
pub struct Redirector {
    options: RedirectOptions,
    clients: Vec<Option<(Key, Client)>>,
    count: usize,
    asked: HashMap<u32, Key>,
    next_id: u32,
    ids_used_up: bool,
    queue: QueueStatus,
    services: Vec<ServiceFallbacks>,
    prefetch: Prefetch,
    timers: TimerQueue<Key>,
    outputs: VecDeque<Output>,
}

impl StateMachine for Redirector {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Arrived { client, service, from, port } => {
                self.on_arrival(client, service, from, port, now)
            }
            Input::QueueReply { id, reply } => self.on_reply(id, reply, now),
            Input::QueueUp => self.on_queue_up(now),
            Input::QueueDown => {
                self.forget_grants();
                self.queue_lost(QueueStatus::Down, now);
            }
            Input::Connected { client } => self.on_connected(client, now),
            Input::ConnectFailed { client, why } => self.provider_failed(client, why, now),
            Input::ConnectBlocked { client } => self.provider_blocked(client, now),
            Input::NoSocket { client } => self.reset_client(client, Outcome::OutOfSockets, now),
            Input::ConnectDeferred { client } => self.on_connect_deferred(client, now),
            Input::ConnectStarted { client } => self.on_connect_started(client, now),
            Input::ClientLeft { client } => self.reset_client(client, Outcome::GaveUp, now),
            Input::ProviderConfirmed { client } => self.on_confirmed(client),
            Input::ProviderLost { client, why, sent, received } => {
                self.report_failure(client, why);
                self.close(client, Outcome::ProviderReset, None, (sent, received), now);
            }
            Input::Closed { client, outcome, result, local, sent, received } => {
                self.release_grant(client, result);
                self.close(client, outcome, local, (sent, received), now);
            }
            Input::Fallback { service, addresses } => {
                let number = self.service_index(service);
                self.services[usize::from(number)].providers = addresses;
            }
            Input::Reconfigure(options) => self.options = options,
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        for id in self.prefetch.expire(self.options.prefetch, now) {
            self.send_to_queue(Request::Done { id, result: RequestResult::Unused });
        }
        while let Some(key) = self.timers.pop_due(now) {
            let Some(client) = self.client(key) else { continue };
            client.timer = Moment::NEVER;
            let (deadline, state) = (client.deadline, client.state);
            if deadline > now {
                self.arm(key, deadline);
                continue;
            }
            match state {
                ClientState::AwaitingTicket | ClientState::AwaitingQueue => {
                    self.fall_back(key, Outcome::QueueUnreachable, now)
                }
                ClientState::Connecting => {
                    self.outputs.push_back(Output::AbortConnect { client: key });
                    self.provider_failed(key, Failure::TimedOut, now);
                }
                ClientState::AwaitingSocket => self.reset_client(key, Outcome::OutOfSockets, now),
                ClientState::Relaying => {}
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        self.timers
            .next_deadline()
            .into_iter()
            .chain(self.prefetch.deadline(self.options.prefetch))
            .min()
    }

    fn poll_output(&mut self) -> Option<Output> {
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

    /// The provider of a client, if the queue chose it.
    pub fn granted(&self, key: Key) -> Option<Provider> {
        let client = self.get(key)?;
        client.provider.filter(|_| client.fallbacks() == 0)
    }

    /// The service that a client wants.
    pub fn service(&self, key: Key) -> Option<ServiceName> {
        self.get(key).map(|client| self.service_at(client.service))
    }

    fn get(&self, key: Key) -> Option<&Client> {
        let (holder, client) = self.clients.get(key.index())?.as_ref()?;
        (*holder == key).then_some(client)
    }

    fn client(&mut self, key: Key) -> Option<&mut Client> {
        self.clients
            .get_mut(key.index())?
            .as_mut()
            .filter(|(holder, _)| *holder == key)
            .map(|(_, client)| client)
    }

    fn in_state(&self, state: impl Fn(ClientState) -> bool) -> Vec<(Moment, Key)> {
        self.clients
            .iter()
            .flatten()
            .filter(|(_, client)| state(client.state))
            .map(|(key, client)| (client.arrived, *key))
            .collect()
    }

    fn send_to_queue(&mut self, request: Request) {
        self.outputs.push_back(Output::SendToQueue(request));
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
        self.timers.schedule(deadline, key);
        let clients = &self.clients;
        // Those that are relayed need none, and there may be very many of them.
        self.timers.prune(|key| {
            let client = clients.get(key.index()).and_then(Option::as_ref);
            client.is_some_and(|(holder, client)| {
                *holder == key && client.state != ClientState::Relaying
            })
        });
    }

    /// Asks the queue for a provider, or waits for the queue.
    fn request_provider(&mut self, key: Key, now: Moment) {
        if self.queue != QueueStatus::Up {
            let queue_timeout = self.options.queue_timeout;
            let down = self.queue == QueueStatus::Down;
            let Some(client) = self.client(key) else { return };
            client.state = ClientState::AwaitingQueue;
            // A queue that is back may need a moment to hear of its providers.
            client.wait_deadline = Moment::NEVER;
            let (number, until) =
                (client.service, *client.retry_state().outage.get_or_insert(now + queue_timeout));
            self.arm(key, until);
            if down && self.has_fallback(number) {
                self.fall_back(key, Outcome::QueueUnreachable, now);
            }
            return;
        }
        let prefetchable = self.prefetch_service(key);
        if !self.use_prefetched(key, now) {
            self.send_next(key, now);
        }
        // The client that is here goes before those that may come.
        if let Some(number) = prefetchable {
            self.refill_prefetch(number, now);
        }
    }

    /// Asks the queue for a provider.
    fn send_next(&mut self, key: Key, now: Moment) {
        let queue_timeout = self.options.queue_timeout;
        let id = self.new_id();
        let Some(number) = self.client(key).map(|client| client.service) else { return };
        let service = self.service_at(number);
        let longest = self.options.wait.of(service);
        let Some(client) = self.client(key) else { return };
        if client.wait_deadline == Moment::NEVER {
            client.wait_deadline = now + longest;
        }
        let wait = client.wait_deadline.since(now);
        client.state = ClientState::AwaitingTicket;
        client.grant = NonZeroU32::new(id);
        let from = client.from.ip().to_canonical();
        let avoid = client.retry.as_ref().map_or(Vec::new(), |retry| retry.avoid.clone());
        let next = Next { service, wait, id: Some(id), client: Some(from), avoid };
        self.asked.insert(id, key);
        self.send_to_queue(Request::Next(next));
        self.arm(key, now + wait + queue_timeout);
    }

    fn new_id(&mut self) -> u32 {
        loop {
            self.ids_used_up |= self.next_id == u32::MAX;
            self.next_id = self.next_id.wrapping_add(1).max(1);
            // Only after four thousand million can one be in use, by a request that stayed.
            if !self.ids_used_up || !self.is_in_use(self.next_id) {
                return self.next_id;
            }
        }
    }

    fn is_in_use(&self, id: u32) -> bool {
        let known = |(_, client): &(Key, Client)| client.grant == NonZeroU32::new(id);
        self.asked.contains_key(&id) || self.clients.iter().flatten().any(known)
    }

    /// The service of a client that had no provider yet, if tickets of it
    /// are asked for ahead.
    fn prefetch_service(&mut self, key: Key) -> Option<u16> {
        let client =
            self.client(key).filter(|client| client.tries == 0 && client.retry.is_none())?;
        let number = client.service;
        let none = self.options.prefetch == PrefetchSize::Fixed(0);
        (!none && !self.options.by_client.contains(&self.service_at(number))).then_some(number)
    }

    /// Leads a client to a ticket that is at hand, if it may have one.
    fn use_prefetched(&mut self, key: Key, now: Moment) -> bool {
        let taken = self.prefetch_service(key).and_then(|number| self.prefetch.take(number));
        let (Some((id, provider)), Some(client)) = (taken, self.client(key)) else { return false };
        client.grant = NonZeroU32::new(id);
        client.provider = Some(provider);
        let to = provider.socket(client.port);
        self.connect(key, to, now);
        true
    }

    /// Orders the tickets of a service that are to be at hand.
    fn refill_prefetch(&mut self, number: u16, now: Moment) {
        let service = self.service_at(number);
        for _ in 0..self.prefetch.wanted(number, self.options.prefetch, now) {
            let id = self.new_id();
            self.prefetch.requested(number, id);
            let next =
                Next { service, wait: Span::ZERO, id: Some(id), client: None, avoid: Vec::new() };
            self.send_to_queue(Request::Next(next));
        }
    }

    fn on_queue_reply(&mut self, key: Key, id: u32, reply: Reply, now: Moment) {
        let Some(client) = self.client(key) else { return };
        if client.state != ClientState::AwaitingTicket || client.grant != NonZeroU32::new(id) {
            return;
        }
        match reply {
            Reply::Provider { provider, .. } => {
                let Some(client) = self.client(key) else { return };
                client.provider = Some(provider);
                let to = provider.socket(client.port);
                self.connect(key, to, now);
            }
            Reply::Error { error, .. } => {
                if let Some(client) = self.client(key) {
                    client.grant = None;
                }
                match error.code {
                    // What was ordered for others may be what it lacks.
                    ErrorCode::NoTicket | ErrorCode::Crowded if self.use_prefetched(key, now) => {}
                    ErrorCode::NoTicket | ErrorCode::Crowded => {
                        let tried = self.client(key).is_some_and(|client| client.tries > 0);
                        self.fall_back(
                            key,
                            if tried { Outcome::NobodyLeft } else { Outcome::NoTicket },
                            now,
                        );
                    }
                    // It is about to be replaced: as if it were away already.
                    ErrorCode::Draining => self.queue_lost(QueueStatus::Unknown, now),
                    _ => self.fall_back(key, Outcome::QueueRefused, now),
                }
            }
            _ => self.fall_back(key, Outcome::QueueRefused, now),
        }
    }

    fn queue_lost(&mut self, queue: QueueStatus, now: Moment) {
        self.queue = queue;
        self.asked.clear();
        self.prefetch.clear();
        for (_, key) in self.in_state(|state| {
            matches!(state, ClientState::AwaitingTicket | ClientState::AwaitingQueue)
        }) {
            let Some(client) = self.client(key) else { continue };
            let (number, waits) = (client.service, client.state == ClientState::AwaitingQueue);
            // A client that already waits for the queue goes on waiting for its own time.
            if !waits || (queue == QueueStatus::Down && self.has_fallback(number)) {
                if let Some(client) = self.client(key) {
                    client.grant = None;
                }
                self.request_provider(key, now);
            }
        }
    }

    fn connect(&mut self, client: Key, to: SocketAddr, now: Moment) {
        let deadline = now + self.options.connect_timeout;
        if let Some(client) = self.client(client) {
            client.state = ClientState::Connecting;
            client.tries = client.tries.saturating_add(1);
        }
        self.outputs.push_back(Output::Connect { client, to });
        self.arm(client, deadline);
    }

    fn provider_failed(&mut self, key: Key, why: Failure, now: Moment) {
        if self.has_connect(key) {
            self.report_failure(key, why);
            self.try_next(key, Outcome::NobodyLeft, now);
        }
    }

    /// A provider cannot be reached from this host now: others may reach it, so its
    /// ticket goes back unused and nothing is reported.
    fn provider_blocked(&mut self, key: Key, now: Moment) {
        if !self.has_connect(key) {
            return;
        }
        if let Some(id) = self.take_grant(key) {
            self.send_to_queue(Request::Done { id, result: RequestResult::Unused });
        }
        self.try_next(key, Outcome::OutOfSockets, now);
    }

    /// Whether a client has a provider that can fail it. If not, the input is about a
    /// connect that was given up, and the client has asked again since.
    fn has_connect(&mut self, key: Key) -> bool {
        self.client(key).is_some_and(|client| {
            matches!(client.state, ClientState::Connecting | ClientState::Relaying)
        })
    }

    /// Leads a client on to another provider; without one it is reset with this outcome.
    fn try_next(&mut self, key: Key, outcome: Outcome, now: Moment) {
        let tries = self.options.tries;
        let Some(client) = self.client(key) else { return };
        let from_queue = client.fallbacks() == 0;
        client.connected = Moment::NEVER;
        if let Some(provider) = client.provider.take() {
            let avoid = &mut client.retry_state().avoid;
            if from_queue && avoid.len() < AVOID_MAX {
                avoid.push(provider);
            }
        }
        if u32::from(client.tries) >= tries {
            self.reset_client(key, outcome, now);
        } else if from_queue {
            self.request_provider(key, now);
        } else {
            self.fall_back(key, outcome, now);
        }
    }

    /// Tells the queue and the operator that the client's provider failed.
    fn report_failure(&mut self, key: Key, why: Failure) -> Option<Provider> {
        let id = self.take_grant(key);
        let client = self.client(key)?;
        let (number, provider, from_queue) =
            (client.service, client.provider?, client.fallbacks() == 0);
        let service = self.service_at(number);
        self.outputs.push_back(Output::Log(RedirectLog::ProviderFailed { service, provider, why }));
        if from_queue {
            self.send_to_queue(Request::Failure { provider: provider.into(), service, id });
            for id in self.prefetch.discard(number, provider) {
                self.send_to_queue(Request::Done { id, result: RequestResult::Unused });
            }
        }
        Some(provider)
    }

    fn on_arrival(
        &mut self,
        client: Key,
        service: ServiceName,
        from: SocketAddr,
        port: u16,
        now: Moment,
    ) {
        let slot = client.index();
        if self.clients.len() <= slot {
            self.clients.resize_with(slot + 1, || None);
        }
        debug_assert!(self.clients[slot].is_none());
        let service = self.service_index(service);
        self.clients[slot] = Some((client, Client::new(service, from, port, now)));
        self.count += 1;
        self.request_provider(client, now);
    }

    fn on_reply(&mut self, id: u32, reply: Reply, now: Moment) {
        let provider = match reply {
            Reply::Provider { provider, .. } => Some(provider),
            _ => None,
        };
        if self.prefetch.on_reply(id, provider, now) {
            return;
        }
        if let Some(client) = self.asked.remove(&id) {
            self.on_queue_reply(client, id, reply, now);
        }
    }

    fn on_queue_up(&mut self, now: Moment) {
        if self.queue != QueueStatus::Up {
            self.forget_grants();
        }
        self.queue = QueueStatus::Up;
        let mut waiting = self.in_state(|state| state == ClientState::AwaitingQueue);
        waiting.sort_by_key(|(arrived, _)| *arrived);
        for (_, client) in waiting {
            self.request_provider(client, now);
        }
    }

    /// A client, if its state is this one.
    fn client_in(&mut self, state: ClientState, key: Key) -> Option<&mut Client> {
        self.client(key).filter(|client| client.state == state)
    }

    fn on_connected(&mut self, key: Key, now: Moment) {
        let Some(client) = self.client_in(ClientState::Connecting, key) else { return };
        client.state = ClientState::Relaying;
        client.connected = now;
        // A timer that is still set may be pruned, and finds nothing to do.
        (client.deadline, client.timer) = (Moment::NEVER, Moment::NEVER);
        if let Some(retry) = &mut client.retry {
            retry.stuck = None;
        }
    }

    fn on_connect_deferred(&mut self, key: Key, now: Moment) {
        let until = now + self.options.connect_timeout;
        let Some(client) = self.client_in(ClientState::Connecting, key) else { return };
        client.state = ClientState::AwaitingSocket;
        let until = *client.retry_state().stuck.get_or_insert(until);
        self.arm(key, until);
    }

    fn on_connect_started(&mut self, key: Key, now: Moment) {
        let deadline = now + self.options.connect_timeout;
        let Some(client) = self.client_in(ClientState::AwaitingSocket, key) else { return };
        client.state = ClientState::Connecting;
        self.arm(key, deadline);
    }

    /// It is served: what failed before is forgotten.
    fn on_confirmed(&mut self, key: Key) {
        let Some(client) = self.client(key) else { return };
        client.tries = 1;
        client.wait_deadline = Moment::NEVER;
        if let Some(retry) = &mut client.retry {
            (retry.avoid, retry.outage) = (Vec::new(), None);
        }
    }

    /// The number of a service, from now on.
    fn service_index(&mut self, name: ServiceName) -> u16 {
        let service = self.services.iter().position(|service| service.name == name);
        let number = service.unwrap_or(self.services.len());
        if service.is_none() {
            self.services.push(ServiceFallbacks { name, providers: Vec::new(), next: 0 });
        }
        number as u16
    }

    fn service_at(&self, number: u16) -> ServiceName {
        self.services.get(usize::from(number)).map_or(ServiceName::DEFAULT, |service| service.name)
    }

    fn has_fallback(&self, number: u16) -> bool {
        self.services.get(usize::from(number)).is_some_and(|service| !service.providers.is_empty())
    }

    /// Leads a client for which the queue has no provider to a fallback, each
    /// at most once; without one it is turned away.
    fn fall_back(&mut self, key: Key, outcome: Outcome, now: Moment) {
        self.release_grant(key, RequestResult::Unused);
        let Some(client) = self.client(key) else { return };
        let (number, used, first) =
            (client.service, client.fallbacks(), client.retry_state().first_fallback);
        let service = self.services.get_mut(usize::from(number));
        let service = service.filter(|service| (used as usize) < service.providers.len());
        let Some(ServiceFallbacks { providers: fallback, next: turn, .. }) = service else {
            return self.reset_client(key, outcome, now);
        };
        let first = if used == 0 { *turn } else { first };
        let to = fallback[(first + used as usize) % fallback.len()];
        if used == 0 {
            *turn = (first + 1) % fallback.len();
        }
        if let Some(client) = self.client(key) {
            client.retry_state().fallbacks += 1;
            client.retry_state().first_fallback = first;
            client.provider = Some(to.into());
        }
        self.connect(key, to, now);
    }

    /// Gives a client's ticket at the queue back, or stops waiting for one.
    fn release_grant(&mut self, key: Key, result: RequestResult) {
        if let Some(id) = self.take_grant(key) {
            self.asked.remove(&id);
            self.send_to_queue(Request::Done { id, result });
        }
    }

    /// The id of the ticket that a client had, if the queue still counts it. One
    /// that drains does.
    fn take_grant(&mut self, key: Key) -> Option<u32> {
        self.client(key)?.grant.take().map(NonZeroU32::get)
    }

    /// The connection to the queue is over, and with it what the queue counted.
    fn forget_grants(&mut self) {
        self.clients.iter_mut().flatten().for_each(|(_, client)| client.grant = None);
    }

    fn reset_client(&mut self, key: Key, outcome: Outcome, now: Moment) {
        if self.client(key).is_some() {
            self.outputs.push_back(Output::ResetClient { client: key });
            self.close(key, outcome, None, (0, 0), now);
        }
    }

    fn close(
        &mut self,
        key: Key,
        outcome: Outcome,
        local: Option<SocketAddr>,
        (sent, received): (u64, u64),
        now: Moment,
    ) {
        self.release_grant(key, RequestResult::Unused);
        if self.client(key).is_none() {
            return;
        }
        let Some((_, client)) = self.clients[key.index()].take() else { return };
        self.count -= 1;
        self.outputs.push_back(Output::Log(RedirectLog::Closed {
            service: self.service_at(client.service),
            client: client.from,
            local,
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
mod interface;
mod prefetch;
#[cfg(test)]
mod tests;
