//! The handler of the flows: the sockets that datagrams come to, and what goes
//! between these and providers.
//!
//! Owns those sockets, and what to do when the system has none to spare. Not
//! responsible for which flow a datagram belongs to, nor for when that ends.
//! A flow never changes its loop: the system divides the clients, not the
//! datagrams, among the loops of a process.

use super::access_log::AccessLog;
use super::address_sockets::AddressSockets;
use super::exit_policy::ExitPolicy;
use super::fallbacks::Fallbacks;
use super::listen_sockets;
use super::proxy_protocol::ProxyProtocol;
use super::queue_handle::QueueHandle;
use super::supervisor::WorkerCommand;
use super::upstreams::{SendResult, Upstream, Upstreams};
use super::SharedState;
use crate::command::admin::WorkerMetrics;
use crate::command::daemon::DescriptorBudget;
use crate::config::settings::Settings;
use crate::net::event_loop::{Context, Handler};
use crate::net::queue_connection::QueueEvent;
use crate::net::shared_counter::SharedCounter;
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

/// Received datagrams of one socket before others get their turn.
const BATCH: usize = 64;
/// How long a socket rests of which the system says what nobody expects.
const PAUSE: Span = Span::from_millis(100);
/// How often a loop looks whether others are done with a place.
const RECHECK_INTERVAL: Span = Span::from_millis(50);
/// How often it looks for addresses of this host, where it has to.
const REFRESH_INTERVAL: Span = Span::from_secs(10);

/// A socket that clients come to.
struct UdpListener {
    socket: UdpSocket,
    service: ServiceName,
    port: u16,
    /// It is not of one address: each datagram tells which one it was sent to.
    wildcard: bool,
    /// The socket that it came to does: there is one for each address.
    per_address: bool,
    address_sockets: AddressSockets,
    /// It has one client only, to whom the starter connected it.
    connected: bool,
    /// Something may be there to be taken.
    readable: bool,
    /// It is about to be closed: until when its flows may last.
    closing_at: Option<Moment>,
    /// How many sockets of its place are in use, and whether this is one.
    shards_in_use: Arc<AtomicUsize>,
    counted: bool,
}

/// Which of the workers that have flows this is.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

/// See the file's head.
pub struct UdpWorker {
    queue: QueueHandle,
    /// By their numbers.
    listeners: HashMap<usize, UdpListener>,
    upstreams: Upstreams,
    unfinished: Vec<Key>,
    buffer: Vec<u8>,
    /// Answers of this turn, and the number of the socket that they leave by.
    replies: (usize, Outgoing),
    fallbacks: Fallbacks,
    proxy_protocol: ProxyProtocol,
    settings: Arc<Settings>,
    shard: Shard,
    /// Of all loops; and those that this one added to them.
    flow_count: Arc<AtomicUsize>,
    flows_counted: usize,
    client_count: SharedCounter,
    exit_policy: ExitPolicy,
    paused_until: Option<Moment>,
    /// When to look whether other loops are done with a place.
    recheck_at: Option<Moment>,
    /// When to look for addresses of this host.
    refresh_at: Option<Moment>,
    access_log: AccessLog,
    metrics: WorkerMetrics,
}

enum TokenKind {
    Listener,
    Upstream,
    Queue,
}

fn token(number: usize, kind: TokenKind) -> Token {
    Token(number * 4 + kind as usize)
}

impl Handler for UdpWorker {
    type StateMachine = Flows;
    type Command = WorkerCommand;

    fn on_event(&mut self, event: &Event, flows: &mut Flows, cx: &mut Context) {
        let Token(token) = event.token();
        let number = token / 4;
        if token % 4 == TokenKind::Listener as usize {
            if let Some(listener) = self.listeners.get_mut(&number) {
                listener.readable = true;
            }
        } else if token % 4 == TokenKind::Queue as usize {
            self.queue.on_event(event, cx);
            self.handle_queue_events(flows, cx);
        } else if let Some(flow) = self.upstreams.flow(number) {
            self.receive_replies(flow, flows, cx);
            if event.is_error() {
                self.upstreams.get(flow).inspect(|upstream| upstream.clear_errors());
            }
        }
    }

    fn on_output(&mut self, output: Output, flows: &mut Flows, cx: &mut Context) {
        match output {
            Output::SendToQueue(request) => {
                self.queue.ask(request, cx.now);
                self.handle_queue_events(flows, cx);
            }
            Output::StatusDenied => {
                info!(
                    target: "redirect",
                    "status is denied (queue_allow_status): flows do not end when their provider withdraws"
                );
            }
            Output::Open { flow, to } => self.open_upstream(flow, to, flows, cx),
            Output::Drop { flow } => self.upstreams.close(flow),
            Output::Log(note) => {
                self.metrics.record(&note, true);
                self.access_log.log(&note, cx.now);
            }
        }
    }

    fn on_command(&mut self, command: WorkerCommand, flows: &mut Flows, cx: &mut Context) {
        match command {
            WorkerCommand::Terminate if self.exit_policy.is_draining() => {
                self.exit_policy.start_drain(Span::ZERO, cx.now)
            }
            WorkerCommand::Terminate => {
                self.exit_policy.start_drain(self.settings.drain_timeout, cx.now);
                flows.handle_input(Input::Drain, cx.now);
            }
            WorkerCommand::HandOver => {
                self.exit_policy.start_drain(self.settings.drain_timeout, cx.now);
                // What comes to these sockets is another process's. The flows that
                // are here go on being answered.
                self.paused_until = Some(Moment::NEVER);
                for listener in self.listeners.values_mut() {
                    (listener.per_address, listener.address_sockets) = Default::default();
                }
            }
            WorkerCommand::UpdateListeners(diff) => {
                diff.closed.iter().for_each(|number| self.start_closing(*number, flows, cx));
                for (number, service) in &diff.reassigned {
                    if let Some(listener) = self.listeners.get_mut(number) {
                        listener.service = *service;
                    }
                }
                for listen_socket in &diff.opened {
                    if let Err(error) = self.listen(listen_socket, cx) {
                        error!(target: "redirect", "{}: {error}", listen_socket.listen);
                    }
                }
            }
            WorkerCommand::Reconfigure(settings) => {
                self.fallbacks = Fallbacks::new(&settings);
                self.proxy_protocol.reconfigure(&settings);
                self.queue.reconfigure(&settings);
                self.settings = settings;
                flows.handle_input(Input::Reconfigure(self.options()), cx.now);
                self.refresh_address_sockets(cx);
            }
        }
    }

    fn on_timeout(&mut self, flows: &mut Flows, cx: &mut Context) {
        self.queue.handle_timeout(cx);
        self.handle_queue_events(flows, cx);
        for (service, addresses) in self.fallbacks.resolve(cx) {
            flows.handle_input(Input::Fallback { service, addresses }, cx.now);
        }
        if self.paused_until.is_some_and(|until| cx.now >= until) {
            self.paused_until = None;
        }
        if self.refresh_at.is_some_and(|at| cx.now >= at) {
            self.refresh_address_sockets(cx);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let exit = self.exit_policy.next_timeout(self.settings.redirect_linger);
        let own = [
            self.queue.next_timeout(),
            self.fallbacks.next_timeout(),
            self.paused_until,
            self.recheck_at,
            self.refresh_at,
            exit,
        ];
        let closing = self.listeners.values().filter_map(|listener| listener.closing_at);
        own.into_iter().flatten().chain(closing).min()
    }

    fn end_turn(&mut self, flows: &mut Flows, cx: &mut Context) -> bool {
        for flow in std::mem::take(&mut self.unfinished) {
            self.receive_replies(flow, flows, cx);
        }
        if self.paused_until.is_none() {
            let readable = self.listeners.iter().filter(|(_, listener)| listener.readable);
            for number in readable.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.receive(number, flows, cx);
            }
        }
        self.send_replies();
        self.close_drained(flows, cx);
        if self.exit_policy.is_leaving() {
            self.queue.flush_now();
        }
        self.queue.flush(cx);
        self.handle_queue_events(flows, cx);
        if self.exit_policy.is_past_deadline(cx.now) {
            flows.handle_input(Input::End, cx.now);
        }
        let (here, linger) = (flows.count(), self.settings.redirect_linger);
        // Together they are at least what this loop has: the sum may wrap, not end.
        self.flow_count.fetch_add(here.wrapping_sub(self.flows_counted), Ordering::Relaxed);
        self.flows_counted = here;
        let elsewhere = self.client_count.count() + self.flow_count.load(Ordering::Relaxed) - here;
        self.exit_policy.poll_finished(here, elsewhere, self.queue.is_flushed(), linger, cx.now)
    }
}

impl UdpWorker {
    /// Without a socket yet. `seed` makes its jitter its own.
    ///
    /// # Errors
    /// Too many loops ask the queue of this process.
    pub fn new(
        shared: &SharedState,
        shard: Shard,
        seed: u64,
        cx: &Context,
    ) -> io::Result<UdpWorker> {
        Ok(UdpWorker {
            queue: shared.queue_handle(token(0, TokenKind::Queue), seed, cx)?,
            listeners: HashMap::new(),
            upstreams: Upstreams::default(),
            unfinished: Vec::new(),
            buffer: vec![0; DATAGRAM_BYTES],
            replies: Default::default(),
            fallbacks: Fallbacks::new(&shared.settings),
            proxy_protocol: ProxyProtocol::new(&shared.settings),
            settings: shared.settings.clone(),
            shard,
            flow_count: shared.flow_count.clone(),
            flows_counted: 0,
            client_count: shared.client_count.clone(),
            exit_policy: ExitPolicy::new(shared.run_mode),
            paused_until: None,
            recheck_at: None,
            refresh_at: None,
            access_log: AccessLog::default(),
            metrics: shared.metrics.worker(),
        })
    }

    /// Clients come to this socket, if it is one of datagrams and of this loop.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn listen(
        &mut self,
        listen_socket: &listen_sockets::ListenSocket,
        cx: &Context,
    ) -> io::Result<()> {
        let Socket::Udp(socket) = &*listen_socket.socket else { return Ok(()) };
        if listen_socket.shard % self.shard.count != self.shard.index {
            return Ok(());
        }
        let socket = socket.try_clone()?;
        let knows_destination = datagram::prepare(&socket);
        let (connected, local) = (socket.peer_addr().is_ok(), socket.local_addr()?);
        let (wildcard, port) = (local.ip().is_unspecified(), local.port());
        let mut socket = UdpSocket::from_std(socket);
        cx.registry.register(
            &mut socket,
            token(listen_socket.number, TokenKind::Listener),
            Interest::READABLE,
        )?;
        let (service, shards_in_use) = (listen_socket.service, listen_socket.shards_in_use.clone());
        // A starter that lent its socket watches no other one.
        let per_address = !knows_destination
            && !connected
            && !self.exit_policy.lingers()
            && self.shard.index == 0;
        let (readable, closing_at, counted, address_sockets) =
            (true, None, true, AddressSockets::default());
        let listener = UdpListener {
            socket,
            service,
            port,
            wildcard,
            per_address,
            address_sockets,
            connected,
            readable,
            closing_at,
            shards_in_use,
            counted,
        };
        self.listeners.insert(listen_socket.number, listener);
        if per_address {
            self.refresh_at = Some(cx.now);
        }
        Ok(())
    }

    /// Each address of this host has its own socket, where it has to.
    fn refresh_address_sockets(&mut self, cx: &Context) {
        self.refresh_at = None;
        for (&number, listener) in
            self.listeners.iter_mut().filter(|(_, listener)| listener.per_address)
        {
            let before = listener.address_sockets.count();
            listener.address_sockets.refresh(
                &listener.socket,
                token(number, TokenKind::Listener),
                cx,
            );
            if listener.address_sockets.count() != before {
                info!(target: "redirect", "port {}: {} addresses have a socket each", listener.port, listener.address_sockets.count());
            }
            self.refresh_at = Some(cx.now + REFRESH_INTERVAL);
        }
    }

    /// Closes the sockets that are to be closed and have no flows any more, here
    /// and in other loops.
    fn close_drained(&mut self, flows: &mut Flows, cx: &mut Context) {
        self.recheck_at = None;
        self.listeners.retain(|&number, listener| {
            let Some(until) = listener.closing_at else { return true };
            if until <= cx.now {
                flows.handle_input(Input::Close { socket: number }, cx.now);
            }
            if flows.is_socket_used(number) {
                return true;
            }
            if std::mem::take(&mut listener.counted) {
                listener.shards_in_use.fetch_sub(1, Ordering::Relaxed);
            }
            let stays = until > cx.now && listener.shards_in_use.load(Ordering::Relaxed) > 0;
            if stays {
                self.recheck_at = Some(cx.now + RECHECK_INTERVAL);
            }
            stays
        });
    }

    /// The options of its flows.
    pub fn options(&self) -> FlowOptions {
        FlowOptions {
            redirect: self.settings.redirect_options(),
            flows_max: (DescriptorBudget::of(&self.settings).flows / self.shard.count).max(1),
            services: self
                .settings
                .services
                .iter()
                .map(|service| (service.name, service.udp))
                .collect(),
        }
    }

    /// A socket is to be closed, once its flows have ended; takes what is there.
    fn start_closing(&mut self, number: usize, flows: &mut Flows, cx: &mut Context) {
        let Some(listener) = self.listeners.get_mut(&number) else { return };
        (listener.closing_at, listener.readable) =
            (Some(cx.now + self.settings.drain_timeout), true);
        self.receive(number, flows, cx);
        flows.handle_input(Input::StopNewFlows { socket: number }, cx.now);
    }

    /// Takes what clients sent to a listen socket.
    fn receive(&mut self, number: usize, flows: &mut Flows, cx: &mut Context) {
        let Some(listener) = self.listeners.get_mut(&number).filter(|listener| listener.readable)
        else {
            return;
        };
        listener.readable = false;
        let mut more = false;
        for address_socket in
            std::iter::once(None).chain((0..listener.address_sockets.count()).map(Some))
        {
            more |= self.receive_batch(number, address_socket, flows, cx);
        }
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.readable |= more;
        }
    }

    /// Takes what clients sent to one socket of a listen socket. Whether there may be more.
    fn receive_batch(
        &mut self,
        number: usize,
        address_socket: Option<usize>,
        flows: &mut Flows,
        cx: &mut Context,
    ) -> bool {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(&number) else { return false };
            let received = if let Some(index) = address_socket {
                let Some((ip, socket)) = listener.address_sockets.get(index) else { return false };
                socket.recv_from(&mut self.buffer).map(|(count, client)| (count, client, Some(*ip)))
            } else if listener.wildcard {
                datagram::receive(&listener.socket, &mut self.buffer)
            } else {
                listener
                    .socket
                    .recv_from(&mut self.buffer)
                    .map(|(count, client)| (count, client, None))
            };
            match received {
                Ok((count, client, local)) => {
                    let key = FlowKey { socket: number, client, local };
                    let datagram = &self.buffer[..count];
                    let routed =
                        flows.on_datagram(key, listener.service, listener.port, datagram, cx.now);
                    let Some((flow, to)) = routed else { continue };
                    let Some(upstream) = self.upstreams.get(flow) else { continue };
                    if upstream.send(datagram, to) == SendResult::Unreachable {
                        flows.handle_input(Input::ProviderUnreachable { flow }, cx.now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An earlier answer found its client gone: nobody's fault, and it is
                // the next datagram that this call would have brought.
                Err(error)
                    if datagram::is_unreachable(&error)
                        || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "redirect", "port {}: {error}", listener.port);
                    self.paused_until = Some(cx.now + PAUSE);
                    return true;
                }
            }
        }
        cx.skip_sleep = true;
        true
    }

    /// Opens a flow's socket and sends what waited for it.
    fn open_upstream(&mut self, flow: Key, to: SocketAddr, flows: &mut Flows, cx: &mut Context) {
        let (header, token) = (self.header(flow, flows), token(flow.index(), TokenKind::Upstream));
        let port_may_change = flows.is_tftp(flow);
        let upstream = match Upstream::open(flow, to, port_may_change, header, token, cx) {
            Ok(upstream) => self.upstreams.add(upstream),
            Err(error)
                if socket::is_out_of_sockets(&error) || socket::is_port_exhausted(&error) =>
            {
                return flows.handle_input(Input::NoLocalPort { flow }, cx.now);
            }
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                return flows.handle_input(Input::OpenFailed { flow }, cx.now);
            }
        };
        let refused = flows
            .unconfirmed(flow)
            .any(|datagram| upstream.send(datagram, to) == SendResult::Unreachable);
        flows.handle_input(Input::Opened { flow }, cx.now);
        if refused {
            flows.handle_input(Input::ProviderUnreachable { flow }, cx.now);
        }
    }

    /// What a new provider of a flow is told first.
    fn header(&self, flow: Key, flows: &Flows) -> Option<Header> {
        let key = flows.key(flow)?;
        let listener = self.listeners.get(&key.socket)?;
        let bound = || {
            listener
                .socket
                .local_addr()
                .ok()
                .map(|address| address.ip())
                .filter(|ip| !ip.is_unspecified())
        };
        self.proxy_protocol.udp_header(
            listener.service,
            key.client,
            || key.local.or_else(bound),
            listener.port,
        )
    }

    /// Takes what a flow's provider sent.
    fn receive_replies(&mut self, flow: Key, flows: &mut Flows, cx: &mut Context) {
        for _ in 0..BATCH {
            let Some(upstream) = self.upstreams.get(flow) else { return };
            match upstream.receive(&mut self.buffer) {
                Ok((count, from)) => {
                    let enough = upstream.take_answered();
                    let Some(key) = flows.on_reply(flow, from, count, cx.now) else { continue };
                    self.reply(key, count);
                    if enough || !flows.contains(flow) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if datagram::is_unreachable(&error) => {
                    return flows.handle_input(Input::ProviderUnreachable { flow }, cx.now);
                }
                Err(error) if socket::is_out_of_sockets(&error) => return,
                // What else the network has to say, that a datagram was too long for
                // one, is said once, and concerns no other one.
                Err(_) => {}
            }
        }
        cx.skip_sleep = true;
        self.unfinished.push(flow);
    }

    /// Sends what is in the buffer to a client, now or with what else leaves by
    /// its socket in this turn.
    fn reply(&mut self, key: FlowKey, count: usize) {
        if self.replies.0 != key.socket || self.replies.1.full() {
            self.send_replies();
            self.replies.0 = key.socket;
        }
        let Some(listener) = self.listeners.get(&key.socket) else { return };
        let datagram = &self.buffer[..count];
        if listener.connected {
            let _ = listener.socket.send(datagram);
        } else if let Some(socket) =
            key.local.and_then(|ip| listener.address_sockets.for_address(ip))
        {
            if let Err(error) = socket.send_to(datagram, key.client) {
                debug!(target: "redirect", "{}: {error}", key.client);
            }
        } else {
            self.replies.1.push(datagram, key.client, key.local);
        }
    }

    fn send_replies(&mut self) {
        let (listener, replies) = &mut self.replies;
        if let Some(listener) = self.listeners.get(listener) {
            replies.send(
                &listener.socket,
                |client, error| debug!(target: "redirect", "{client}: {error}"),
            );
        }
    }

    /// Handles what the queue reports.
    fn handle_queue_events(&mut self, flows: &mut Flows, cx: &mut Context) {
        while let Some(event) = self.queue.poll_event() {
            match event {
                QueueEvent::Up => {
                    self.metrics.queue_up(true);
                    flows.handle_input(Input::QueueUp, cx.now);
                }
                QueueEvent::Down => {
                    self.metrics.queue_up(false);
                    flows.handle_input(Input::QueueDown, cx.now);
                }
                QueueEvent::Answer(Matched::ById(id, reply)) => {
                    flows.handle_input(Input::QueueReply { id, reply }, cx.now)
                }
                QueueEvent::Answer(Matched::InOrder((), Reply::Status(lines))) => {
                    flows.handle_input(Input::Status { lines }, cx.now);
                }
                QueueEvent::Answer(Matched::InOrder((), reply)) => {
                    debug!(target: "redirect", "queue: {reply}");
                    if let Reply::Error { error, .. } = reply {
                        flows.handle_input(Input::StatusDenied { code: error.code }, cx.now);
                    }
                }
            }
        }
    }
}
