//! The handler of the flows: the sockets that datagrams come to, and what goes
//! between these and providers.
//!
//! Owns those sockets, and what to do when the system has none to spare. Not
//! responsible for which flow a datagram belongs to, nor for when that ends.
//! A flow never changes its loop: the system divides the clients, not the
//! datagrams, among the loops of a process.

use super::access_log::AccessLog;
use super::address_sockets::AddressSockets;
use super::blocked::{is_forbidden, OWN_LISTENER};
use super::listen_sockets::ListenSocket;
use super::shared::{SharedState, WorkerCommand};
use super::upstreams::{SendResult, Upstream, Upstreams};
use super::worker::{self, CommonInput, Worker, WorkerBase, WorkerMachine};
use crate::command::daemon::DescriptorBudget;
use crate::net::event_loop::{Context, Handler};
use crate::os::datagram::{self, Outgoing, DATAGRAM_BYTES};
use crate::os::socket::{self, Socket};
use log::{debug, info};
use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Token};
use pegasus_core::base::address::Transport;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
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
/// How long a socket rests after an unexpected error.
const PAUSE: Span = Span::from_millis(100);
/// How often a worker looks whether others are done with a listen socket.
const RECHECK_INTERVAL: Span = Span::from_millis(50);
/// How often it looks for new addresses of this host, where it has to.
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
    /// The superserver connected it to its only client.
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

/// The flows of one event loop.
pub struct UdpWorker {
    base: WorkerBase,
    /// By their numbers.
    listeners: HashMap<usize, UdpListener>,
    upstreams: Upstreams,
    unfinished: Vec<Key>,
    buffer: Vec<u8>,
    /// Answers of this turn, and the number of the socket that they leave by.
    replies: (usize, Outgoing),
    shard: Shard,
    /// Flows that this worker added to the count of all workers.
    flows_counted: usize,
    paused_until: Option<Moment>,
    /// When to look whether other loops are done with a place.
    recheck_at: Option<Moment>,
    /// When to look for addresses of this host.
    refresh_at: Option<Moment>,
    access_log: AccessLog,
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
            self.base.queue.on_event(event, cx);
            self.base.handle_queue_events(flows, cx.now);
        } else if let Some(flow) = self.upstreams.flow(number) {
            self.receive_replies(flow, flows, cx);
            if event.is_error() {
                self.upstreams.get(flow).inspect(|upstream| upstream.clear_errors());
            }
        }
    }

    fn on_output(&mut self, output: Output, flows: &mut Flows, cx: &mut Context) {
        match output {
            Output::SendToQueue(request) => self.base.ask(request, flows, cx.now),
            Output::StatusDenied => {
                info!(
                    target: "redirect",
                    "status is denied (queue_allow_status): \
                     flows do not end when their provider withdraws"
                );
            }
            Output::Open { flow, to } => self.open_upstream(flow, to, flows, cx),
            Output::Drop { flow } => self.upstreams.close(flow),
            Output::Log(note) => {
                self.base.metrics.record(&note, true);
                self.access_log.log(&note, cx.now);
            }
        }
    }

    fn on_command(&mut self, command: WorkerCommand, flows: &mut Flows, cx: &mut Context) {
        worker::on_command(self, command, flows, cx);
    }

    fn on_timeout(&mut self, flows: &mut Flows, cx: &mut Context) {
        worker::on_timeout(self, flows, cx);
        if self.paused_until.is_some_and(|until| cx.now >= until) {
            self.paused_until = None;
        }
        if self.refresh_at.is_some_and(|at| cx.now >= at) {
            self.refresh_address_sockets(cx);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let base = self.base.next_timeout();
        let own = [base, self.paused_until, self.recheck_at, self.refresh_at];
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
        self.base.flush_queue(flows, cx);
        if self.base.exit_policy.is_past_deadline(cx.now) {
            flows.handle_input(Input::End, cx.now);
        }
        let here = flows.count();
        // The sum of all workers is at least what this one has: it may wrap, not end.
        let change = here.wrapping_sub(self.flows_counted);
        self.base.flow_count.fetch_add(change, Ordering::Relaxed);
        self.flows_counted = here;
        self.base.poll_finished(here, cx.now)
    }
}

impl Worker for UdpWorker {
    fn base(&mut self) -> &mut WorkerBase {
        &mut self.base
    }

    fn listen(&mut self, listen_socket: &ListenSocket, cx: &Context) -> io::Result<()> {
        let Socket::Udp(socket) = &*listen_socket.socket else { return Ok(()) };
        if listen_socket.shard % self.shard.count != self.shard.index {
            return Ok(());
        }
        let socket = socket.try_clone()?;
        let knows_destination = datagram::prepare(&socket);
        let connected = socket.peer_addr().is_ok();
        let local = socket.local_addr()?;
        let mut socket = UdpSocket::from_std(socket);
        let token = token(listen_socket.number, TokenKind::Listener);
        cx.registry.register(&mut socket, token, Interest::READABLE)?;
        // A superserver that lent its socket watches no other one.
        let per_address = !knows_destination
            && !connected
            && !self.base.exit_policy.lingers()
            && self.shard.index == 0;
        let listener = UdpListener {
            socket,
            service: listen_socket.service,
            port: local.port(),
            wildcard: local.ip().is_unspecified(),
            per_address,
            address_sockets: AddressSockets::default(),
            connected,
            readable: true,
            closing_at: None,
            shards_in_use: listen_socket.shards_in_use.clone(),
            counted: true,
        };
        self.listeners.insert(listen_socket.number, listener);
        if per_address {
            self.refresh_at = Some(cx.now);
        }
        Ok(())
    }

    /// Takes what is there; the socket is closed once its flows have ended.
    fn close_listener(&mut self, number: usize, flows: &mut Flows, cx: &mut Context) {
        let Some(listener) = self.listeners.get_mut(&number) else { return };
        listener.closing_at = Some(cx.now + self.base.settings.drain_timeout);
        listener.readable = true;
        self.receive(number, flows, cx);
        flows.handle_input(Input::StopNewFlows { socket: number }, cx.now);
    }

    fn reassign_listener(&mut self, number: usize, service: ServiceName) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.service = service;
        }
    }

    fn stop_listening(&mut self, flows: &mut Flows, cx: &mut Context) {
        flows.handle_input(Input::Drain, cx.now);
    }

    fn hand_over(&mut self, _: &mut Flows, _: &mut Context) {
        // Another process reads these sockets. Flows that are here go on being answered.
        self.paused_until = Some(Moment::NEVER);
        for listener in self.listeners.values_mut() {
            listener.per_address = false;
            listener.address_sockets = AddressSockets::default();
        }
    }

    fn apply_settings(&mut self, flows: &mut Flows, cx: &mut Context) {
        flows.handle_input(Input::Reconfigure(self.options()), cx.now);
        self.refresh_address_sockets(cx);
    }
}

impl WorkerMachine for Flows {
    fn handle_common(&mut self, input: CommonInput, now: Moment) {
        let input = match input {
            CommonInput::QueueUp => Input::QueueUp,
            CommonInput::QueueDown => Input::QueueDown,
            CommonInput::QueueReply { id, reply } => Input::QueueReply { id, reply },
            CommonInput::Fallback { service, addresses } => Input::Fallback { service, addresses },
            CommonInput::QueueAnswer(Reply::Status(lines)) => Input::Status { lines },
            CommonInput::QueueAnswer(reply) => {
                debug!(target: "redirect", "queue: {reply}");
                let Reply::Error { error, .. } = reply else { return };
                Input::StatusDenied { code: error.code }
            }
        };
        self.handle_input(input, now);
    }
}

impl UdpWorker {
    /// A worker without a socket. `seed` makes its jitter differ from that of others.
    ///
    /// # Errors
    /// As many workers as were announced ask the queue of this process already.
    pub fn new(
        shared: &SharedState,
        shard: Shard,
        seed: u64,
        cx: &Context,
    ) -> io::Result<UdpWorker> {
        Ok(UdpWorker {
            base: WorkerBase::new(shared, token(0, TokenKind::Queue), seed, cx)?,
            listeners: HashMap::new(),
            upstreams: Upstreams::default(),
            unfinished: Vec::new(),
            buffer: vec![0; DATAGRAM_BYTES],
            replies: Default::default(),
            shard,
            flows_counted: 0,
            paused_until: None,
            recheck_at: None,
            refresh_at: None,
            access_log: AccessLog::default(),
        })
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
                info!(
                    target: "redirect",
                    "port {}: {} addresses have a socket each",
                    listener.port,
                    listener.address_sockets.count()
                );
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
        let settings = &self.base.settings;
        FlowOptions {
            redirect: settings.redirect_options(),
            flows_max: (DescriptorBudget::of(settings).flows / self.shard.count).max(1),
            services: settings.services.iter().map(|service| (service.name, service.udp)).collect(),
        }
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
                    let result = upstream.send(datagram, to);
                    self.on_sent(flow, to, result, flows, cx);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An earlier answer found its client gone. The error came in the place of
                // the next datagram.
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
        if self.base.own_listeners.leads_back(Transport::Udp, to, cx.now) {
            self.base.blocked_log.log(to, &OWN_LISTENER, cx.now);
            return flows.handle_input(Input::SendBlocked { flow }, cx.now);
        }
        let header = self.header(flow, flows);
        let token = token(flow.index(), TokenKind::Upstream);
        let port_may_change = flows.is_tftp(flow);
        let upstream = match Upstream::open(flow, to, port_may_change, header, token, cx) {
            Ok(upstream) => self.upstreams.add(upstream),
            // Without a local port for this provider there is none for another one.
            Err(error)
                if socket::is_out_of_sockets(&error) || socket::is_port_exhausted(&error) =>
            {
                return flows.handle_input(Input::NoSocket { flow }, cx.now);
            }
            Err(error) if is_forbidden(&error) => {
                self.base.blocked_log.log(to, &error, cx.now);
                return flows.handle_input(Input::SendBlocked { flow }, cx.now);
            }
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                return flows.handle_input(Input::OpenFailed { flow }, cx.now);
            }
        };
        let failed =
            |result: &SendResult| matches!(result, SendResult::Unreachable | SendResult::Blocked);
        let results = flows.unconfirmed(flow).map(|datagram| upstream.send(datagram, to));
        let result = { results }.find(failed).unwrap_or(SendResult::Sent);
        flows.handle_input(Input::Opened { flow }, cx.now);
        self.on_sent(flow, to, result, flows, cx);
    }

    /// Handles what became of a datagram to a provider.
    fn on_sent(
        &mut self,
        flow: Key,
        to: SocketAddr,
        result: SendResult,
        flows: &mut Flows,
        cx: &Context,
    ) {
        match result {
            SendResult::Sent | SendResult::Lost => {}
            SendResult::Unreachable => {
                flows.handle_input(Input::ProviderUnreachable { flow }, cx.now);
            }
            SendResult::Blocked => {
                self.base.blocked_log.log(to, &"the system forbids to send there", cx.now);
                flows.handle_input(Input::SendBlocked { flow }, cx.now);
            }
        }
    }

    /// The PROXY header for a new provider of a flow.
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
        self.base.proxy_protocol.udp_header(
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
                // Other errors, such as a datagram that was too long, are reported once
                // and concern no other datagram.
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
}
