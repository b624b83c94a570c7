//! The ticket queue of a balancer, as a state machine.
//!
//! Owns the services, the connections that send requests and what each of them holds,
//! who may say what, and the bounds of it all. Every `next` gets exactly one
//! answer. Knows no socket: an answer is an output.

use super::affinity::Affinity;
use super::provider_pool::{Grant, PoolMember, ProviderPool};
use super::wait_queue::WaitQueue;
use crate::base::cidr::Cidr;
use crate::base::id_map::IdMap;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::{Key, Slab};
use crate::base::state_machine::StateMachine;
use crate::base::ticket::{Offer, Weight};
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::peer_key::PeerKey;
use crate::protocol::reply::{ErrorCode, Mode, ProtocolError, Reply};
use crate::protocol::request::{Next, Request};
use crate::protocol::responder::ReplySlot;
use crate::scheduler::interface::Scheduler;
use crate::scheduler::SchedulerName;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use key_records::KeyRecords;
use shares::{Counts, SearchState};

pub use interface::{Input, Output, ProviderEvent, QueueLog, QueueOptions};

/// Requests with an id that one connection may have active or waiting.
pub const IDS_MAX: usize = 1 << 17;
/// The same of all connections together.
pub const IDS_ALL_MAX: usize = 1 << 19;
/// Beyond so many ids in all, one source may have no more than [`IDS_MAX`] of them.
const IDS_PLENTY: usize = IDS_ALL_MAX / 2;
/// Deadlines that are handled, and requests of a connection that is gone that are ended,
/// in one turn: half a millisecond.
const WORK_PER_TURN: usize = 256;
/// Services for which requests wait and which no provider offers.
const UNOFFERED_MAX: usize = 64;
/// How often providers whose lease ended are looked for.
const SWEEP: Span = Span::from_secs(1);
/// A service that was asked for a provider within this time is not only exported.
const ASKED_MEMORY: Span = Span::from_secs(10);
/// The longest time for which a reader may say that an engine leads the clients.
const EXPORT_MAX: Span = Span::from_secs(3600);

#[derive(Debug)]
struct PendingNext {
    connection: Key,
    slot: ReplySlot,
    next: Next,
    /// The number of the question to a program where it should go, while that is open.
    question: Option<u64>,
}

struct ServiceState {
    name: ServiceName,
    pool: ProviderPool,
    waiting: WaitQueue<PendingNext>,
    /// It was opened by an offer or an operator, not by a question.
    opened: bool,
    /// The program that schedules, and whether it can be asked.
    plugin: Option<(Arc<str>, bool)>,
    granted: u64,
    refused: u64,
    /// When it will be looked whether time alone has made a candidate.
    watched: Moment,
    /// Until then an engine leads clients by what a reader tells it.
    exported_until: Moment,
    /// When a provider was asked for last.
    asked_at: Option<Moment>,
    search: SearchState,
    /// Waiting requests of each source.
    sources: Counts,
}

impl ServiceState {
    /// Lets time alone be looked at then, unless it will be earlier.
    fn watch(&mut self, timers: &mut TimerQueue<Timer>, key: Key, at: Moment) {
        if at < self.watched {
            self.watched = at;
            timers.schedule(at, Timer::Turns { service: key });
        }
    }

    /// Whether an engine alone leads the clients: none ask this queue.
    fn is_only_exported(&self, now: Moment) -> bool {
        now < self.exported_until && self.asked_at.is_none_or(|at| now.since(at) >= ASKED_MEMORY)
    }

    fn plugin_ready(&self) -> bool {
        self.plugin.as_ref().is_some_and(|(_, up)| *up)
    }
}

/// What an id of a connection stands for.
#[derive(Debug)]
enum RequestState {
    Active { service: Key, grant: Grant },
    Waiting { service: Key, position: u64 },
}

#[derive(Debug)]
struct ConnectionState {
    key: Key,
    peer: IpAddr,
    /// It is of this process.
    is_local: bool,
    /// The key that it proved to have; none: it is plain.
    peer_key: Option<Arc<PeerKey>>,
    requests: IdMap<RequestState>,
    /// Waiting requests without id.
    waiting_uncounted: BTreeSet<(Key, u64)>,
    /// It has ended its side, or the whole connection: that is not known yet.
    read_closed: bool,
    /// Tickets spent for it since then.
    unconfirmed: Vec<(Key, Grant)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// A program should have answered; before the end of a wait at the same time.
    PluginTimeout {
        service: Key,
        position: u64,
    },
    WaitTimeout {
        service: Key,
        position: u64,
    },
    /// Time alone changes what can be granted.
    Turns {
        service: Key,
    },
}

/// The tickets of a balancer, as a state machine.
#[derive(Default)]
pub struct TicketQueue {
    options: QueueOptions,
    services: Slab<ServiceState>,
    by_name: HashMap<ServiceName, Key>,
    /// By the slot number of the connection's key.
    connections_by_slot: Vec<Option<ConnectionState>>,
    connections: usize,
    timers: TimerQueue<Timer>,
    /// The waiting requests for which programs are asked, by the number of the question.
    questions: HashMap<u64, (Key, u64)>,
    questions_asked: u64,
    affinity: Affinity,
    key_records: KeyRecords,
    /// For schedulers that throw dice; another one for each.
    seed: u64,
    waiting: usize,
    /// Waiting requests of each source, in all services.
    sources: Counts,
    /// Ids in use on all connections.
    ids: usize,
    /// Requests of connections that are gone, still to be ended: their service, and whose
    /// they were.
    departed: VecDeque<(Key, Grant, IpAddr)>,
    swept: Moment,
    draining: bool,
    outputs: VecDeque<Output>,
    requests_total: u64,
    granted: u64,
    refused: u64,
    forgotten: u64,
}

impl StateMachine for TicketQueue {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Connected { connection, peer } => {
                self.connected(connection, peer.to_canonical(), false)
            }
            Input::LocalConnected { connection } => {
                self.connected(connection, Ipv4Addr::LOCALHOST.into(), true)
            }
            Input::Authenticated { connection, key } => self.authenticated(connection, key),
            Input::AuthenticationFailed => self.key_records.refusals += 1,
            Input::KeysChanged(keys) => self.keys_changed(&keys, now),
            Input::Request { connection, slot, request } => {
                self.on_request(connection, slot, request, now)
            }
            Input::ReadClosed { connection } => self.disconnect(connection, false, now),
            Input::SendFailed { connection } => self.refund_unconfirmed(connection, now),
            Input::Disconnected { connection } => {
                self.disconnect(connection, true, now);
                if self.connection(connection).is_some() {
                    self.connections_by_slot[connection.index()] = None;
                    self.connections -= 1;
                }
            }
            Input::PluginState { service, up } => self.set_plugin_up(service, up, now),
            Input::PluginReply { service, line } => self.plugin_replied(service, &line, now),
            Input::Reconfigure(options) => self.reconfigure(*options, now),
            Input::Drain => {
                self.draining = true;
                for service in self.services.keys() {
                    while let Some((position, ())) = self
                        .services
                        .get(service)
                        .and_then(|state| state.waiting.next_to_serve(now, |_| Some(())))
                    {
                        self.reject(service, position, ErrorCode::Draining);
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        self.end_departed(now);
        // Many that come due together must not keep others waiting.
        for _ in 0..WORK_PER_TURN {
            let Some(timer) = self.timers.pop_due(now) else { break };
            match timer {
                Timer::PluginTimeout { service, position } => {
                    self.plugin_timed_out(service, position, now)
                }
                Timer::WaitTimeout { service, position } => {
                    self.wait_timed_out(service, position, now)
                }
                Timer::Turns { service } => {
                    if let Some(state) = self.services.get_mut(service) {
                        state.watched = Moment::NEVER;
                    }
                    self.serve_waiting(service, now);
                }
            }
        }
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let sweep = (!self.services.is_empty()).then(|| self.swept + SWEEP);
        let departed = (!self.departed.is_empty()).then_some(Moment::ZERO);
        self.timers.next_deadline().into_iter().chain(sweep).chain(departed).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// Refuses an offer of an address to which no client can connect, which may be that
/// of its connection.
fn check_provider(request: &Request, peer: IpAddr) -> Result<(), ProtocolError> {
    let Request::Ticket { provider, .. } = request else { return Ok(()) };
    provider
        .resolve(peer)
        .check_reachable()
        .map_err(|why| ProtocolError::new(ErrorCode::BadParameter, format!("provider: {why}")))
}

fn allows(list: &[Cidr], peer: IpAddr) -> bool {
    list.iter().any(|net| net.contains(peer))
}

impl TicketQueue {
    /// An empty queue; `seed` is for schedulers that throw dice.
    pub fn new(options: QueueOptions, seed: u64) -> TicketQueue {
        TicketQueue { options, seed, ..TicketQueue::default() }
    }

    /// Whether tickets were spent for this connection that come back if it turns
    /// out that the peer was gone before it heard of them.
    pub fn has_unconfirmed(&self, connection: Key) -> bool {
        self.connection(connection).is_some_and(|conn| !conn.unconfirmed.is_empty())
    }

    /// Whether this connection holds a position, or waits for one.
    pub fn has_requests(&self, connection: Key) -> bool {
        self.connection(connection)
            .is_some_and(|conn| !conn.requests.is_empty() || !conn.waiting_uncounted.is_empty())
    }

    fn connection(&self, connection: Key) -> Option<&ConnectionState> {
        self.connections_by_slot
            .get(connection.index())?
            .as_ref()
            .filter(|conn| conn.key == connection)
    }

    fn connection_mut(&mut self, connection: Key) -> Option<&mut ConnectionState> {
        self.connections_by_slot
            .get_mut(connection.index())?
            .as_mut()
            .filter(|conn| conn.key == connection)
    }

    fn connected(&mut self, key: Key, peer: IpAddr, own: bool) {
        let slot = key.index();
        if self.connections_by_slot.len() <= slot {
            self.connections_by_slot.resize_with(slot + 1, || None);
        }
        let conn = ConnectionState {
            key,
            peer,
            is_local: own,
            peer_key: None,
            requests: IdMap::default(),
            waiting_uncounted: BTreeSet::new(),
            read_closed: false,
            unconfirmed: Vec::new(),
        };
        self.connections += usize::from(self.connections_by_slot[slot].replace(conn).is_none());
    }

    fn on_request(&mut self, connection: Key, slot: ReplySlot, request: Request, now: Moment) {
        let Some(peer) = self.connection(connection).map(|conn| conn.peer) else { return };
        if let Err(error) = self.authorize(connection, &request) {
            let id = if let Request::Next(next) = &request { next.id } else { None };
            return self.reply(connection, slot, Reply::Error { error, id });
        }
        if let Err(error) = check_provider(&request, peer) {
            return self.reply(connection, slot, Reply::Error { error, id: None });
        }
        let reply = match request {
            Request::Next(next) => {
                return self.next(PendingNext { connection, slot, next, question: None }, now)
            }
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => {
                let provider = provider.resolve(peer);
                let lease = lease.unwrap_or(self.options.lease);
                let leaves = capacity == 0 && weight.is_none();
                let weight = weight.unwrap_or(Weight::of(f64::from(tickets)));
                let offer = Offer { provider, tickets, capacity, weight, lease };
                self.offer(connection, service, offer, leaves, now)
            }
            Request::Withdraw { provider, service } => {
                let provider = provider.resolve(peer);
                Ok(Reply::Discarded(self.withdraw(connection, service, provider, now)))
            }
            Request::Failure { provider, service, id } => {
                Ok(self.failure(connection, provider.resolve(peer), service, id, now))
            }
            Request::Done { id, result } => self.done(connection, id, result, now),
            Request::Drain { provider, service, duration } => {
                let drain_end = duration.map_or(Moment::NEVER, |duration| now + duration);
                self.drain(provider.resolve(peer), service, drain_end, now)
            }
            Request::Resume { provider, service } => {
                Ok(self.resume(provider.resolve(peer), service, now))
            }
            Request::Status { service, export } => {
                self.note_export(service, export, now);
                Ok(Reply::Status(self.status(service, now)))
            }
        };
        let reply = reply.unwrap_or_else(|error| Reply::Error { error, id: None });
        self.reply(connection, slot, reply);
    }

    /// A reader tells an engine of this service, or of all.
    fn note_export(&mut self, service: Option<ServiceName>, export: Option<Span>, now: Moment) {
        let Some(export) = export else { return };
        for key in self.services.keys() {
            let named = |state: &&mut ServiceState| service.is_none_or(|name| name == state.name);
            if let Some(state) = self.services.get_mut(key).filter(named) {
                state.exported_until = state.exported_until.max(now + export.min(EXPORT_MAX));
            }
        }
    }

    fn reply(&mut self, connection: Key, slot: ReplySlot, reply: Reply) {
        self.outputs.push_back(Output::Reply { connection, slot, reply });
    }

    /// The state of a service that has providers, opened if there is room for it.
    fn open_service(&mut self, service: ServiceName) -> Option<Key> {
        let known = self.by_name.get(&service).copied();
        let is_open = |key: Key| self.services.get(key).is_some_and(|state| state.opened);
        if known.is_some_and(is_open) {
            return known;
        }
        let opened = self.services.iter().filter(|(_, state)| state.opened).count();
        if opened >= self.options.services_max {
            return None;
        }
        let key = known.unwrap_or_else(|| self.add_service(service));
        let command = self.scheduler(service).command().cloned();
        if let Some(state) = self.services.get_mut(key) {
            state.opened = true;
            state.plugin = command.clone().map(|command| (command, false));
        }
        if command.is_some() {
            self.outputs.push_back(Output::StartPlugin { service, command });
        }
        Some(key)
    }

    /// The state of a service for which a request may wait, whether it is offered or not.
    fn awaited_service(&mut self, service: ServiceName) -> Option<Key> {
        if let Some(key) = self.by_name.get(&service) {
            return Some(*key);
        }
        let unoffered =
            |queue: &TicketQueue| queue.services.iter().filter(|(_, state)| !state.opened).count();
        if unoffered(self) >= UNOFFERED_MAX {
            self.services.keys().into_iter().for_each(|key| self.forget_if_empty(key));
        }
        (unoffered(self) < UNOFFERED_MAX).then(|| self.add_service(service))
    }

    fn add_service(&mut self, service: ServiceName) -> Key {
        let scheduler = self.scheduler(service);
        let pool = ProviderPool::new(self.make_scheduler(&scheduler));
        let key = self.services.insert(ServiceState {
            name: service,
            pool,
            waiting: WaitQueue::default(),
            opened: false,
            plugin: None,
            granted: 0,
            refused: 0,
            watched: Moment::NEVER,
            exported_until: Moment::ZERO,
            asked_at: None,
            search: SearchState::default(),
            sources: Counts::default(),
        });
        self.by_name.insert(service, key);
        key
    }

    /// Forgets a service without a provider or a request; without a provider it is not
    /// offered any more.
    fn forget_if_empty(&mut self, key: Key) {
        let Some(state) = self.services.get_mut(key).filter(|state| state.pool.is_empty()) else {
            return;
        };
        let (name, is_over) = (state.name, state.waiting.is_empty());
        state.opened = false;
        if state.plugin.is_some() {
            self.set_plugin_up(name, false, self.swept);
            if let Some(state) = self.services.get_mut(key) {
                state.plugin = None;
            }
            self.outputs.push_back(Output::StartPlugin { service: name, command: None });
        }
        if is_over {
            self.by_name.remove(&name);
            self.services.remove(key);
        }
    }

    fn make_scheduler(&mut self, scheduler: &SchedulerName) -> Box<dyn Scheduler> {
        self.seed = self.seed.wrapping_add(1);
        scheduler.make(self.seed)
    }

    fn scheduler(&self, service: ServiceName) -> SchedulerName {
        self.options
            .schedulers
            .iter()
            .find(|(name, _)| *name == service)
            .map_or(self.options.scheduler.clone(), |(_, scheduler)| scheduler.clone())
    }

    /// Whether this connection could still say something.
    fn alive(&self, connection: Option<Key>) -> bool {
        connection
            .and_then(|connection| self.connection(connection))
            .is_some_and(|conn| !conn.read_closed)
    }

    fn member(&mut self, service: ServiceName, provider: Provider) -> Option<&mut PoolMember> {
        let key = self.by_name.get(&service).copied()?;
        self.services.get_mut(key)?.pool.member_mut(provider)
    }

    /// The other connection that is alive and offered this provider last.
    fn other_owner(
        &mut self,
        connection: Key,
        service: ServiceName,
        provider: Provider,
    ) -> Option<Key> {
        let owner = self.member(service, provider)?.owner.filter(|owner| *owner != connection);
        owner.filter(|owner| self.alive(Some(*owner)))
    }

    /// Whether an offer stays although this connection withdraws it: because
    /// another one is alive that offered it later, or did before.
    fn stays(&mut self, connection: Key, service: ServiceName, provider: Provider) -> bool {
        if self.other_owner(connection, service, provider).is_some() {
            return true;
        }
        let rival = self.member(service, provider).and_then(|member| member.rival.take());
        let rival = rival.filter(|rival| *rival != connection && self.alive(Some(*rival)));
        if let Some(member) = self.member(service, provider).filter(|_| rival.is_some()) {
            member.owner = rival;
        }
        rival.is_some()
    }

    fn withdraw(
        &mut self,
        connection: Key,
        service: ServiceName,
        provider: Provider,
        now: Moment,
    ) -> u64 {
        if self.stays(connection, service, provider) {
            return 0;
        }
        self.discard_offer(service, provider, now)
    }

    fn discard_offer(&mut self, service: ServiceName, provider: Provider, now: Moment) -> u64 {
        let state = self.by_name.get(&service).copied().and_then(|key| self.services.get_mut(key));
        let discarded = state.map_or(0, |state| state.pool.withdraw(provider, now));
        self.log_presence_change(service, provider, ProviderEvent::Withdrew);
        discarded
    }

    fn offer(
        &mut self,
        connection: Key,
        service: ServiceName,
        offer: Offer,
        leaves: bool,
        now: Moment,
    ) -> Result<Reply, ProtocolError> {
        let key = self
            .open_service(service)
            .ok_or(ProtocolError::new(ErrorCode::Busy, "too many services"))?;
        self.admit_provider(key, connection, offer.provider, now)?;
        let (offer, tickets_max, lease_max) = self.within_bounds(offer);
        let source = self.provider_source(connection, offer.provider);
        let other = self.other_owner(connection, service, offer.provider);
        let stays = leaves && self.stays(connection, service, offer.provider);
        let alive = self.alive(Some(connection));
        let Some(state) = self.services.get_mut(key) else { return Ok(Reply::Ok) };
        if stays {
            // It asks how its requests are; what another one offers is not its business.
            return Ok(Reply::Feedback(state.pool.feedback(offer.provider)));
        }
        let mut feedback = state.pool.offer(offer, now);
        state.pool.set_source(offer.provider, source);
        feedback.contested = other.is_some();
        (feedback.tickets_max, feedback.lease_max) = (tickets_max, lease_max);
        if state.is_only_exported(now) {
            feedback.mode = Mode::Engine;
            feedback.share = Some(state.pool.share(offer.provider, now));
        }
        if let Some(progress) = &mut feedback.progress {
            progress.queued = state.waiting.len() as u64;
        }
        let mut news = false;
        if let Some(member) = state.pool.member_mut(offer.provider) {
            member.owner = Some(connection).filter(|_| alive && !leaves);
            member.rival = other.or(member.rival);
            news = other.is_some() && !std::mem::replace(&mut member.contested, other.is_some());
        }
        self.note_registered(connection, service, offer.provider);
        self.send_offer(key, &offer);
        if news {
            self.log(service, offer.provider, ProviderEvent::Contested);
        }
        self.log_presence_change(
            service,
            offer.provider,
            if leaves { ProviderEvent::Withdrew } else { ProviderEvent::Registered },
        );
        self.serve_waiting(key, now);
        Ok(Reply::Feedback(feedback))
    }

    /// Tells the operator what happened to a provider, and by which key it came.
    fn log(&mut self, service: ServiceName, provider: Provider, event: ProviderEvent) {
        let key = self.registered_by(service, provider);
        self.outputs.push_back(Output::Log(QueueLog { event, service, provider, key }));
    }

    /// Notes what happened to a provider, if the log does not know it yet.
    fn log_presence_change(
        &mut self,
        service: ServiceName,
        provider: Provider,
        event: ProviderEvent,
    ) {
        let state = self.by_name.get(&service).and_then(|key| self.services.get_mut(*key));
        if let Some(member) = state.and_then(|state| state.pool.member_mut(provider)) {
            let present = event == ProviderEvent::Registered;
            if member.present != present {
                member.present = present;
                self.log(service, provider, event);
                self.send_event(service, provider, event);
            }
        }
    }

    fn next(&mut self, pending: PendingNext, now: Moment) {
        self.requests_total += 1;
        let id = pending.next.id;
        let Some(conn) = self.connection(pending.connection) else { return };
        let refused = if self.draining {
            Some(ProtocolError::new(ErrorCode::Draining, ""))
        } else if id.is_some_and(|id| conn.requests.contains(id)) {
            Some(ProtocolError::new(ErrorCode::BadParameter, "this id is in use"))
        } else if id.is_some() && self.lacks_ids(conn) {
            Some(ProtocolError::new(ErrorCode::Busy, "too many ids in use"))
        } else {
            None
        };
        if let Some(error) = refused {
            return self.refuse(&pending, error);
        }
        let wait = pending.next.wait.min(self.options.wait_max);
        let key = if wait.is_zero() {
            self.by_name.get(&pending.next.service).copied()
        } else {
            self.awaited_service(pending.next.service)
        };
        let Some(key) = key else {
            let code = if wait.is_zero() { ErrorCode::NoTicket } else { ErrorCode::Crowded };
            return self.refuse(&pending, ProtocolError::new(code, ""));
        };
        if let Some(state) = self.services.get_mut(key) {
            state.asked_at = Some(now);
        }
        self.serve_if_changed(key, now);
        let may_wait =
            self.services.get(key).is_some_and(|s| s.waiting.len() < self.options.waiting_max);
        if may_wait
            && self.sticky_provider(key, &pending, now).is_none()
            && self.worth_asking_plugin(key, &pending, now)
        {
            return self.ask_plugin(key, pending, wait, now);
        }
        let patient = !wait.is_zero();
        if self.try_grant(key, &pending, patient, now) {
            // What it took cannot help those that wait.
            if let Some(state) = self.services.get_mut(key) {
                state.search.done_at = state.pool.changes(now);
            }
            return;
        }
        let Some(state) = self.services.get_mut(key) else { return };
        state.pool.waited += 1;
        if wait.is_zero() {
            return self.refuse(&pending, ProtocolError::new(ErrorCode::NoTicket, ""));
        }
        if !self.make_room_to_wait(key, pending.connection) {
            return self.refuse(&pending, ProtocolError::new(ErrorCode::Crowded, ""));
        }
        let position = self.enqueue(key, pending, now + wait, now);
        self.timers.schedule(now + wait, Timer::WaitTimeout { service: key, position });
        self.watch_newcomer(key, position, now);
    }

    fn reconfigure(&mut self, options: QueueOptions, now: Moment) {
        let before: Vec<_> =
            self.services.iter().map(|(key, state)| (key, self.scheduler(state.name))).collect();
        self.options = options;
        for (key, before) in before {
            let Some(name) = self.services.get(key).map(|state| state.name) else { continue };
            let after = self.scheduler(name);
            if after == before {
                continue;
            }
            let scheduler = self.make_scheduler(&after);
            if let Some(state) = self.services.get_mut(key) {
                state.pool.set_scheduler(scheduler);
                if !state.opened {
                    continue;
                }
                state.plugin = after.command().map(|command| (command.clone(), false));
                self.outputs.push_back(Output::StartPlugin {
                    service: name,
                    command: after.command().cloned(),
                });
                // What the old program was asked, the new one will not answer.
                self.set_plugin_up(name, false, now);
            }
        }
    }

    fn sweep(&mut self, now: Moment) {
        for key in self.services.keys() {
            self.sweep_service(key, now);
            self.forget_if_empty(key);
        }
        self.affinity.sweep(now);
        self.sweep_key_records();
    }

    fn sweep_service(&mut self, key: Key, now: Moment) {
        let Some(state) = self.services.get_mut(key) else { return };
        let over =
            state.pool.members_mut().filter(|member| member.present && now >= member.lease_end);
        let over: Vec<Provider> = over.map(|member| member.stats.provider).collect();
        let service = state.name;
        for provider in over {
            self.log_presence_change(service, provider, ProviderEvent::LeaseEnded);
        }
        if let Some(state) = self.services.get_mut(key) {
            state.pool.sweep(now);
        }
    }
}

mod authority;
mod bounds;
#[cfg(test)]
mod drain_tests;
mod drains;
#[cfg(test)]
mod endurance_tests;
mod grants;
mod interface;
mod key_records;
mod plugin;
#[cfg(test)]
mod plugin_tests;
mod shares;
mod status;
#[cfg(test)]
mod tests;
