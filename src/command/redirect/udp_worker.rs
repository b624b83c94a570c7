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
use super::shared::{AdoptedFlows, MovedSocket, SharedState, WorkerCommand};
use super::udp_listener::UdpListener;
use super::upstreams::{Upstream, Upstreams};
use super::worker::{self, CommonInput, SocketRole, Worker, WorkerBase, WorkerMachine};
use crate::command::daemon::DescriptorBudget;
use crate::net::event_loop::{Context, Handler};
use crate::os::datagram::{self, Outgoing, Received, DATAGRAM_BYTES};
use crate::os::socket::{self, Socket};
use log::{debug, info};
use mio::event::Event;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::proxy_header::Header;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::redirect::flows::{FlowKey, FlowOptions, Flows, Input, Output};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

/// Received datagrams of one socket before others get their turn.
const BATCH: usize = 64;
/// How long a socket rests after an unexpected error.
const PAUSE: Span = Span::from_millis(100);
/// How often a worker looks whether others are done with a listen socket.
const RECHECK_INTERVAL: Span = Span::from_millis(50);
/// How often it looks for new addresses of this host, where it has to.
const REFRESH_INTERVAL: Span = Span::from_secs(10);

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
    /// By their numbers. They are few, and each datagram looks: that costs less than a hash.
    listeners: BTreeMap<usize, UdpListener>,
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

impl Handler for UdpWorker {
    type StateMachine = Flows;
    type Command = WorkerCommand;

    fn on_event(&mut self, event: &Event, flows: &mut Flows, cx: &mut Context) {
        let (role, number) = SocketRole::of(event.token());
        match role {
            SocketRole::Datagrams => {
                if let Some(listener) = self.listeners.get_mut(&number) {
                    listener.readable = true;
                }
            }
            SocketRole::Queue => self.base.on_queue_event(event, flows, cx),
            SocketRole::Listener | SocketRole::Client | SocketRole::Provider => {
                let Some(flow) = self.upstreams.flow(number) else { return };
                if event.is_error() {
                    self.read_errors(flow, None, flows, cx.now);
                }
                self.receive_replies(flow, flows, cx);
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
            Output::Probe { flow, to, first } => self.probe(flow, to, first, flows, cx),
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
            let readable = self.listeners.iter().filter(|(_, listener)| listener.has_work());
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
        // A superserver that lent its socket watches no other one.
        let may_watch = !self.base.exit_policy.lingers() && self.shard.index == 0;
        let token = SocketRole::Datagrams.token(listen_socket.number);
        let listener = UdpListener::open(listen_socket, socket, may_watch, token, cx)?;
        let per_address = listener.per_address;
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

    fn hand_over(&mut self, moved: &Sender<MovedSocket>, flows: &mut Flows, cx: &mut Context) {
        // Another process reads these sockets. Flows that stay go on being answered.
        self.paused_until = Some(Moment::NEVER);
        self.hand_over_flows(moved, flows, cx);
        for listener in self.listeners.values_mut() {
            listener.per_address = false;
            listener.address_sockets = AddressSockets::default();
        }
    }

    fn adopt_flows(&mut self, moved: &AdoptedFlows, flows: &mut Flows, cx: &mut Context) {
        for (&number, listener) in &mut self.listeners {
            listener.awaits_flows = false;
            let UdpListener { service, port, .. } = *listener;
            for (moved, socket) in moved.take(listener.address, listener.shard) {
                let adopted = flows.adopt(number, service, port, &moved, cx.now);
                let Some(flow) = adopted else { continue };
                let token = SocketRole::Provider.token(flow.index());
                match Upstream::adopt(flow, socket, token, cx) {
                    Ok(upstream) => _ = self.upstreams.add(upstream),
                    Err(_) => flows.handle_input(Input::OpenFailed { flow }, cx.now),
                }
            }
        }
        // What came meanwhile was reported already.
        cx.skip_sleep = true;
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
            base: WorkerBase::new(shared, seed, cx)?,
            listeners: BTreeMap::new(),
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

    /// Sends the flows that have a provider to the process that takes over. It goes on
    /// with their sockets, so that neither end notices.
    fn hand_over_flows(
        &mut self,
        moved: &Sender<MovedSocket>,
        flows: &mut Flows,
        cx: &mut Context,
    ) {
        for (key, flow) in flows.movable() {
            let at = flows.key(key).and_then(|key| self.listeners.get(&key.socket));
            let Some(listener) = at.filter(|listener| listener.closing_at.is_none()) else {
                continue;
            };
            let Some(socket) = self.upstreams.release(key, cx) else { continue };
            // If the receiver is gone, the flow ends with its socket.
            let _ = moved.send((format!("{} {} {flow}", listener.address, listener.shard), socket));
            flows.moved(key, cx.now);
        }
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
                SocketRole::Datagrams.token(number),
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
            let Some(listener) = self.listeners.get(&number) else { return false };
            match listener.take(address_socket, &mut self.buffer) {
                Ok(received) if received.to_group && listener.shard > 0 => {}
                // No reply can go to port 0. One to a listener of this process would be
                // taken for a request, and so on for ever.
                Ok(Received { from, .. })
                    if from.port() == 0
                        || self.base.own_listeners.leads_back(Transport::Udp, from, cx.now) =>
                {
                    debug!(target: "redirect", "{from}: a datagram with this source is dropped");
                }
                Ok(received) => self.forward(number, received, flows, cx),
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

    /// Sends what a client sent on to the provider of its flow, if that has one already.
    fn forward(&mut self, number: usize, received: Received, flows: &mut Flows, cx: &Context) {
        let Some(listener) = self.listeners.get(&number) else { return };
        let key = FlowKey { socket: number, client: received.from, local: received.local };
        let datagram = &self.buffer[..received.count];
        let routed = flows.on_datagram(key, listener.service, listener.port, datagram, cx.now);
        let Some((flow, to)) = routed else { return };
        let Some(upstream) = self.upstreams.get(flow) else { return };
        upstream.send(datagram, to);
        self.report_refusals(flow, flows, cx.now);
    }

    /// Opens a flow's socket and sends what waited for it.
    fn open_upstream(&mut self, flow: Key, to: SocketAddr, flows: &mut Flows, cx: &mut Context) {
        if self.base.own_listeners.leads_back(Transport::Udp, to, cx.now) {
            self.base.blocked_log.log(to, &OWN_LISTENER, cx.now);
            return flows.handle_input(Input::SendBlocked { flow }, cx.now);
        }
        let header = self.header(flow, flows);
        let token = SocketRole::Provider.token(flow.index());
        let upstream = match Upstream::open(flow, to, flows.roams(flow), header, token, cx) {
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
        flows.unconfirmed(flow).for_each(|datagram| upstream.send(datagram, to));
        flows.handle_input(Input::Opened { flow }, cx.now);
        self.report_refusals(flow, flows, cx.now);
    }

    /// Sends the last datagram of a flow again.
    fn probe(
        &mut self,
        flow: Key,
        to: SocketAddr,
        first: bool,
        flows: &mut Flows,
        cx: &mut Context,
    ) {
        let header = if first { self.header(flow, flows) } else { None };
        let Some(upstream) = self.upstreams.get(flow) else { return };
        if first {
            upstream.set_header(header);
        }
        if let Some(datagram) = flows.unconfirmed(flow).last() {
            upstream.send(datagram, to);
        }
        self.report_refusals(flow, flows, cx.now);
    }

    /// Reads what the system keeps about datagrams of a flow that did not arrive.
    /// `error`: what it returned in the place of a reply.
    fn read_errors(
        &mut self,
        flow: Key,
        error: Option<&io::Error>,
        flows: &mut Flows,
        now: Moment,
    ) {
        let (Some(upstream), Some(to)) = (self.upstreams.get(flow), flows.peer(flow)) else {
            return;
        };
        upstream.read_errors(to, error);
        self.report_refusals(flow, flows, now);
    }

    /// Tells a flow of each of its datagrams that was refused, or forbidden here.
    fn report_refusals(&mut self, flow: Key, flows: &mut Flows, now: Moment) {
        let refusals = self.upstreams.get(flow).map_or(0, Upstream::take_refusals);
        for _ in 0..refusals {
            flows.handle_input(Input::ProviderUnreachable { flow }, now);
        }
        if self.upstreams.get(flow).is_some_and(Upstream::take_blocked) {
            if let Some(to) = flows.peer(flow) {
                self.base.blocked_log.log(to, &"the system forbids to send there", now);
            }
            flows.handle_input(Input::SendBlocked { flow }, now);
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
                Err(error) if socket::is_out_of_sockets(&error) => return,
                // It is of a datagram that was sent, and concerns no reply.
                Err(error) => self.read_errors(flow, Some(&error), flows, cx.now),
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
            // The first error may be that of an earlier datagram.
            let _ = listener.socket.send(datagram).or_else(|_| listener.socket.send(datagram));
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
