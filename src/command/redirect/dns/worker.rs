//! The worker for questions: its sockets, and the questions that wait.
//!
//! Owns the sockets, and every bound of what clients can make it keep or send. Not
//! responsible for which providers are in an answer, nor for the form of messages.

use super::connection::{Connection, IDLE_TIMEOUT};
use super::message::{self, Content, Kind, Question, Received};
use crate::command::redirect::access_log::AccessLog;
use crate::command::redirect::listen_sockets::{ListenSocket, ListenSockets};
use crate::command::redirect::shared::{MovedSocket, SharedState, WorkerCommand};
use crate::command::redirect::worker::{self, SocketRole, Worker, WorkerBase};
use crate::config::settings::Settings;
use crate::net::event_loop::{Context, Handler};
use crate::net::listeners::{Accepted, Listeners};
use crate::os::datagram::{self, Outgoing, Received as Datagram, DATAGRAM_BYTES};
use crate::os::socket::Socket;
use log::{debug, warn};
use mio::event::Event;
use mio::net::{TcpStream, UdpSocket};
use mio::Interest;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::{NoStateMachine, StateMachine as _};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::answers::{Answer, Input, Wanted};
use pegasus_core::redirect::byte_budget::ByteBudget;
use pegasus_core::redirect::name_table::{NameMatch, NameTable};
use pegasus_core::redirect::redirector::RedirectLog;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Sender;

/// Connections at once, of which `DescriptorBudget` knows. One more takes the place of the oldest
/// that waits for nothing.
const CONNECTIONS_MAX: usize = 128;
/// Questions that wait at once; more are dropped, and their clients ask again.
const QUESTIONS_MAX: usize = 4096;
/// Datagrams of one socket before others get their turn.
const BATCH: usize = 64;
/// An answer comes within this time, or says that there is none: clients ask again after
/// two to five seconds.
const ANSWER_WITHIN: Span = Span::from_secs(2);

/// A socket for datagrams.
struct DatagramSocket {
    socket: UdpSocket,
    readable: bool,
    /// Answers of this turn.
    replies: Outgoing,
}

/// How a question came, and its answer goes.
#[derive(Clone, Copy)]
enum Way {
    Datagram { socket: usize, from: SocketAddr, local: Option<IpAddr> },
    Connection(Key, SocketAddr),
}

impl Way {
    fn client(self) -> SocketAddr {
        match self {
            Way::Datagram { from, .. } | Way::Connection(_, from) => from,
        }
    }
}

/// A question that waits.
struct Waiting {
    question: Question,
    way: Way,
    service: ServiceName,
    /// Where the name that is ours begins in its name.
    zone: usize,
    arrived: Moment,
}

/// What a service's answers are like.
#[derive(Clone, Copy, Default)]
struct ServiceAnswers {
    ttl: u32,
    /// The port of providers that have none of their own.
    port: Option<u16>,
}

/// What a question means here.
enum Meaning {
    /// Its name is none of ours.
    Foreign,
    /// The names alone tell the answer.
    Known(ServiceName, Content<'static>),
    /// The providers of a service tell it. The name that is ours begins at this byte.
    Wanted(ServiceName, usize, Wanted),
}

fn meaning(names: &NameTable, question: &Question) -> Meaning {
    match names.find(question.name()) {
        NameMatch::Foreign => Meaning::Foreign,
        NameMatch::Nothing { service, zone } => Meaning::Known(service, Content::NoName { zone }),
        NameMatch::Empty { service, zone } => Meaning::Known(service, Content::NoData { zone }),
        NameMatch::Label { service, label, zone } => match message::host_address(label) {
            Some(ip) => Meaning::Wanted(service, zone, Wanted::Host(ip)),
            None => Meaning::Known(service, Content::NoName { zone }),
        },
        NameMatch::Exact(service) => {
            let wanted = match question.kind() {
                Kind::A => Wanted::Addresses { v4: true, v6: false },
                Kind::Aaaa => Wanted::Addresses { v4: false, v6: true },
                Kind::Any => Wanted::Addresses { v4: true, v6: true },
                Kind::Srv => Wanted::Places,
                Kind::Soa | Kind::Other => {
                    return Meaning::Known(service, Content::NoData { zone: 0 })
                }
            };
            Meaning::Wanted(service, 0, wanted)
        }
    }
}

/// Answers questions for names, over UDP and TCP.
pub struct DnsWorker {
    base: WorkerBase,
    names: NameTable,
    services: HashMap<ServiceName, ServiceAnswers>,
    datagrams: Vec<DatagramSocket>,
    /// Another process reads the sockets, or none.
    deaf: bool,
    listeners: Listeners<()>,
    connections: Slab<Connection>,
    arrivals: u64,
    waiting: Slab<Waiting>,
    budget: ByteBudget,
    buffer: Vec<u8>,
    access_log: AccessLog,
}

impl Handler for DnsWorker {
    type StateMachine = NoStateMachine;
    type Command = WorkerCommand;

    fn on_event(&mut self, event: &Event, machine: &mut NoStateMachine, cx: &mut Context) {
        let (role, number) = SocketRole::of(event.token());
        match role {
            SocketRole::Listener => self.listeners.on_readable(number),
            SocketRole::Datagrams => {
                if let Some(socket) = self.datagrams.get_mut(number) {
                    socket.readable = true;
                }
            }
            SocketRole::Queue => self.base.on_queue_event(event, machine, cx),
            SocketRole::Client | SocketRole::Provider => {
                if let Some(key) = self.connections.key_at(number) {
                    self.advance(key, cx.now);
                }
            }
        }
    }

    fn on_output(&mut self, (): (), _: &mut NoStateMachine, _: &mut Context) {}

    fn on_command(
        &mut self,
        command: WorkerCommand,
        machine: &mut NoStateMachine,
        cx: &mut Context,
    ) {
        worker::on_command(self, command, machine, cx);
    }

    fn on_timeout(&mut self, machine: &mut NoStateMachine, cx: &mut Context) {
        worker::on_timeout(self, machine, cx);
        let late = |connection: &Connection| cx.now >= connection.deadline;
        for key in self.connections.keys() {
            if self.connections.get(key).is_some_and(late) {
                self.connections.remove(key);
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let deadlines = self.connections.iter().map(|(_, connection)| connection.deadline);
        let own = [self.base.next_timeout(), self.listeners.next_timeout()];
        own.into_iter().flatten().chain(deadlines).min()
    }

    fn end_turn(&mut self, machine: &mut NoStateMachine, cx: &mut Context) -> bool {
        for number in 0..self.datagrams.len() {
            self.receive(number, cx);
        }
        for accepted in self.listeners.accept(cx, || Some(())) {
            match accepted {
                Accepted::Client { stream, from, .. } => self.admit(stream, from, cx),
                Accepted::OutOfSockets(error) => {
                    warn!(target: "redirect", "accepting pauses: {error}");
                }
            }
        }
        self.send_answers(machine, cx);
        self.base.flush_queue(machine, cx);
        for socket in &mut self.datagrams {
            socket.replies.send(&socket.socket, |to, error| {
                debug!(target: "redirect", "{to}: no answer: {error}");
            });
        }
        if self.base.exit_policy.is_past_deadline(cx.now) {
            self.waiting = Slab::default();
            self.connections = Slab::default();
        }
        let busy = self.connections.iter().filter(|(_, connection)| !connection.is_idle()).count();
        self.base.poll_finished(self.waiting.len() + busy, cx.now)
    }
}

impl Worker for DnsWorker {
    fn base(&mut self) -> &mut WorkerBase {
        &mut self.base
    }

    /// Its own sockets are there from the start.
    fn listen(&mut self, _: &ListenSocket, _: &Context) -> io::Result<()> {
        Ok(())
    }

    fn close_listener(&mut self, _: usize, _: &mut NoStateMachine, _: &mut Context) {}

    fn reassign_listener(&mut self, _: usize, _: ServiceName) {}

    fn stop_listening(&mut self, _: &mut NoStateMachine, cx: &mut Context) {
        for number in 0..self.datagrams.len() {
            self.receive(number, cx);
        }
        self.deaf = true;
        self.listeners.close_all_when_empty(cx.now);
    }

    fn hand_over(&mut self, _: &Sender<MovedSocket>, _: &mut NoStateMachine, cx: &mut Context) {
        self.deaf = true;
        self.listeners.close(cx);
    }

    fn apply_settings(&mut self, _: &mut NoStateMachine, cx: &mut Context) {
        self.reconfigure(cx.now);
    }
}

impl DnsWorker {
    /// A worker on the sockets of `redirect_dns`. `seed` makes its jitter differ from that of
    /// others.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn new(
        shared: &SharedState,
        listen_sockets: &ListenSockets,
        seed: u64,
        cx: &Context,
    ) -> io::Result<DnsWorker> {
        let mut worker = DnsWorker {
            base: WorkerBase::new(shared, seed, cx)?,
            names: NameTable::default(),
            services: HashMap::new(),
            datagrams: Vec::new(),
            deaf: false,
            listeners: Listeners::default(),
            connections: Slab::default(),
            arrivals: 0,
            waiting: Slab::default(),
            budget: ByteBudget::default(),
            buffer: vec![0; DATAGRAM_BYTES],
            access_log: AccessLog::default(),
        };
        for (number, (_, socket)) in listen_sockets.dns.iter().enumerate() {
            match &**socket {
                Socket::Tcp(socket) => {
                    let token = SocketRole::Listener.token(number);
                    worker.listeners.add(number, (), socket.try_clone()?, token, cx)?;
                }
                Socket::Udp(socket) => worker.add_datagrams(socket.try_clone()?, cx)?,
            }
        }
        worker.reconfigure(cx.now);
        Ok(worker)
    }

    fn add_datagrams(&mut self, socket: std::net::UdpSocket, cx: &Context) -> io::Result<()> {
        datagram::prepare(&socket);
        let mut socket = UdpSocket::from_std(socket);
        let token = SocketRole::Datagrams.token(self.datagrams.len());
        cx.registry.register(&mut socket, token, Interest::READABLE)?;
        let replies = Outgoing::default();
        self.datagrams.push(DatagramSocket { socket, readable: true, replies });
        Ok(())
    }

    fn reconfigure(&mut self, now: Moment) {
        let settings: &Settings = &self.base.settings;
        let names = settings
            .services
            .iter()
            .flat_map(|service| service.dns.iter().map(|name| (name.clone(), service.name)));
        self.names = NameTable::new(names);
        let answers = settings.services.iter().map(|service| {
            let tcp = service.listen.iter().find(|listen| listen.transport == Transport::Tcp);
            let listen = tcp.or(service.listen.first()).filter(|listen| listen.first > 0);
            let ttl = u32::try_from(service.dns_ttl.as_millis() / 1000).unwrap_or(u32::MAX);
            (service.name, ServiceAnswers { ttl, port: listen.map(|listen| listen.first) })
        });
        self.services = answers.collect();
        self.base.limit_answers(ANSWER_WITHIN, now);
    }

    /// Takes what clients sent to one socket.
    fn receive(&mut self, number: usize, cx: &mut Context) {
        for _ in 0..BATCH {
            let Some(socket) = self.datagrams.get_mut(number) else { return };
            if self.deaf || !socket.readable {
                return;
            }
            match datagram::receive(&socket.socket, &mut self.buffer) {
                // No answer can go to port 0. What came to a group was sent to others too.
                Ok(Datagram { from, to_group, .. }) if from.port() == 0 || to_group => {}
                Ok(Datagram { count, from, local, .. }) => {
                    let received = message::read(&self.buffer[..count]);
                    let way = Way::Datagram { socket: number, from, local };
                    self.handle(received, way, cx.now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable = false;
                    return;
                }
                // An earlier answer found its client gone.
                Err(error)
                    if datagram::is_unreachable(&error)
                        || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "redirect", "not a question: {error}");
                    socket.readable = false;
                    return;
                }
            }
        }
        cx.skip_sleep = true;
    }

    fn admit(&mut self, mut stream: TcpStream, from: SocketAddr, cx: &mut Context) {
        if self.connections.len() >= CONNECTIONS_MAX && !self.displace() {
            return;
        }
        let index = self.connections.next_index();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = SocketRole::Client.token(index);
        if cx.registry.register(&mut stream, token, interest).is_err() {
            return;
        }
        let _ = stream.set_nodelay(true);
        self.arrivals += 1;
        let connection = Connection::new(stream, from, self.arrivals, cx.now);
        let key = self.connections.insert(connection);
        self.advance(key, cx.now);
    }

    /// Makes room: the oldest connection goes that waits for nothing.
    fn displace(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| connection.is_idle());
        let oldest = idle.min_by_key(|(_, connection)| connection.number);
        let Some(key) = oldest.map(|(key, _)| key) else { return false };
        self.connections.remove(key).is_some()
    }

    /// Does what can be done for a connection now.
    fn advance(&mut self, key: Key, now: Moment) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.flush(now).is_err() {
            return drop(self.connections.remove(key));
        }
        loop {
            let room = self.waiting.len() < QUESTIONS_MAX;
            let Some(connection) = self.connections.get_mut(key) else { return };
            let from = connection.from;
            let next = match connection.next_message(now) {
                Ok(Some(message)) if room => message::read(&message),
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => return drop(self.connections.remove(key)),
            };
            connection.waiting += 1;
            if let Received::Nothing = next {
                // A peer that sends answers here speaks something else.
                return drop(self.connections.remove(key));
            }
            self.handle(next, Way::Connection(key, from), now);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.flush(now).is_err() || connection.is_over() {
            self.connections.remove(key);
        }
    }

    /// A message came.
    fn handle(&mut self, received: Received, way: Way, now: Moment) {
        match received {
            Received::Nothing => {}
            Received::Reply(reply) => self.send(way, &reply, now),
            Received::Question(question) => self.asked(question, way, now),
        }
    }

    /// A question came: answers what the names alone tell, and asks for the rest.
    fn asked(&mut self, question: Question, way: Way, now: Moment) {
        let (service, zone, wanted) = match meaning(&self.names, &question) {
            Meaning::Foreign => return self.send(way, &question.refused(), now),
            Meaning::Known(service, content) => {
                self.reply(&question, way, service, &content, now);
                return;
            }
            Meaning::Wanted(service, zone, wanted) => (service, zone, wanted),
        };
        if let Way::Datagram { from, .. } = way {
            if self.waiting.len() >= QUESTIONS_MAX {
                return;
            }
            // A ticket would be spent for an answer that is truncated.
            if self.budget.is_spent(from.ip().into(), now) {
                return self.send(way, &question.truncated(), now);
            }
        }
        let client = way.client().ip().to_canonical();
        let key = self.waiting.insert(Waiting { question, way, service, zone, arrived: now });
        let asked = Input::Asked { question: key, service, client, wanted };
        self.base.answerer.handle_input(asked, now);
    }

    /// Sends the answers that are there.
    fn send_answers(&mut self, machine: &mut NoStateMachine, cx: &mut Context) {
        while let Some((key, answer)) = self.base.poll_answer(machine, cx.now) {
            let Some(waiting) = self.waiting.remove(key) else { continue };
            self.send_answer(&waiting, &answer, cx.now);
            if let Way::Connection(key, _) = waiting.way {
                // It may have room for another question.
                self.advance(key, cx.now);
            }
        }
    }

    fn send_answer(&mut self, waiting: &Waiting, answer: &Answer, now: Moment) {
        let Waiting { question, way, service, zone, .. } = waiting;
        let no_data = Content::NoData { zone: *zone };
        let port = self.services.get(service).and_then(|answers| answers.port);
        let kind = question.kind();
        let (content, chosen, outcome) = match answer {
            Answer::Refused(outcome) => {
                let reply = question.failed();
                self.log(waiting, None, *outcome, reply.len(), now);
                return self.send(*way, &reply, now);
            }
            Answer::Providers(providers) => {
                let is_host = *zone > 0;
                let has_data = match kind {
                    Kind::Srv => providers.iter().any(|it| it.port.or(port).is_some()),
                    _ => providers.iter().any(|it| kind.includes(it.ip)),
                };
                let content = match (has_data && !(is_host && kind == Kind::Srv), providers) {
                    (true, providers) => {
                        let hosts = self.names.host_zone(question.name());
                        Content::Providers { providers, port, hosts }
                    }
                    (false, _) => no_data,
                };
                (content, providers.first().filter(|_| !is_host), Outcome::Complete)
            }
            Answer::OtherFamily => (no_data, None, Outcome::Complete),
            Answer::NoSuchHost => (Content::NoName { zone: *zone }, None, Outcome::Complete),
        };
        let sent = self.reply(question, *way, *service, &content, now);
        if let Some(provider) = chosen {
            self.log(waiting, Some(*provider), outcome, sent, now);
        }
    }

    fn log(
        &mut self,
        waiting: &Waiting,
        provider: Option<Provider>,
        outcome: Outcome,
        sent: usize,
        now: Moment,
    ) {
        let lasted = now.since(waiting.arrived);
        let note = RedirectLog::Closed {
            service: waiting.service,
            client: waiting.way.client(),
            local: None,
            provider,
            outcome,
            sent: sent as u64,
            received: waiting.question.length as u64,
            waited: lasted,
            lasted,
        };
        self.base.metrics.record(&note, true);
        self.access_log.log(&note, now);
    }

    /// Sends an answer of this content: how many bytes that were.
    fn reply(
        &mut self,
        question: &Question,
        way: Way,
        service: ServiceName,
        content: &Content,
        now: Moment,
    ) -> usize {
        let ttl = self.services.get(&service).map_or(0, |answers| answers.ttl);
        let mut reply = question.answer(content, ttl, matches!(way, Way::Datagram { .. }));
        if let Way::Datagram { from, .. } = way {
            let more = reply.len().saturating_sub(question.length);
            if !self.budget.spend(from.ip().into(), more, now) {
                reply = question.truncated();
            }
        }
        self.send(way, &reply, now);
        reply.len()
    }

    fn send(&mut self, way: Way, reply: &[u8], now: Moment) {
        match way {
            Way::Datagram { socket, from, local } => {
                let Some(socket) = self.datagrams.get_mut(socket) else { return };
                socket.replies.push(reply, from, local);
                if socket.replies.full() {
                    socket.replies.send(&socket.socket, |_, _| {});
                }
            }
            Way::Connection(key, _) => {
                let Some(connection) = self.connections.get_mut(key) else { return };
                connection.waiting -= 1;
                connection.push(reply);
                connection.deadline = now + IDLE_TIMEOUT;
                if connection.flush(now).is_err() {
                    self.connections.remove(key);
                }
            }
        }
    }
}
