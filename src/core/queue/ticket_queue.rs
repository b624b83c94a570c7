//! The ticket queue of a balancer, as a state machine.
//!
//! Owns the services, the connections that ask and what each of them holds,
//! who may say what, and the bounds of it all. Every `next` gets exactly one
//! answer. Knows no socket: an answer is an output.

use super::affinity::Affinity;
use super::book::{Book, Entry, Grant};
use super::waiting::WaitingLine;
use crate::base::address::{Cidr, Named, Provider};
use crate::base::machine::Machine;
use crate::base::name::Service;
use crate::base::roster::Roster;
use crate::base::slab::{Key, Slab};
use crate::base::ticket::{Offer, Weight};
use crate::base::time::{Moment, Span};
use crate::base::timers::Timers;
use crate::schedule::registry::SchedulerName;
use crate::schedule::scheduler::Scheduler;
use crate::wire::channel::Order;
use crate::wire::message::{Next, Reason, Refusal, Reply, Request};
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
    order: Order,
    next: Next,
    /// A program is asked where it should go.
    consulting: bool,
}

struct Room {
    name: Service,
    book: Book,
    waiting: WaitingLine<Ask>,
    /// The program that schedules, and whether it can be asked.
    plugin: Option<(Arc<str>, bool)>,
    granted: u64,
    refused: u64,
    /// When it will be looked whether time alone has made a candidate.
    watched: Moment,
}

impl Room {
    /// Lets time alone be looked at then, unless it will be earlier.
    fn watch(&mut self, timers: &mut Timers<Timer>, key: Key, at: Moment) {
        if at < self.watched {
            self.watched = at;
            timers.set(at, Timer::Turns { room: key });
        }
    }

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
    /// Whoever waits now has waited half of its time.
    Half {
        room: Key,
        place: u64,
    },
    /// Time alone changes what can be granted.
    Turns {
        room: Key,
    },
}

/// See the file's head.
#[derive(Default)]
pub struct TicketQueue {
    options: QueueOptions,
    rooms: Slab<Room>,
    by_name: Roster<Service, Key>,
    /// By the slot number of the connection's key.
    askers: Vec<Option<Asker>>,
    connections: usize,
    timers: Timers<Timer>,
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

impl Machine for TicketQueue {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Moment) {
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
                        self.turn_away(room, place, Reason::Draining);
                    }
                }
            }
        }
    }

    fn expire(&mut self, now: Moment) {
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Advised { room, place } => self.advice_is_late(room, place, now),
                Timer::Waited { room, place } => self.turn_away(room, place, Reason::NoTicket),
                Timer::Half { room, .. } => self.serve(room, now),
                Timer::Turns { room } => {
                    if let Some(room) = self.rooms.get_mut(room) {
                        room.watched = Moment::NEVER;
                    }
                    self.serve(room, now);
                }
            }
        }
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let sweep = (!self.rooms.is_empty()).then(|| self.swept + SWEEP);
        self.timers.next().into_iter().chain(sweep).min()
    }

    fn poll(&mut self) -> Option<Output> {
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

    fn asked(&mut self, connection: Key, order: Order, request: Request, now: Moment) {
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
            let refusal = Refusal::new(Reason::Denied, denial);
            return self.answer(connection, order, Reply::Error { refusal, id });
        }
        let reply = match request {
            Request::Next(next) => return self.next(Ask { connection, order, next, consulting: false }, now),
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => {
                self.its_own(provider, peer).and_then(|provider| {
                    let lease = lease.unwrap_or(self.options.lease);
                    let leaves = capacity == 0 && weight.is_none();
                    let weight = weight.unwrap_or(Weight::of(f64::from(tickets)));
                    let offer = Offer { provider, tickets, capacity, weight, lease };
                    self.offer(connection, service, offer, leaves, now)
                })
            }
            Request::Withdraw { provider, service } => self
                .its_own(provider, peer)
                .map(|provider| Reply::Discarded(self.withdraw(connection, service, provider, now))),
            Request::Failure { provider, service, id } => {
                Ok(self.failure(connection, provider.seen_from(peer), service, id, now))
            }
            Request::Done { id, result } => self.done(connection, id, result, now),
            Request::Status { service } => Ok(Reply::Status(self.status(service, now))),
        };
        let reply = reply.unwrap_or_else(|refusal| Reply::Error { refusal, id: None });
        self.answer(connection, order, reply);
    }

    fn answer(&mut self, connection: Key, order: Order, reply: Reply) {
        self.outputs.push_back(Output::Answer { connection, order, reply });
    }

    /// The provider that `peer` speaks for: itself, or (from this host) any.
    fn its_own(&self, provider: Named, peer: IpAddr) -> Result<Provider, Refusal> {
        let provider = provider.seen_from(peer);
        if provider.ip == peer || peer.is_loopback() {
            return Ok(provider);
        }
        Err(Refusal::new(Reason::Denied, "a provider may speak for its own address only"))
    }

    /// The room of a service, opened if there is space for it.
    fn room(&mut self, service: Service) -> Option<Key> {
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
            watched: Moment::NEVER,
        });
        self.by_name.put(service, room);
        Some(room)
    }

    fn make(&mut self, scheduler: &SchedulerName) -> Box<dyn Scheduler> {
        self.seed = self.seed.wrapping_add(1);
        scheduler.make(self.seed)
    }

    fn scheduler(&self, service: Service) -> SchedulerName {
        self.options
            .schedulers
            .iter()
            .find(|(name, _)| *name == service)
            .map_or(self.options.scheduler.clone(), |(_, scheduler)| scheduler.clone())
    }

    /// Whether this connection could still say something.
    fn alive(&self, connection: Option<Key>) -> bool {
        connection.and_then(|connection| self.asker(connection)).is_some_and(|asker| !asker.ended)
    }

    fn entry(&mut self, service: Service, provider: Provider) -> Option<&mut Entry> {
        let room = self.by_name.get(service).copied()?;
        self.rooms.get_mut(room)?.book.entry_mut(provider)
    }

    /// The other connection that is alive and offered this provider last.
    fn other_owner(&mut self, connection: Key, service: Service, provider: Provider) -> Option<Key> {
        let owner = self.entry(service, provider)?.owner.filter(|owner| *owner != connection);
        owner.filter(|owner| self.alive(Some(*owner)))
    }

    /// Whether an offer stays although this connection withdraws it: because
    /// another one is alive that offered it later, or did before.
    fn stays(&mut self, connection: Key, service: Service, provider: Provider) -> bool {
        if self.other_owner(connection, service, provider).is_some() {
            return true;
        }
        let rival = self.entry(service, provider).and_then(|entry| entry.rival.take());
        let rival = rival.filter(|rival| *rival != connection && self.alive(Some(*rival)));
        if let Some(entry) = self.entry(service, provider).filter(|_| rival.is_some()) {
            entry.owner = rival;
        }
        rival.is_some()
    }

    fn withdraw(&mut self, connection: Key, service: Service, provider: Provider, now: Moment) -> u64 {
        if self.stays(connection, service, provider) {
            return 0;
        }
        let room = self.by_name.get(service).copied().and_then(|room| self.rooms.get_mut(room));
        let discarded = room.map_or(0, |room| room.book.withdraw(provider, now));
        self.presence(service, provider, Event::Withdrew);
        discarded
    }

    fn offer(
        &mut self,
        connection: Key,
        service: Service,
        offer: Offer,
        leaves: bool,
        now: Moment,
    ) -> Result<Reply, Refusal> {
        let providers_max = self.options.providers_max;
        let key = self.room(service).ok_or(Refusal::new(Reason::Busy, "too many services"))?;
        let full = |room: &Room| room.book.len() >= providers_max && !room.book.knows(offer.provider);
        if self.rooms.get(key).is_some_and(full) {
            self.sweep_room(key, now);
        }
        let other = self.other_owner(connection, service, offer.provider);
        let stays = leaves && self.stays(connection, service, offer.provider);
        let alive = self.alive(Some(connection));
        let Some(room) = self.rooms.get_mut(key) else { return Ok(Reply::Ok) };
        if full(room) {
            return Err(Refusal::new(Reason::Busy, "too many providers"));
        }
        if stays {
            // It asks how its requests are; what another one offers is not its business.
            return Ok(Reply::Standing(room.book.standing(offer.provider)));
        }
        let mut standing = room.book.offer(offer, now);
        standing.contested = other.is_some();
        let mut news = false;
        if let Some(entry) = room.book.entry_mut(offer.provider) {
            entry.owner = Some(connection).filter(|_| alive && !leaves);
            entry.rival = other.or(entry.rival);
            news = other.is_some() && !std::mem::replace(&mut entry.contested, other.is_some());
        }
        self.tell_offer(key, &offer);
        if news {
            self.outputs.push_back(Output::Note(Note { event: Event::Contested, service, provider: offer.provider }));
        }
        self.presence(service, offer.provider, if leaves { Event::Withdrew } else { Event::Registered });
        self.serve(key, now);
        Ok(Reply::Standing(standing))
    }

    /// Notes what happened to a provider, if the log does not know it yet.
    fn presence(&mut self, service: Service, provider: Provider, event: Event) {
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
            Some(Refusal::new(Reason::Draining, ""))
        } else if id.is_some_and(|id| asker.ids.contains_key(&id)) {
            Some(Refusal::new(Reason::BadParameter, "this id is in use"))
        } else if asker.ids.len() >= IDS_MAX {
            Some(Refusal::new(Reason::Busy, "too many ids in use"))
        } else {
            None
        };
        if let Some(refusal) = refused {
            return self.refuse(&ask, refusal);
        }
        let wait = ask.next.wait.min(self.options.wait_max);
        let room =
            if wait.is_zero() { self.by_name.get(ask.next.service).copied() } else { self.room(ask.next.service) };
        let Some(key) = room else { return self.refuse(&ask, Refusal::new(Reason::NoTicket, "")) };
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
        let patient = !wait.is_zero();
        if self.try_grant(key, &ask, patient, now) {
            return;
        }
        let Some(room) = self.rooms.get_mut(key) else { return };
        room.book.waited += 1;
        if wait.is_zero() {
            return self.refuse(&ask, Refusal::new(Reason::NoTicket, ""));
        }
        if room.waiting.len() >= waiting_max {
            return self.refuse(&ask, Refusal::new(Reason::Crowded, ""));
        }
        let place = self.join(key, ask, now + wait, now);
        self.timers.set(now + wait.part(2), Timer::Half { room: key, place });
        self.timers.set(now + wait, Timer::Waited { room: key, place });
        self.serve(key, now);
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
