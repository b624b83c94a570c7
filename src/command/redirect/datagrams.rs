//! The hands of the flows: the sockets that datagrams come to, and what goes
//! between these and providers.
//!
//! Owns those sockets, and what to do when the system has none to spare. Which
//! flow a datagram belongs to, and when that ends, is the machine's business.
//! A flow never changes its loop: the system divides the clients, not the
//! datagrams, among the loops of a process.

use super::asker::Asker;
use super::doors;
use super::fallbacks::Fallbacks;
use super::homes::Homes;
use super::notes::Notes;
use super::proxied::Proxied;
use super::stay::Staying;
use super::steward::Order;
use super::upstreams::{SendResult, Upstream, Upstreams};
use super::Crew;
use crate::command::daemon::Shares;
use crate::config::settings::Settings;
use crate::net::drive::{Desk, Hands};
use crate::net::peer::News;
use crate::net::tally::Tally;
use crate::os::datagram::{self, Outgoing, DATAGRAM_BYTES};
use crate::os::socket::{self, Socket};
use log::{debug, error, info};
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Token};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::channel::Matched;
use pegasus_core::protocol::message::Reply;
use pegasus_core::protocol::proxy_header::Header;
use pegasus_core::redirect::flows::{FlowKey, FlowOptions, Flows, Input, Output};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Datagrams taken from one socket before others get their turn.
const BATCH: usize = 64;
/// How long a socket rests of which the system says what nobody expects.
const PAUSE: Span = Span::from_millis(100);
/// How often a loop looks whether others are done with a place.
const LOOK: Span = Span::from_millis(50);
/// How often it looks for addresses of this host, where it has to.
const RENEW: Span = Span::from_secs(10);

/// A socket that clients come to.
struct Door {
    socket: UdpSocket,
    service: ServiceName,
    port: u16,
    /// It is not of one address: each datagram tells which one it was sent to.
    wildcard: bool,
    /// The socket that it came to does: there is one for each address.
    apart: bool,
    homes: Homes,
    /// It has one client only, to whom the starter connected it.
    connected: bool,
    /// Something may be there to be taken.
    ready: bool,
    /// It is about to be closed: until when its flows may last.
    leaving: Option<Moment>,
    /// How many sockets of its place are in use, and whether this is one.
    used: Arc<AtomicUsize>,
    counted: bool,
}

/// Which of the loops that have flows this is.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// From 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// See the file's head.
pub struct Datagrams {
    queue: Asker,
    /// By their numbers.
    doors: HashMap<usize, Door>,
    upstreams: Upstreams,
    again: Vec<Key>,
    buffer: Vec<u8>,
    /// Answers of this turn, and the number of the door that they leave by.
    outgoing: (usize, Outgoing),
    fallbacks: Fallbacks,
    proxied: Proxied,
    settings: Arc<Settings>,
    part: Part,
    /// Of all loops; and those that this one added to them.
    flows: Arc<AtomicUsize>,
    counted: usize,
    clients: Tally,
    staying: Staying,
    paused_until: Option<Moment>,
    /// When to look whether other loops are done with a place.
    look: Option<Moment>,
    /// When to look for addresses of this host.
    renew: Option<Moment>,
    notes: Notes,
}

enum Kind {
    Door,
    Upstream,
    Queue,
}

fn token(number: usize, kind: Kind) -> Token {
    Token(number * 4 + kind as usize)
}

impl Hands for Datagrams {
    type Machine = Flows;
    type Order = Order;

    fn ready(&mut self, event: &Event, machine: &mut Flows, desk: &mut Desk) {
        let Token(token) = event.token();
        let number = token / 4;
        if token % 4 == Kind::Door as usize {
            if let Some(door) = self.doors.get_mut(&number) {
                door.ready = true;
            }
        } else if token % 4 == Kind::Queue as usize {
            self.queue.ready(event, desk);
            self.hear(machine, desk);
        } else if let Some(flow) = self.upstreams.flow(number) {
            self.answers(flow, machine, desk);
            if event.is_error() {
                self.upstreams.get(flow).inspect(|upstream| upstream.forget_errors());
            }
        }
    }

    fn act(&mut self, output: Output, machine: &mut Flows, desk: &mut Desk) {
        match output {
            Output::SendToQueue(request) => {
                self.queue.ask(request, desk.now);
                self.hear(machine, desk);
            }
            Output::StatusDenied => {
                info!(
                    target: "redirect",
                    "status is denied (queue_allow_status): flows do not end when their provider withdraws"
                );
            }
            Output::Open { flow, to } => self.open(flow, to, machine, desk),
            Output::Drop { flow } => self.upstreams.close(flow),
            Output::Log(note) => self.notes.tell(&note, desk.now),
        }
    }

    fn order(&mut self, order: Order, machine: &mut Flows, desk: &mut Desk) {
        match order {
            Order::Terminate if self.staying.is_ending() => self.staying.end(Span::ZERO, desk.now),
            Order::Terminate => {
                self.staying.end(self.settings.drain_timeout, desk.now);
                machine.handle_input(Input::Drain, desk.now);
            }
            Order::HandOver => {
                self.staying.end(self.settings.drain_timeout, desk.now);
                // What comes to these doors is another process's. The flows that
                // are here go on being answered.
                self.paused_until = Some(Moment::NEVER);
                for door in self.doors.values_mut() {
                    (door.apart, door.homes) = Default::default();
                }
            }
            Order::Doors(change) => {
                change.closed.iter().for_each(|number| self.leave(*number, machine, desk));
                for (number, service) in &change.given {
                    if let Some(door) = self.doors.get_mut(number) {
                        door.service = *service;
                    }
                }
                for door in &change.opened {
                    if let Err(error) = self.listen(door, desk) {
                        error!(target: "redirect", "{}: {error}", door.place);
                    }
                }
            }
            Order::Reconfigure(settings) => {
                self.fallbacks = Fallbacks::new(&settings);
                self.proxied.reconfigure(&settings);
                self.queue.reconfigure(&settings);
                self.settings = settings;
                machine.handle_input(Input::Reconfigure(self.options()), desk.now);
                self.renew_homes(desk);
            }
        }
    }

    fn expire(&mut self, machine: &mut Flows, desk: &mut Desk) {
        self.queue.expire(desk);
        self.hear(machine, desk);
        for (service, addresses) in self.fallbacks.resolve(desk) {
            machine.handle_input(Input::Fallback { service, addresses }, desk.now);
        }
        if self.paused_until.is_some_and(|until| desk.now >= until) {
            self.paused_until = None;
        }
        if self.renew.is_some_and(|at| desk.now >= at) {
            self.renew_homes(desk);
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let staying = self.staying.deadline(self.settings.redirect_linger);
        let own = [self.queue.deadline(), self.fallbacks.deadline(), self.paused_until, self.look, self.renew, staying];
        let leaving = self.doors.values().filter_map(|door| door.leaving);
        own.into_iter().flatten().chain(leaving).min()
    }

    fn settle(&mut self, machine: &mut Flows, desk: &mut Desk) -> bool {
        for flow in std::mem::take(&mut self.again) {
            self.answers(flow, machine, desk);
        }
        if self.paused_until.is_none() {
            let ready = self.doors.iter().filter(|(_, door)| door.ready);
            for number in ready.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.take(number, machine, desk);
            }
        }
        self.send_replies();
        self.close_doors(machine, desk);
        if self.staying.leaves() {
            self.queue.hurry();
        }
        self.queue.flush(desk);
        self.hear(machine, desk);
        if self.staying.is_late(desk.now) {
            machine.handle_input(Input::End, desk.now);
        }
        let (here, linger) = (machine.count(), self.settings.redirect_linger);
        // Together they are at least what this loop has: the sum may wrap, not end.
        self.flows.fetch_add(here.wrapping_sub(self.counted), Ordering::Relaxed);
        self.counted = here;
        let elsewhere = self.clients.count() + self.flows.load(Ordering::Relaxed) - here;
        self.staying.is_over(here, elsewhere, self.queue.flushed(), linger, desk.now)
    }
}

impl Datagrams {
    /// Without a socket yet. `seed` makes its jitter its own.
    ///
    /// # Errors
    /// Too many loops ask the queue of this process.
    pub fn new(crew: &Crew, part: Part, seed: u64, desk: &Desk) -> io::Result<Datagrams> {
        Ok(Datagrams {
            queue: crew.asker(token(0, Kind::Queue), seed, desk)?,
            doors: HashMap::new(),
            upstreams: Upstreams::default(),
            again: Vec::new(),
            buffer: vec![0; DATAGRAM_BYTES],
            outgoing: Default::default(),
            fallbacks: Fallbacks::new(&crew.settings),
            proxied: Proxied::new(&crew.settings),
            settings: crew.settings.clone(),
            part,
            flows: crew.flows.clone(),
            counted: 0,
            clients: crew.count.clone(),
            staying: Staying::new(crew.stay),
            paused_until: None,
            look: None,
            renew: None,
            notes: Notes::default(),
        })
    }

    /// Clients come to this door, if it is one of datagrams and of this loop.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(&mut self, door: &doors::Door, desk: &Desk) -> io::Result<()> {
        let Socket::Udp(socket) = &*door.socket else { return Ok(()) };
        if door.share % self.part.of != self.part.number {
            return Ok(());
        }
        let socket = socket.try_clone()?;
        let told = datagram::prepare(&socket);
        let (connected, local) = (socket.peer_addr().is_ok(), socket.local_addr()?);
        let (wildcard, port) = (local.ip().is_unspecified(), local.port());
        let mut socket = UdpSocket::from_std(socket);
        desk.registry.register(&mut socket, token(door.number, Kind::Door), Interest::READABLE)?;
        let (service, used) = (door.service, door.used.clone());
        // A starter that lent its socket watches no other one.
        let apart = !told && !connected && !self.staying.lingers() && self.part.number == 0;
        let (ready, leaving, counted, homes) = (true, None, true, Homes::default());
        let door_here =
            Door { socket, service, port, wildcard, apart, homes, connected, ready, leaving, used, counted };
        self.doors.insert(door.number, door_here);
        if apart {
            self.renew = Some(desk.now);
        }
        Ok(())
    }

    /// Each address of this host has its own socket, where it has to.
    fn renew_homes(&mut self, desk: &Desk) {
        self.renew = None;
        for (&number, door) in self.doors.iter_mut().filter(|(_, door)| door.apart) {
            let before = door.homes.count();
            door.homes.renew(&door.socket, token(number, Kind::Door), desk);
            if door.homes.count() != before {
                info!(target: "redirect", "port {}: {} addresses have a socket each", door.port, door.homes.count());
            }
            self.renew = Some(desk.now + RENEW);
        }
    }

    /// Closes the doors that are to be closed and have no flows any more, here
    /// and in other loops.
    fn close_doors(&mut self, machine: &mut Flows, desk: &mut Desk) {
        self.look = None;
        self.doors.retain(|&number, door| {
            let Some(until) = door.leaving else { return true };
            if until <= desk.now {
                machine.handle_input(Input::Close { socket: number }, desk.now);
            }
            if machine.is_socket_used(number) {
                return true;
            }
            if std::mem::take(&mut door.counted) {
                door.used.fetch_sub(1, Ordering::Relaxed);
            }
            let stays = until > desk.now && door.used.load(Ordering::Relaxed) > 0;
            if stays {
                self.look = Some(desk.now + LOOK);
            }
            stays
        });
    }

    /// What the machine needs to know of the settings.
    pub fn options(&self) -> FlowOptions {
        FlowOptions {
            redirect: self.settings.redirect_options(),
            flows_max: (Shares::of(&self.settings).flows / self.part.of).max(1),
            services: self.settings.services.iter().map(|service| (service.name, service.udp)).collect(),
        }
    }

    /// A door is to be closed, once its flows have ended; takes what is there.
    fn leave(&mut self, number: usize, machine: &mut Flows, desk: &mut Desk) {
        let Some(door) = self.doors.get_mut(&number) else { return };
        (door.leaving, door.ready) = (Some(desk.now + self.settings.drain_timeout), true);
        self.take(number, machine, desk);
        machine.handle_input(Input::StopNewFlows { socket: number }, desk.now);
    }

    /// Takes what clients sent to a door.
    fn take(&mut self, number: usize, machine: &mut Flows, desk: &mut Desk) {
        let Some(door) = self.doors.get_mut(&number).filter(|door| door.ready) else { return };
        door.ready = false;
        let mut more = false;
        for home in std::iter::once(None).chain((0..door.homes.count()).map(Some)) {
            more |= self.take_from(number, home, machine, desk);
        }
        if let Some(door) = self.doors.get_mut(&number) {
            door.ready |= more;
        }
    }

    /// Takes what clients sent to one socket of a door. Whether there may be more.
    fn take_from(&mut self, number: usize, home: Option<usize>, machine: &mut Flows, desk: &mut Desk) -> bool {
        for _ in 0..BATCH {
            let Some(door) = self.doors.get_mut(&number) else { return false };
            let received = if let Some(at) = home {
                let Some((ip, socket)) = door.homes.get(at) else { return false };
                socket.recv_from(&mut self.buffer).map(|(count, client)| (count, client, Some(*ip)))
            } else if door.wildcard {
                datagram::receive(&door.socket, &mut self.buffer)
            } else {
                door.socket.recv_from(&mut self.buffer).map(|(count, client)| (count, client, None))
            };
            match received {
                Ok((count, client, local)) => {
                    let path = FlowKey { socket: number, client, local };
                    let bytes = &self.buffer[..count];
                    let routed = machine.on_datagram(path, door.service, door.port, bytes, desk.now);
                    let Some((flow, to)) = routed else { continue };
                    let Some(upstream) = self.upstreams.get(flow) else { continue };
                    if upstream.send(bytes, to) == SendResult::Unreachable {
                        machine.handle_input(Input::ProviderUnreachable { flow }, desk.now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An earlier answer found its client gone: nobody's fault, and it is
                // the next datagram that this call would have brought.
                Err(error) if datagram::refused(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "redirect", "port {}: {error}", door.port);
                    self.paused_until = Some(desk.now + PAUSE);
                    return true;
                }
            }
        }
        desk.again = true;
        true
    }

    /// Opens a flow's socket and sends what waited for it.
    fn open(&mut self, flow: Key, to: SocketAddr, machine: &mut Flows, desk: &mut Desk) {
        let (header, token) = (self.header(flow, machine), token(flow.index(), Kind::Upstream));
        let roams = machine.is_tftp(flow);
        let upstream = match Upstream::open(flow, to, roams, header, token, desk) {
            Ok(upstream) => self.upstreams.add(upstream),
            Err(error) if socket::out_of_sockets(&error) || socket::no_local_port(&error) => {
                return machine.handle_input(Input::NoLocalPort { flow }, desk.now);
            }
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                return machine.handle_input(Input::OpenFailed { flow }, desk.now);
            }
        };
        let refused = machine.unconfirmed(flow).any(|bytes| upstream.send(bytes, to) == SendResult::Unreachable);
        machine.handle_input(Input::Opened { flow }, desk.now);
        if refused {
            machine.handle_input(Input::ProviderUnreachable { flow }, desk.now);
        }
    }

    /// What a new provider of a flow is told first.
    fn header(&self, flow: Key, machine: &Flows) -> Option<Header> {
        let path = machine.key(flow)?;
        let door = self.doors.get(&path.socket)?;
        let bound = || door.socket.local_addr().ok().map(|place| place.ip()).filter(|ip| !ip.is_unspecified());
        self.proxied.of_datagrams(door.service, path.client, || path.local.or_else(bound), door.port)
    }

    /// Takes what a flow's provider sent.
    fn answers(&mut self, flow: Key, machine: &mut Flows, desk: &mut Desk) {
        for _ in 0..BATCH {
            let Some(upstream) = self.upstreams.get(flow) else { return };
            match upstream.receive(&mut self.buffer) {
                Ok((count, from)) => {
                    let enough = upstream.is_answered();
                    let Some(path) = machine.on_reply(flow, from, count, desk.now) else { continue };
                    self.reply(path, count);
                    if enough || !machine.contains(flow) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if datagram::refused(&error) => {
                    return machine.handle_input(Input::ProviderUnreachable { flow }, desk.now);
                }
                Err(error) if socket::out_of_sockets(&error) => return,
                // What else the network has to say, that a datagram was too long for
                // one, is said once, and concerns no other one.
                Err(_) => {}
            }
        }
        desk.again = true;
        self.again.push(flow);
    }

    /// Sends what is in the buffer to a client, now or with what else leaves by
    /// its door in this turn.
    fn reply(&mut self, path: FlowKey, count: usize) {
        if self.outgoing.0 != path.socket || self.outgoing.1.full() {
            self.send_replies();
            self.outgoing.0 = path.socket;
        }
        let Some(door) = self.doors.get(&path.socket) else { return };
        let bytes = &self.buffer[..count];
        if door.connected {
            let _ = door.socket.send(bytes);
        } else if let Some(home) = path.local.and_then(|ip| door.homes.of(ip)) {
            if let Err(error) = home.send_to(bytes, path.client) {
                debug!(target: "redirect", "{}: {error}", path.client);
            }
        } else {
            self.outgoing.1.push(bytes, path.client, path.local);
        }
    }

    fn send_replies(&mut self) {
        let (door, outgoing) = &mut self.outgoing;
        if let Some(door) = self.doors.get(door) {
            outgoing.send(&door.socket, |client, error| debug!(target: "redirect", "{client}: {error}"));
        }
    }

    /// What the queue says.
    fn hear(&mut self, machine: &mut Flows, desk: &mut Desk) {
        while let Some(news) = self.queue.poll() {
            match news {
                News::Up => machine.handle_input(Input::QueueUp, desk.now),
                News::Down => machine.handle_input(Input::QueueDown, desk.now),
                News::Answer(Matched::ById(id, reply)) => {
                    machine.handle_input(Input::QueueReply { id, reply }, desk.now)
                }
                News::Answer(Matched::InOrder((), Reply::Status(lines))) => {
                    machine.handle_input(Input::Status { lines }, desk.now);
                }
                News::Answer(Matched::InOrder((), reply)) => {
                    debug!(target: "redirect", "queue: {reply}");
                    if let Reply::Error { error: refusal, .. } = reply {
                        machine.handle_input(Input::StatusDenied { code: refusal.code }, desk.now);
                    }
                }
            }
        }
    }
}
