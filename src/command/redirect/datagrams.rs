//! The hands of the flows: the sockets that datagrams come to, and one for
//! each flow that leads to its provider.
//!
//! Owns those sockets, and what to do when the system has none to spare. Which
//! flow a datagram belongs to, and when that ends, is the machine's business.
//! One loop has all flows of a process: a flow never changes its thread.

use super::asker::Asker;
use super::doors;
use super::fallbacks::Fallbacks;
use super::notes::Notes;
use super::proxied::Proxied;
use super::stay::Staying;
use super::steward::Order;
use super::Crew;
use crate::base::machine::Machine;
use crate::base::name::Service;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::command::daemon::Shares;
use crate::command::settings::Settings;
use crate::net::drive::{Desk, Hands};
use crate::net::peer::News;
use crate::net::tally::Tally;
use crate::os::datagram::{self, Outgoing, DATAGRAM_BYTES, HEARS_ALL};
use crate::os::socket::{self, Socket};
use crate::redirect::flows::{FlowOptions, Flows, Input, Output, Path};
use crate::wire::channel::Answer;
use crate::wire::message::Reply;
use crate::wire::proxy::Header;
use log::{debug, error, info};
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Token};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Datagrams taken from one socket before others get their turn.
const BATCH: usize = 64;
/// How long a socket rests of which the system says what nobody expects.
const PAUSE: Span = Span::from_millis(100);

/// A socket that clients come to.
struct Door {
    socket: UdpSocket,
    service: Service,
    port: u16,
    /// It has one client only, to whom the starter connected it.
    connected: bool,
    /// Something may be there to be taken.
    ready: bool,
    /// It is about to be closed: until when its flows may last.
    leaving: Option<Moment>,
}

/// See the file's head.
pub struct Datagrams {
    queue: Asker,
    /// By their numbers.
    doors: BTreeMap<usize, Door>,
    /// By the slot of its flow.
    upstreams: Vec<Option<(Key, UdpSocket)>>,
    /// What flows send before their first datagram, until they have.
    headers: HashMap<Key, Header>,
    again: Vec<Key>,
    buffer: Vec<u8>,
    /// Answers of this turn, and the number of the door that they leave by.
    outgoing: (usize, Outgoing),
    fallbacks: Fallbacks,
    proxied: Proxied,
    settings: Arc<Settings>,
    flows: Arc<AtomicUsize>,
    clients: Tally,
    staying: Staying,
    paused_until: Option<Moment>,
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

/// What a machine needs to know of these settings.
pub fn options(settings: &Settings) -> FlowOptions {
    FlowOptions {
        redirect: settings.redirect_options(),
        flows_max: Shares::of(settings).flows,
        services: settings.services.iter().map(|service| (service.name, service.udp)).collect(),
    }
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
        } else if let Some(Some((flow, _))) = self.upstreams.get(number) {
            self.answers(*flow, machine, desk);
        }
    }

    fn act(&mut self, output: Output, machine: &mut Flows, desk: &mut Desk) {
        match output {
            Output::Say(request) => {
                self.queue.ask(request, desk.now);
                self.hear(machine, desk);
            }
            Output::Blind => {
                info!(
                    target: "redirect",
                    "status is denied (queue_allow_status): flows do not end when their provider withdraws"
                );
            }
            Output::Open { flow, to } => self.open(flow, to, machine, desk),
            Output::Drop { flow } => {
                self.headers.remove(&flow);
                if let Some(slot) = self.upstreams.get_mut(flow.index()) {
                    slot.take_if(|(holder, _)| *holder == flow);
                }
            }
            Output::Note(note) => self.notes.tell(&note, desk.now),
        }
    }

    fn order(&mut self, order: Order, machine: &mut Flows, desk: &mut Desk) {
        match order {
            Order::Terminate if self.staying.is_ending() => self.staying.end(Span::ZERO, desk.now),
            Order::Terminate => {
                self.staying.end(self.settings.drain_timeout, desk.now);
                machine.handle(Input::Drain, desk.now);
            }
            Order::HandOver => {
                self.staying.end(self.settings.drain_timeout, desk.now);
                // What comes to these doors is another process's. The flows that
                // are here go on being answered.
                self.paused_until = Some(Moment::NEVER);
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
                machine.handle(Input::Reconfigure(options(&settings)), desk.now);
                self.fallbacks = Fallbacks::new(&settings);
                self.proxied.reconfigure(&settings);
                self.queue.reconfigure(&settings);
                self.settings = settings;
            }
        }
    }

    fn expire(&mut self, machine: &mut Flows, desk: &mut Desk) {
        self.queue.expire(desk);
        self.hear(machine, desk);
        for (service, addresses) in self.fallbacks.resolve(desk) {
            machine.handle(Input::Fallback { service, addresses }, desk.now);
        }
        if self.paused_until.is_some_and(|until| desk.now >= until) {
            self.paused_until = None;
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let staying = self.staying.deadline(self.settings.redirect_linger);
        let own = [self.queue.deadline(), self.fallbacks.deadline(), self.paused_until, staying];
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
        self.doors.retain(|number, door| {
            if door.leaving.is_some_and(|until| until <= desk.now) {
                machine.handle(Input::Close { door: *number }, desk.now);
            }
            door.leaving.is_none() || machine.used(*number)
        });
        if self.staying.leaves() {
            self.queue.hurry();
        }
        self.queue.flush(desk);
        self.hear(machine, desk);
        if self.staying.is_late(desk.now) {
            machine.handle(Input::End, desk.now);
        }
        self.flows.store(machine.count(), Ordering::Relaxed);
        let (clients, linger) = (self.clients.count(), self.settings.redirect_linger);
        self.staying.is_over(machine.count(), clients, self.queue.flushed(), linger, desk.now)
    }
}

impl Datagrams {
    /// Without a socket yet. `seed` makes its jitter its own.
    ///
    /// # Errors
    /// Too many loops ask the queue of this process.
    pub fn new(crew: &Crew, seed: u64, desk: &Desk) -> io::Result<Datagrams> {
        Ok(Datagrams {
            queue: crew.asker(token(0, Kind::Queue), seed, desk)?,
            doors: BTreeMap::new(),
            upstreams: Vec::new(),
            headers: HashMap::new(),
            again: Vec::new(),
            buffer: vec![0; DATAGRAM_BYTES],
            outgoing: Default::default(),
            fallbacks: Fallbacks::new(&crew.settings),
            proxied: Proxied::new(&crew.settings),
            settings: crew.settings.clone(),
            flows: crew.flows.clone(),
            clients: crew.count.clone(),
            staying: Staying::new(crew.stay),
            paused_until: None,
            notes: Notes::default(),
        })
    }

    /// Clients come to this door, if it is one of datagrams.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(&mut self, door: &doors::Door, desk: &Desk) -> io::Result<()> {
        let Socket::Udp(socket) = &*door.socket else { return Ok(()) };
        let socket = socket.try_clone()?;
        datagram::prepare(&socket);
        let (connected, port) = (socket.peer_addr().is_ok(), socket.local_addr()?.port());
        let mut socket = UdpSocket::from_std(socket);
        desk.registry.register(&mut socket, token(door.number, Kind::Door), Interest::READABLE)?;
        let service = door.service;
        self.doors.insert(door.number, Door { socket, service, port, connected, ready: true, leaving: None });
        Ok(())
    }

    /// A door is to be closed, once its flows have ended; takes what is there.
    fn leave(&mut self, number: usize, machine: &mut Flows, desk: &mut Desk) {
        let Some(door) = self.doors.get_mut(&number) else { return };
        (door.leaving, door.ready) = (Some(desk.now + self.settings.drain_timeout), true);
        self.take(number, machine, desk);
        machine.handle(Input::Leave { door: number }, desk.now);
    }

    /// Its settings.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Takes what clients sent to a socket.
    fn take(&mut self, number: usize, machine: &mut Flows, desk: &mut Desk) {
        for _ in 0..BATCH {
            let Some(door) = self.doors.get_mut(&number).filter(|door| door.ready) else { return };
            match datagram::receive(&door.socket, &mut self.buffer) {
                Ok((count, client, local)) => {
                    let path = Path { door: number, client, local };
                    let bytes = &self.buffer[..count];
                    if let Some((flow, to)) = machine.datagram(path, door.service, door.port, bytes, desk.now) {
                        if refuses(upstream(&self.upstreams, flow), &mut self.headers, flow, bytes, to) {
                            machine.handle(Input::Refused { flow }, desk.now);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.ready = false,
                // An earlier answer found its client gone: nobody's fault, and it is
                // the next datagram that this call would have brought.
                Err(error) if datagram::refused(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "redirect", "port {}: {error}", door.port);
                    self.paused_until = Some(desk.now + PAUSE);
                    return;
                }
            }
        }
        desk.again = true;
    }

    /// Opens a flow's socket and sends what waited for it.
    fn open(&mut self, flow: Key, to: SocketAddr, machine: &mut Flows, desk: &mut Desk) {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let opened = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|mut socket| {
            if HEARS_ALL {
                datagram::prepare_upstream(&socket);
            } else {
                socket.connect(to)?;
            }
            let token = token(flow.index(), Kind::Upstream);
            desk.registry.register(&mut socket, token, Interest::READABLE)?;
            Ok(socket)
        });
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) if socket::out_of_sockets(&error) || socket::no_local_port(&error) => {
                return machine.handle(Input::Stuck { flow }, desk.now);
            }
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                return machine.handle(Input::Unopened { flow }, desk.now);
            }
        };
        let slot = flow.index();
        if self.upstreams.len() <= slot {
            self.upstreams.resize_with(slot + 1, || None);
        }
        self.upstreams[slot] = Some((flow, socket));
        if let Some(header) = self.header(flow, machine) {
            self.headers.insert(flow, header);
        }
        let socket = upstream(&self.upstreams, flow);
        let refused = machine.kept(flow).any(|bytes| refuses(socket, &mut self.headers, flow, bytes, to));
        machine.handle(Input::Opened { flow }, desk.now);
        if refused {
            machine.handle(Input::Refused { flow }, desk.now);
        }
    }

    /// What a new provider of a flow is told first.
    fn header(&self, flow: Key, machine: &Flows) -> Option<Header> {
        let path = machine.path(flow)?;
        let door = self.doors.get(&path.door)?;
        let bound = || door.socket.local_addr().ok().map(|place| place.ip()).filter(|ip| !ip.is_unspecified());
        self.proxied.of_datagrams(door.service, path.client, || path.local.or_else(bound), door.port)
    }

    /// Takes what a flow's provider sent.
    fn answers(&mut self, flow: Key, machine: &mut Flows, desk: &mut Desk) {
        for _ in 0..BATCH {
            let Some((_, socket)) = self.upstreams.get(flow.index()).and_then(|slot| slot.as_ref()) else { return };
            match socket.recv_from(&mut self.buffer) {
                Ok((count, from)) => {
                    let Some(path) = machine.answer(flow, from, count, desk.now) else { continue };
                    self.reply(path, count);
                    if !machine.lives(flow) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if datagram::refused(&error) => {
                    return machine.handle(Input::Refused { flow }, desk.now);
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
    fn reply(&mut self, path: Path, count: usize) {
        if self.outgoing.0 != path.door || self.outgoing.1.full() {
            self.send_replies();
            self.outgoing.0 = path.door;
        }
        let Some(door) = self.doors.get(&path.door) else { return };
        let bytes = &self.buffer[..count];
        if door.connected {
            let _ = door.socket.send(bytes);
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
                News::Up => machine.handle(Input::QueueUp, desk.now),
                News::Down => machine.handle(Input::QueueDown, desk.now),
                News::Answer(Answer::Numbered(id, reply)) => machine.handle(Input::Told { id, reply }, desk.now),
                News::Answer(Answer::InOrder((), Reply::Status(lines))) => {
                    machine.handle(Input::Status { lines }, desk.now);
                }
                News::Answer(Answer::InOrder((), reply)) => {
                    debug!(target: "redirect", "queue: {reply}");
                    if let Reply::Error { refusal, .. } = reply {
                        machine.handle(Input::Refusal { reason: refusal.reason }, desk.now);
                    }
                }
            }
        }
    }
}

fn upstream(upstreams: &[Option<(Key, UdpSocket)>], flow: Key) -> Option<&UdpSocket> {
    upstreams.get(flow.index())?.as_ref().filter(|(holder, _)| *holder == flow).map(|(_, socket)| socket)
}

/// Sends to a provider, behind its header where one is due. Whether nobody is
/// there, as far as is known: what else goes wrong loses the datagram, which is
/// in the nature of these; the header then waits for the next.
fn refuses(
    socket: Option<&UdpSocket>,
    headers: &mut HashMap<Key, Header>,
    flow: Key,
    bytes: &[u8],
    to: SocketAddr,
) -> bool {
    let Some(socket) = socket else { return false };
    let send = |bytes: &[u8]| if HEARS_ALL { socket.send_to(bytes, to) } else { socket.send(bytes) };
    let sent = match headers.get(&flow) {
        None => send(bytes),
        Some(header) => {
            let sent = send(&[header, bytes].concat());
            if sent.is_ok() {
                headers.remove(&flow);
            }
            sent
        }
    };
    sent.is_err_and(|error| {
        debug!(target: "redirect", "{to}: a datagram of {} bytes: {error}", bytes.len());
        datagram::refused(&error)
    })
}
