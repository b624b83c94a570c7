//! The ticket queue of a balancer, as a state machine.
//!
//! Owns the services, the connections that ask and what each of them holds,
//! who may say what, and the bounds of it all. Every `next` gets exactly one
//! answer. Knows no socket: an answer is an output.

use super::affinity::Affinity;
use super::book::{Book, Grant};
use super::waiting::WaitingLine;
use crate::base::address::{Cidr, Provider, ProviderSpec};
use crate::base::roster::Roster;
use crate::base::service_name::ServiceName;
use crate::base::slab::{Key, Slab};
use crate::base::state_machine::StateMachine;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::channel::ReplySlot;
use crate::protocol::message::{ErrorCode, Next, ProtocolError, Reply, Request};
use crate::scheduler::registry::SchedulerName;
use crate::scheduler::scheduler::Scheduler;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub use talk::{Event, Input, Note, Output, QueueOptions};

/// Requests with an id that one connection may have active or waiting.
pub const IDS_MAX: usize = 1 << 17;
/// How often providers whose lease ended are looked for.
const SWEEP: Span = Span::from_secs(1);

#[derive(Debug)]
struct Ask {
    connection: Key,
    order: ReplySlot,
    next: Next,
    /// A program is asked where it should go.
    consulting: bool,
}

struct Room {
    name: ServiceName,
    book: Book,
    waiting: WaitingLine<Ask>,
    /// The program that schedules, and whether it can be asked.
    plugin: Option<(Arc<str>, bool)>,
    granted: u64,
    refused: u64,
}

impl Room {
    fn can_consult(&self) -> bool {
        self.plugin.as_ref().is_some_and(|(_, up)| *up)
    }
}

/// What an id of a connection stands for.
#[derive(Debug)]
enum Held {
    Active { room: Key, grant: Grant, client: Option<IpAddr> },
    Waiting { room: Key, place: u64 },
}

#[derive(Debug)]
struct Asker {
    key: Key,
    peer: IpAddr,
    /// It is of this process.
    own: bool,
    ids: HashMap<u32, Held>,
    /// Waiting requests without id.
    plain: Vec<(Key, u64)>,
    /// It has ended its side, or hung up: nobody can tell yet.
    ended: bool,
    /// Tickets spent for it since then.
    unsure: Vec<(Key, Grant)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// A program should have answered; before the end of a wait at the same time.
    Advised {
        room: Key,
        place: u64,
    },
    Waited {
        room: Key,
        place: u64,
    },
    HoldEnds {
        room: Key,
    },
}

/// See the file's head.
#[derive(Default)]
pub struct TicketQueue {
    options: QueueOptions,
    rooms: Slab<Room>,
    by_name: Roster<ServiceName, Key>,
    /// By the slot number of the connection's key.
    askers: Vec<Option<Asker>>,
    connections: usize,
    timers: TimerQueue<Timer>,
    affinity: Affinity,
    /// For schedulers that throw dice; another one for each.
    seed: u64,
    waiting: usize,
    swept: Moment,
    draining: bool,
    outputs: VecDeque<Output>,
    asked: u64,
    granted: u64,
    refused: u64,
    forgotten: u64,
}

impl StateMachine for TicketQueue {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Came { connection, peer } => self.came(connection, peer.to_canonical(), false),
            Input::Joined { connection } => self.came(connection, Ipv4Addr::LOCALHOST.into(), true),
            Input::Asked { connection, order, request } => self.asked(connection, order, request, now),
            Input::Ended { connection } => self.hang_up(connection, false, now),
            Input::Undelivered { connection } => self.take_back(connection, now),
            Input::Gone { connection } => {
                self.hang_up(connection, true, now);
                if self.asker(connection).is_some() {
                    self.askers[connection.index()] = None;
                    self.connections -= 1;
                }
            }
            Input::Plugin { service, up } => self.plugin_turned(service, up, now),
            Input::Advice { service, line } => self.advised(service, &line, now),
            Input::Reconfigure(options) => self.reconfigure(*options, now),
            Input::Drain => {
                self.draining = true;
                for room in self.rooms.keys() {
                    while let Some((place, ())) =
                        self.rooms.get(room).and_then(|room| room.waiting.first(now, |_| Some(())))
                    {
                        self.turn_away(room, place, ErrorCode::Draining);
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Advised { room, place } => self.advice_is_late(room, place, now),
                Timer::Waited { room, place } => self.turn_away(room, place, ErrorCode::NoTicket),
                Timer::HoldEnds { room } => self.serve(room, now),
            }
        }
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let sweep = (!self.rooms.is_empty()).then(|| self.swept + SWEEP);
        self.timers.next_deadline().into_iter().chain(sweep).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
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
    /// out that nobody was there to hear of them.
    pub fn unsure(&self, connection: Key) -> bool {
        self.asker(connection).is_some_and(|asker| !asker.unsure.is_empty())
    }

    /// Whether this connection holds a place, or waits for one.
    pub fn holds(&self, connection: Key) -> bool {
        self.asker(connection).is_some_and(|asker| !asker.ids.is_empty() || !asker.plain.is_empty())
    }

    fn asker(&self, connection: Key) -> Option<&Asker> {
        self.askers.get(connection.index())?.as_ref().filter(|asker| asker.key == connection)
    }

    fn asker_mut(&mut self, connection: Key) -> Option<&mut Asker> {
        self.askers.get_mut(connection.index())?.as_mut().filter(|asker| asker.key == connection)
    }

    fn came(&mut self, key: Key, peer: IpAddr, own: bool) {
        let slot = key.index();
        if self.askers.len() <= slot {
            self.askers.resize_with(slot + 1, || None);
        }
        let asker = Asker { key, peer, own, ids: HashMap::new(), plain: Vec::new(), ended: false, unsure: Vec::new() };
        self.connections += usize::from(self.askers[slot].replace(asker).is_none());
    }

    fn asked(&mut self, connection: Key, order: ReplySlot, request: Request, now: Moment) {
        let Some((peer, own)) = self.asker(connection).map(|asker| (asker.peer, asker.own)) else { return };
        let (list, denial) = match &request {
            Request::Ticket { .. } | Request::Withdraw { .. } => {
                (&self.options.allow_ticket, "this address is not in queue_allow_ticket")
            }
            Request::Next(_) | Request::Failure { .. } | Request::Done { .. } => {
                (&self.options.allow_next, "this address is not in queue_allow_next")
            }
            Request::Status { .. } => (&self.options.allow_status, "this address is not in queue_allow_status"),
        };
        if !own && !allows(list, peer) {
            let id = if let Request::Next(next) = &request { next.id } else { None };
            let refusal = ProtocolError::new(ErrorCode::Denied, denial);
            return self.answer(connection, order, Reply::Error { error: refusal, id });
        }
        let reply = match request {
            Request::Next(next) => return self.next(Ask { connection, order, next, consulting: false }, now),
            Request::Ticket { provider, service, tickets, capacity, lease } => {
                self.its_own(provider, peer).and_then(|provider| {
                    let lease = lease.unwrap_or(self.options.lease);
                    self.offer(service, Offer { provider, tickets, capacity, lease }, now)
                })
            }
            Request::Withdraw { provider, service } => self.its_own(provider, peer).map(|provider| {
                let room = self.by_name.get(service).copied();
                let discarded =
                    room.and_then(|room| self.rooms.get_mut(room)).map_or(0, |room| room.book.withdraw(provider, now));
                self.presence(service, provider, Event::Withdrew);
                Reply::Discarded(discarded)
            }),
            Request::Failure { provider, service, id } => {
                Ok(self.failure(connection, provider.resolve(peer), service, id, now))
            }
            Request::Done { id, unused } => self.done(connection, id, unused, now),
            Request::Status { service } => Ok(Reply::Status(self.status(service, now))),
        };
        let reply = reply.unwrap_or_else(|refusal| Reply::Error { error: refusal, id: None });
        self.answer(connection, order, reply);
    }

    fn answer(&mut self, connection: Key, order: ReplySlot, reply: Reply) {
        self.outputs.push_back(Output::Answer { connection, order, reply });
    }

    /// The provider that `peer` speaks for: itself, or (from this host) any.
    fn its_own(&self, provider: ProviderSpec, peer: IpAddr) -> Result<Provider, ProtocolError> {
        let provider = provider.resolve(peer);
        if provider.ip == peer || peer.is_loopback() {
            return Ok(provider);
        }
        Err(ProtocolError::new(ErrorCode::Denied, "a provider may speak for its own address only"))
    }

    /// The room of a service, opened if there is space for it.
    fn room(&mut self, service: ServiceName) -> Option<Key> {
        if let Some(room) = self.by_name.get(service) {
            return Some(*room);
        }
        if self.rooms.len() >= self.options.services_max {
            return None;
        }
        let scheduler = self.scheduler(service);
        let book = Book::new(self.make(&scheduler));
        let plugin = scheduler.command().map(|command| (command.clone(), false));
        if let Some((command, _)) = &plugin {
            self.outputs.push_back(Output::Engage { service, command: Some(command.clone()) });
        }
        let room = self.rooms.insert(Room {
            name: service,
            book,
            waiting: WaitingLine::default(),
            plugin,
            granted: 0,
            refused: 0,
        });
        self.by_name.put(service, room);
        Some(room)
    }

    fn make(&mut self, scheduler: &SchedulerName) -> Box<dyn Scheduler> {
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

    fn offer(&mut self, service: ServiceName, offer: Offer, now: Moment) -> Result<Reply, ProtocolError> {
        let providers_max = self.options.providers_max;
        let key = self.room(service).ok_or(ProtocolError::new(ErrorCode::Busy, "too many services"))?;
        let full = |room: &Room| room.book.len() >= providers_max && !room.book.knows(offer.provider);
        if self.rooms.get(key).is_some_and(full) {
            self.sweep_room(key, now);
        }
        let Some(room) = self.rooms.get_mut(key) else { return Ok(Reply::Ok) };
        if full(room) {
            return Err(ProtocolError::new(ErrorCode::Busy, "too many providers"));
        }
        let standing = room.book.offer(offer, now);
        self.tell_offer(key, &offer);
        self.presence(service, offer.provider, if offer.capacity == 0 { Event::Withdrew } else { Event::Registered });
        self.serve(key, now);
        Ok(Reply::Feedback(standing))
    }

    /// Notes what happened to a provider, if the log does not know it yet.
    fn presence(&mut self, service: ServiceName, provider: Provider, event: Event) {
        let room = self.by_name.get(service).and_then(|room| self.rooms.get_mut(*room));
        if let Some(entry) = room.and_then(|room| room.book.entry_mut(provider)) {
            let present = event == Event::Registered;
            if entry.present != present {
                entry.present = present;
                self.outputs.push_back(Output::Note(Note { event, service, provider }));
                self.tell_event(service, provider, event);
            }
        }
    }

    fn next(&mut self, ask: Ask, now: Moment) {
        self.asked += 1;
        let id = ask.next.id;
        let Some(asker) = self.asker(ask.connection) else { return };
        let refused = if self.draining {
            Some(ProtocolError::new(ErrorCode::Draining, ""))
        } else if id.is_some_and(|id| asker.ids.contains_key(&id)) {
            Some(ProtocolError::new(ErrorCode::BadParameter, "this id is in use"))
        } else if asker.ids.len() >= IDS_MAX {
            Some(ProtocolError::new(ErrorCode::Busy, "too many ids in use"))
        } else {
            None
        };
        if let Some(refusal) = refused {
            return self.refuse(&ask, refusal);
        }
        let wait = ask.next.wait.min(self.options.wait_max);
        let room =
            if wait.is_zero() { self.by_name.get(ask.next.service).copied() } else { self.room(ask.next.service) };
        let Some(key) = room else { return self.refuse(&ask, ProtocolError::new(ErrorCode::NoTicket, "")) };
        // Who comes later is served later: whoever waits goes first.
        let crowd = self.rooms.get(key).is_some_and(|room| !room.waiting.is_empty());
        if crowd {
            self.serve(key, now);
        }
        let waiting_max = self.options.waiting_max;
        let room_to_ask = self.rooms.get(key).is_some_and(|room| room.waiting.len() < waiting_max);
        if room_to_ask && self.home(key, &ask, now).is_none() && self.worth_asking(key, &ask, now) {
            return self.consult(key, ask, wait, now);
        }
        if self.try_grant(key, &ask, now) {
            return;
        }
        let Some(room) = self.rooms.get_mut(key) else { return };
        room.book.waited += 1;
        if wait.is_zero() {
            return self.refuse(&ask, ProtocolError::new(ErrorCode::NoTicket, ""));
        }
        if room.waiting.len() >= waiting_max {
            return self.refuse(&ask, ProtocolError::new(ErrorCode::Crowded, ""));
        }
        let place = self.join(key, ask, now + wait, now);
        self.timers.schedule(now + wait, Timer::Waited { room: key, place });
    }

    fn reconfigure(&mut self, options: QueueOptions, now: Moment) {
        let before: Vec<_> = self.rooms.iter().map(|(key, room)| (key, self.scheduler(room.name))).collect();
        self.options = options;
        for (key, before) in before {
            let Some(name) = self.rooms.get(key).map(|room| room.name) else { continue };
            let after = self.scheduler(name);
            if after == before {
                continue;
            }
            let scheduler = self.make(&after);
            if let Some(room) = self.rooms.get_mut(key) {
                room.book.set_scheduler(scheduler);
                room.plugin = after.command().map(|command| (command.clone(), false));
                self.outputs.push_back(Output::Engage { service: name, command: after.command().cloned() });
                // What the old program was asked, the new one will not answer.
                self.plugin_turned(name, false, now);
            }
        }
    }

    fn sweep(&mut self, now: Moment) {
        for key in self.rooms.keys() {
            self.sweep_room(key, now);
            let empty = |room: &&Room| room.book.is_empty() && room.waiting.is_empty();
            if let Some(name) = self.rooms.get(key).filter(empty).map(|room| room.name) {
                self.by_name.remove(name);
                if self.rooms.remove(key).is_some_and(|room| room.plugin.is_some()) {
                    self.outputs.push_back(Output::Engage { service: name, command: None });
                }
            }
        }
        self.affinity.sweep(now);
    }

    fn sweep_room(&mut self, key: Key, now: Moment) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let over = room.book.entries_mut().filter(|entry| entry.present && now >= entry.lease_end);
        let over: Vec<Provider> = over.map(|entry| entry.record.provider).collect();
        let service = room.name;
        for provider in over {
            self.presence(service, provider, Event::LeaseEnded);
        }
        if let Some(room) = self.rooms.get_mut(key) {
            room.book.sweep(now);
        }
    }
}

#[cfg(test)]
mod choices;
mod external;
mod places;
mod report;
mod talk;
#[cfg(test)]
mod tests;
