//! The hands of the redirector: one loop's clients, providers and queue.
//!
//! Owns the clients' sockets, the calls to providers and the timeouts of the
//! relay. Whom a client is led to is the machine's business, and the moving of
//! bytes the pump's.

use super::asker::Asker;
use super::doors::Door;
use super::fallbacks::Fallbacks;
use super::notes::tell;
use super::proxied::{Met, Proxied, Visitor};
use super::scarcity::Scarcity;
use super::stay::Staying;
use super::steward::Order;
use super::Crew;
use crate::command::daemon::Shares;
use crate::command::settings::Settings;
use crate::net::accept::{Came, Listeners};
use crate::net::drive::{Desk, Hands};
use crate::net::peer::News;
use crate::net::pump::{Called, Link, Pumped, Tools, EVERYTHING};
use crate::net::tally::{Counted, Tally};
use crate::os::connect::connect;
use crate::os::socket::{self, Socket};
use log::{debug, error, warn};
use mio::event::Event;
use mio::net::TcpStream;
use mio::Token;
use pegasus_core::base::machine::Machine;
use pegasus_core::base::name::Service;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::base::timers::Timers;
use pegasus_core::redirect::redirector::{Failure, Input, Output, Redirector};
use pegasus_core::redirect::sources::Source;
use pegasus_core::wire::channel::Answer;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Probes are worth four calls only where a connection lasts longer than this.
const KEEPALIVE_AFTER: Span = Span::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its front proxy has not said yet who it is.
    Arriving,
    Waiting,
    Calling,
    Relaying,
}

struct Client {
    link: Link,
    stage: Stage,
    /// The last byte either way.
    touched: Moment,
    half_closed: bool,
    /// It is among those that are pumped when this turn is settled.
    again: bool,
    /// Where it is counted.
    source: Option<Source>,
    _counted: Counted,
}

impl Client {
    /// It is pumped once more, when this turn is settled.
    fn pump_again(&mut self, key: Key, list: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.again, true) {
            list.push(key);
        }
    }
}

/// See the file's head.
pub struct Relay {
    queue: Asker,
    listeners: Listeners<Service>,
    clients: Slab<Client>,
    again: Vec<Key>,
    timers: Timers<Key>,
    tools: Tools,
    settings: Arc<Settings>,
    /// Clients of all threads.
    count: Tally,
    /// Flows of datagrams, which another loop has.
    flows: Arc<AtomicUsize>,
    clients_max: usize,
    scarcity: Scarcity,
    fallbacks: Fallbacks,
    proxied: Proxied,
    staying: Staying,
}

enum Kind {
    Client,
    Provider,
    Listener,
    Queue,
}

fn token(number: usize, kind: Kind) -> Token {
    Token(number * 4 + kind as usize)
}

impl Hands for Relay {
    type Machine = Redirector;
    type Order = Order;

    fn ready(&mut self, event: &Event, machine: &mut Redirector, desk: &mut Desk) {
        let Token(token) = event.token();
        let number = token / 4;
        if token % 4 == Kind::Listener as usize {
            return self.listeners.ready(number);
        }
        if token % 4 == Kind::Queue as usize {
            self.queue.ready(event, desk);
            return self.hear(machine, desk);
        }
        let Some(key) = self.clients.key_at(number) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        if token % 4 == Kind::Client as usize {
            let there = client.link.client_event(event);
            if client.stage == Stage::Arriving {
                let met = self.proxied.hear(key, &mut client.link);
                return self.met(key, met, machine, desk);
            }
            if !there && client.stage != Stage::Relaying {
                machine.handle(Input::GaveUp { client: key }, desk.now);
            }
        } else {
            client.link.provider_event(event);
            if client.stage == Stage::Calling {
                self.called(key, machine, desk);
            }
        }
        self.pump(key, machine, desk);
    }

    fn act(&mut self, output: Output, machine: &mut Redirector, desk: &mut Desk) {
        match output {
            Output::Say(request) => {
                self.queue.ask(request, desk.now);
                self.hear(machine, desk);
            }
            Output::Connect { client, to } => self.call(client, to, machine, desk),
            Output::HangUp { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.stage = Stage::Waiting;
                    client.link.drop_provider();
                }
            }
            Output::TurnAway { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.link.drop_provider();
                    client.link.reset_client();
                }
                self.drop_client(client);
            }
            Output::Note(note) => tell(&note, self.proxied.is_check(&note)),
        }
    }

    fn order(&mut self, order: Order, machine: &mut Redirector, desk: &mut Desk) {
        match order {
            Order::Terminate if self.staying.is_ending() => self.staying.end(Span::ZERO, desk.now),
            Order::Terminate | Order::HandOver => {
                if self.staying.lingers() {
                    // Whoever waits there is its starter's business again.
                    self.listeners.close();
                }
                self.listeners.leave_all(desk.now);
                self.staying.end(self.settings.drain_timeout, desk.now);
            }
            Order::Doors(change) => {
                change.closed.iter().for_each(|number| self.listeners.leave(*number, desk.now));
                change.given.iter().for_each(|(number, service)| self.listeners.give(*number, *service));
                for door in &change.opened {
                    if let Err(error) = self.listen(door, desk) {
                        error!(target: "redirect", "{}: {error}", door.place);
                    }
                }
            }
            Order::Reconfigure(settings) => {
                machine.handle(Input::Reconfigure(settings.redirect_options()), desk.now);
                let shares = Shares::of(&settings);
                self.clients_max = shares.clients;
                self.tools.allow_pipes(shares.pipes);
                self.fallbacks = Fallbacks::new(&settings);
                self.proxied.reconfigure(&settings);
                self.queue.reconfigure(&settings);
                self.settings = settings;
                // Who is here may have less time from now on.
                self.timers = Timers::default();
                for key in self.clients.keys() {
                    let client = self.clients.get(key).filter(|client| client.stage == Stage::Relaying);
                    let Some(most) = client.map(|client| self.silence_max(client)) else { continue };
                    self.timers.set(desk.now + most.min(KEEPALIVE_AFTER), key);
                }
            }
        }
    }

    fn expire(&mut self, machine: &mut Redirector, desk: &mut Desk) {
        self.queue.expire(desk);
        self.hear(machine, desk);
        for (service, addresses) in self.fallbacks.resolve(desk) {
            machine.handle(Input::Fallback { service, addresses }, desk.now);
        }
        while let Some(key) = self.proxied.late(desk.now) {
            self.met(key, Met::Nobody, machine, desk);
        }
        while let Some(key) = self.timers.due(desk.now) {
            let Some(client) = self.clients.get(key).filter(|client| client.stage == Stage::Relaying) else { continue };
            client.link.keepalive();
            let deadline = client.touched + self.silence_max(client);
            if deadline > desk.now {
                self.timers.set(deadline, key);
            } else {
                let outcome = if client.half_closed { Outcome::HalfClosed } else { Outcome::Idle };
                self.finish(key, outcome, machine, desk);
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let own = [
            self.queue.deadline(),
            self.timers.next(),
            self.listeners.deadline(),
            self.fallbacks.deadline(),
            self.proxied.deadline(),
            self.scarcity.deadline(),
            self.staying.deadline(self.settings.redirect_linger),
        ];
        own.into_iter().flatten().min()
    }

    fn settle(&mut self, machine: &mut Redirector, desk: &mut Desk) -> bool {
        for key in std::mem::take(&mut self.again) {
            if let Some(client) = self.clients.get_mut(key) {
                client.again = false;
            }
            self.pump(key, machine, desk);
        }
        self.call_again(machine, desk);
        let most = if self.scarcity.is_short() { 0 } else { self.clients_max };
        let room = || self.count.enter(most);
        for came in self.listeners.accept(desk, room) {
            match came {
                Came::Client { of, port, stream, from, room } => {
                    self.admit(stream, Visitor::new(of, from, port), room, machine, desk);
                }
                Came::NoSocket(error) => warn!(target: "redirect", "accepting pauses: {error}"),
            }
        }
        if self.staying.leaves() {
            self.queue.hurry();
        }
        self.queue.flush(desk);
        self.hear(machine, desk);
        if self.staying.is_late(desk.now) {
            for key in self.clients.keys() {
                self.finish(key, Outcome::Drained, machine, desk);
            }
        }
        let all = self.count.count() + self.flows.load(Ordering::Relaxed);
        let linger = self.settings.redirect_linger;
        self.staying.is_over(self.clients.len(), all, self.queue.flushed(), linger, desk.now)
    }
}

impl Relay {
    /// Clients come to this door, if it is one of streams.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(&mut self, door: &Door, desk: &Desk) -> io::Result<()> {
        let Socket::Tcp(listener) = &*door.socket else { return Ok(()) };
        let token = token(door.number, Kind::Listener);
        self.listeners.add(door.number, door.service, listener.try_clone()?, token, desk)
    }

    /// Its settings.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Without clients yet. `seed` makes its jitter its own.
    ///
    /// # Errors
    /// Too many loops ask the queue of this process.
    pub fn new(crew: &Crew, seed: u64, desk: &Desk) -> io::Result<Relay> {
        let settings = crew.settings.clone();
        let shares = Shares::of(&settings);
        let mut tools = Tools::new(settings.redirect_splice, crew.pipes.clone());
        tools.allow_pipes(shares.pipes);
        Ok(Relay {
            queue: crew.asker(token(0, Kind::Queue), seed, desk)?,
            listeners: Listeners::default(),
            clients: Slab::default(),
            again: Vec::new(),
            timers: Timers::default(),
            tools,
            clients_max: shares.clients,
            scarcity: Scarcity::new(crew.sources.clone()),
            fallbacks: Fallbacks::new(&settings),
            proxied: Proxied::new(&settings),
            settings,
            count: crew.count.clone(),
            flows: crew.flows.clone(),
            staying: Staying::new(crew.stay),
        })
    }

    fn silence_max(&self, client: &Client) -> Span {
        let idle = self.settings.redirect_idle_timeout;
        if client.half_closed {
            idle.min(self.settings.redirect_half_closed_timeout)
        } else {
            idle
        }
    }

    /// Takes a client in.
    pub fn admit(
        &mut self,
        mut stream: TcpStream,
        visitor: Visitor,
        counted: Counted,
        machine: &mut Redirector,
        desk: &mut Desk,
    ) {
        let index = self.clients.next_index();
        if let Err(error) = desk.registry.register(&mut stream, token(index, Kind::Client), EVERYTHING) {
            warn!(target: "redirect", "{}: {error}", visitor.from);
            return;
        }
        let (link, stage, touched) = (Link::new(stream), Stage::Arriving, desk.now);
        let (half_closed, again, source) = Default::default();
        let client = Client { link, stage, touched, half_closed, again, source, _counted: counted };
        let key = self.clients.insert(client);
        debug_assert_eq!(key.index(), index);
        let Some(client) = self.clients.get_mut(key) else { return };
        let met = self.proxied.meet(key, visitor, &mut client.link, desk.now);
        self.met(key, met, machine, desk);
    }

    /// It is known who somebody is, or not yet, or not.
    fn met(&mut self, key: Key, met: Met, machine: &mut Redirector, desk: &mut Desk) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match met {
            Met::Client(Visitor { service, from, port }) => {
                match self.scarcity.enter(from, self.settings.redirect_per_source_max, desk.now) {
                    Ok(source) => client.source = source,
                    Err(()) => return self.met(key, Met::Nobody, machine, desk),
                }
                client.stage = Stage::Waiting;
                machine.handle(Input::Arrived { client: key, service, from, port }, desk.now);
            }
            Met::Waits => {}
            Met::Nobody => {
                client.link.reset_client();
                self.drop_client(key);
            }
        }
    }

    /// Calls a provider for a client, when it is its turn.
    fn call(&mut self, key: Key, to: SocketAddr, machine: &mut Redirector, desk: &mut Desk) {
        // Nobody gets a descriptor before those who wait for one.
        let called = (!self.scarcity.is_short()).then(|| self.try_call(key, to, machine, desk));
        if !matches!(called, Some(Ok(()))) {
            machine.handle(Input::Waits { client: key }, desk.now);
            self.scarcity.wait(key, to, called.and_then(Result::err).as_ref(), desk.now);
        }
    }

    /// Makes the calls that had to wait, as far as there are descriptors now.
    fn call_again(&mut self, machine: &mut Redirector, desk: &mut Desk) {
        while let Some((key, to)) = self.scarcity.next(desk.now) {
            if self.clients.get(key).is_none() {
                continue;
            }
            machine.handle(Input::Calls { client: key }, desk.now);
            if self.try_call(key, to, machine, desk).is_err() {
                machine.handle(Input::Waits { client: key }, desk.now);
                return self.scarcity.wait_on(key, to, desk.now);
            }
        }
    }

    /// Calls a provider.
    ///
    /// # Errors
    /// The system has no descriptor for that.
    fn try_call(
        &mut self,
        key: Key,
        to: SocketAddr,
        machine: &mut Redirector,
        desk: &mut Desk,
    ) -> Result<(), io::Error> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        client.stage = Stage::Calling;
        let called = client.link.call(&mut self.tools, |speaks_first| {
            let mut provider = connect(to, speaks_first)?;
            desk.registry.register(&mut provider, token(key.index(), Kind::Provider), EVERYTHING)?;
            io::Result::Ok(provider)
        });
        match called {
            Ok(Called::Calling) => {}
            Ok(Called::Connected) => {
                client.pump_again(key, &mut self.again);
                self.connected(key, machine, desk);
            }
            Ok(Called::Refused) => self.failed(key, Failure::Refused, machine, desk),
            Ok(Called::ClientGone) => machine.handle(Input::GaveUp { client: key }, desk.now),
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                if socket::out_of_sockets(&error) {
                    client.stage = Stage::Waiting;
                    self.tools.drop_pipes();
                    return Err(error);
                }
                // Nobody's fault, unless from here nobody there can be called at all.
                let stuck = socket::no_local_port(&error) && socket::has_address_for(to);
                let failed = Input::Failed { client: key, why: Failure::Refused };
                machine.handle(if stuck { Input::Stuck { client: key } } else { failed }, desk.now);
            }
        }
        Ok(())
    }

    /// A call was answered, or not.
    fn called(&mut self, key: Key, machine: &mut Redirector, desk: &mut Desk) {
        let Some(provider) = self.clients.get(key).and_then(|client| client.link.provider()) else { return };
        match provider.take_error() {
            Ok(None) if provider.peer_addr().is_ok() => self.connected(key, machine, desk),
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::TimedOut => Failure::TimedOut,
                    io::ErrorKind::ConnectionReset => Failure::Reset,
                    _ => Failure::Refused,
                };
                self.failed(key, why, machine, desk);
            }
        }
    }

    fn connected(&mut self, key: Key, machine: &mut Redirector, desk: &mut Desk) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.stage = Stage::Relaying;
        client.touched = desk.now;
        let deadline = desk.now + self.settings.redirect_idle_timeout.min(KEEPALIVE_AFTER);
        self.timers.set(deadline, key);
        if self.timers.len() > 4 * self.clients.len() + 1024 {
            let clients = &self.clients;
            self.timers.retain(|key| clients.get(key).is_some());
        }
        machine.handle(Input::Connected { client: key }, desk.now);
    }

    fn failed(&mut self, key: Key, why: Failure, machine: &mut Redirector, desk: &mut Desk) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stage = Stage::Waiting;
            client.half_closed = false;
            client.link.drop_provider();
            machine.handle(Input::Failed { client: key, why }, desk.now);
        }
    }

    /// Moves a client's bytes on, if it has a provider that answered.
    fn pump(&mut self, key: Key, machine: &mut Redirector, desk: &mut Desk) {
        let Some(client) = self.clients.get_mut(key).filter(|client| client.stage == Stage::Relaying) else { return };
        client.touched = desk.now;
        match client.link.pump(&mut self.tools) {
            Pumped::Open => {}
            Pumped::Again => {
                desk.again = true;
                client.pump_again(key, &mut self.again);
            }
            Pumped::ProviderFailed => return self.failed(key, Failure::Reset, machine, desk),
            Pumped::Over(outcome) => return self.finish(key, outcome, machine, desk),
        }
        let (client_token, provider_token) = (token(key.index(), Kind::Client), token(key.index(), Kind::Provider));
        client.link.attend(&desk.registry, client_token, provider_token);
        if !client.half_closed && client.link.half_closed() {
            client.half_closed = true;
            let deadline = desk.now + self.settings.redirect_half_closed_timeout;
            self.timers.set(deadline, key);
        }
    }

    /// A client's visit is over.
    fn finish(&mut self, key: Key, outcome: Outcome, machine: &mut Redirector, desk: &mut Desk) {
        let Some(client) = self.clients.get(key) else { return };
        let ((sent, received), result) = (client.link.moved(), client.link.result(outcome));
        self.drop_client(key);
        machine.handle(Input::Closed { client: key, outcome, result, sent, received }, desk.now);
    }

    fn drop_client(&mut self, key: Key) {
        if let Some(client) = self.clients.remove(key) {
            self.proxied.forget(key);
            self.scarcity.leave(client.source);
            self.listeners.resume();
        }
    }

    /// What the queue says.
    fn hear(&mut self, machine: &mut Redirector, desk: &mut Desk) {
        while let Some(news) = self.queue.poll() {
            match news {
                News::Up => machine.handle(Input::QueueUp, desk.now),
                News::Down => machine.handle(Input::QueueDown, desk.now),
                News::Answer(Answer::Numbered(id, reply)) => machine.handle(Input::Told { id, reply }, desk.now),
                News::Answer(Answer::InOrder((), reply)) => debug!(target: "redirect", "queue: {reply}"),
            }
        }
    }
}
