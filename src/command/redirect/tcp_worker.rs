//! The handler of the redirector: one loop's clients, providers and queue.
//!
//! Owns the clients' sockets, the connects to providers and the timeouts of
//! tunnels. Not responsible for which provider a client gets, nor for moving bytes.

use super::access_log::{self, log_note};
use super::blocked::{self, OWN_LISTENER};
use super::deferred_connects::DeferredConnects;
use super::http::HttpRedirects;
use super::listen_sockets::ListenSocket;
use super::per_source::PerSourceLimit;
use super::proxy_protocol::{Arrival, Identified};
use super::shared::{MovedSocket, SharedState, WorkerCommand};
use super::worker::{self, CommonInput, SocketRole, Worker, WorkerBase, WorkerMachine};
use crate::command::daemon::DescriptorBudget;
use crate::net::event_loop::{Context, Handler};
use crate::net::listeners::{Accepted, Listeners};
use crate::net::shared_counter::Permit;
use crate::net::tunnel::{ConnectStatus, RelayBuffers, Tunnel, TunnelStatus, ALL_INTERESTS};
use crate::os::connect::connect;
use crate::os::socket::{self, Socket};
use log::{debug, warn};
use mio::event::Event;
use mio::net::TcpStream;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::source_key::SourceKey;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::base::timer_queue::TimerQueue;
use pegasus_core::redirect::answers::Input as Question;
use pegasus_core::redirect::redirector::{Failure, Input, Output, RedirectLog, Redirector};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;

mod redirects;

/// How often a connection is looked at for hosts that are gone. One that does not
/// last so long costs no call.
const PEER_CHECK_INTERVAL: Span = Span::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TunnelPhase {
    /// Its PROXY header is still incomplete.
    Identifying,
    Waiting,
    Connecting,
    Relaying,
    /// Its HTTP request is answered with a redirect.
    Redirecting,
}

struct Client {
    tunnel: Tunnel,
    phase: TunnelPhase,
    /// The last byte either way; before, when the connect began.
    last_active: Moment,
    half_closed: bool,
    /// It is among the unfinished ones of this turn.
    is_unfinished: bool,
    /// The source that it is counted for.
    source: Option<SourceKey>,
    _permit: Permit,
}

impl Client {
    /// Its bytes are moved once more, at the end of this turn.
    fn mark_unfinished(&mut self, key: Key, list: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.is_unfinished, true) {
            list.push(key);
        }
    }
}

/// The clients of one event loop.
pub struct TcpWorker {
    base: WorkerBase,
    listeners: Listeners<ServiceName>,
    clients: Slab<Client>,
    unfinished: Vec<Key>,
    timers: TimerQueue<Key>,
    buffers: RelayBuffers,
    clients_max: usize,
    deferred_connects: DeferredConnects,
    last_outcome: Option<Outcome>,
    per_source: PerSourceLimit,
    redirects: HttpRedirects,
}

/// Whether a socket is its own peer. Where nothing listens at a port of this host, the
/// system may choose that port for the connecting socket too (RFC 9293, 3.5): the two
/// ends of the handshake are one.
fn is_connected_to_itself(provider: &TcpStream, to: SocketAddr) -> bool {
    provider.local_addr().is_ok_and(|own| own.port() == to.port() && own.ip() == to.ip())
}

impl Handler for TcpWorker {
    type StateMachine = Redirector;
    type Command = WorkerCommand;

    fn on_event(&mut self, event: &Event, redirector: &mut Redirector, cx: &mut Context) {
        let (role, number) = SocketRole::of(event.token());
        match role {
            SocketRole::Listener => return self.listeners.on_readable(number),
            SocketRole::Queue => return self.base.on_queue_event(event, redirector, cx),
            SocketRole::Datagrams | SocketRole::Client | SocketRole::Provider => {}
        }
        let Some(key) = self.clients.key_at(number) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        if role == SocketRole::Client {
            let is_there = client.tunnel.on_client_event(event);
            if client.phase == TunnelPhase::Identifying {
                let identified = self.base.proxy_protocol.read_header(key, &mut client.tunnel);
                return self.on_identified(key, identified, redirector, cx);
            }
            if client.phase == TunnelPhase::Redirecting {
                if is_there {
                    return self.advance_redirect(key, cx.now);
                }
                return self.end_redirect(key, Outcome::GaveUp, cx.now);
            }
            if !is_there && client.phase != TunnelPhase::Relaying {
                redirector.handle_input(Input::ClientLeft { client: key }, cx.now);
            }
        } else {
            client.tunnel.on_provider_event(event);
            if client.phase == TunnelPhase::Connecting {
                self.check_connect(key, redirector, cx);
            }
        }
        self.transfer(key, redirector, cx);
    }

    fn on_output(&mut self, output: Output, redirector: &mut Redirector, cx: &mut Context) {
        match output {
            Output::SendToQueue(request) => self.base.ask(request, redirector, cx.now),
            Output::Connect { client, to } => self.connect(client, to, redirector, cx),
            Output::AbortConnect { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.phase = TunnelPhase::Waiting;
                    client.tunnel.drop_provider();
                }
            }
            Output::ResetClient { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.tunnel.drop_provider();
                    client.tunnel.reset_client();
                }
                self.drop_client(client);
            }
            Output::Log(note) => {
                self.base.metrics.record(&note, false);
                if let RedirectLog::Closed { outcome, .. } = note {
                    self.last_outcome = Some(outcome);
                }
                log_note(&note, self.base.proxy_protocol.is_check(&note));
            }
        }
    }

    fn on_command(
        &mut self,
        command: WorkerCommand,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        worker::on_command(self, command, redirector, cx);
    }

    fn on_timeout(&mut self, redirector: &mut Redirector, cx: &mut Context) {
        worker::on_timeout(self, redirector, cx);
        while let Some(key) = self.base.proxy_protocol.pop_expired(cx.now) {
            self.on_identified(key, Identified::Rejected, redirector, cx);
        }
        while let Some(key) = self.timers.pop_due(cx.now) {
            self.check_client(key, redirector, cx);
        }
        self.end_late_redirects(cx.now);
    }

    fn next_timeout(&self) -> Option<Moment> {
        let own = [
            self.base.next_timeout(),
            self.timers.next_deadline(),
            self.listeners.next_timeout(),
            self.base.proxy_protocol.next_timeout(),
            self.deferred_connects.next_timeout(),
            self.redirects.next_timeout(),
        ];
        own.into_iter().flatten().min()
    }

    fn end_turn(&mut self, redirector: &mut Redirector, cx: &mut Context) -> bool {
        for key in std::mem::take(&mut self.unfinished) {
            if let Some(client) = self.clients.get_mut(key) {
                client.is_unfinished = false;
            }
            self.transfer(key, redirector, cx);
        }
        self.retry_deferred(redirector, cx);
        let most = if self.deferred_connects.any_waiting() { 0 } else { self.clients_max };
        let acquire = || self.base.client_count.try_acquire(most);
        for accepted in self.listeners.accept(cx, acquire) {
            match accepted {
                Accepted::Client { owner, port, stream, from, permit } => {
                    self.admit(stream, Arrival::new(owner, from, port), permit, redirector, cx);
                }
                Accepted::OutOfSockets(error) => {
                    warn!(target: "redirect", "accepting pauses: {error}")
                }
            }
        }
        self.send_redirects(redirector, cx);
        self.base.flush_queue(redirector, cx);
        if self.base.exit_policy.is_past_deadline(cx.now) {
            for key in self.clients.keys() {
                self.end_redirect(key, Outcome::Drained, cx.now);
                self.finish(key, Outcome::Drained, redirector, cx);
            }
        }
        self.base.poll_finished(self.clients.len(), cx.now)
    }
}

impl Worker for TcpWorker {
    fn base(&mut self) -> &mut WorkerBase {
        &mut self.base
    }

    fn listen(&mut self, listen_socket: &ListenSocket, cx: &Context) -> io::Result<()> {
        let Socket::Tcp(listener) = &*listen_socket.socket else { return Ok(()) };
        let ListenSocket { number, service, .. } = *listen_socket;
        let token = SocketRole::Listener.token(number);
        self.listeners.add(number, service, listener.try_clone()?, token, cx)
    }

    fn close_listener(&mut self, number: usize, _: &mut Redirector, cx: &mut Context) {
        self.listeners.close_when_empty(number, cx.now);
    }

    fn reassign_listener(&mut self, number: usize, service: ServiceName) {
        self.listeners.reassign(number, service);
    }

    fn stop_listening(&mut self, _: &mut Redirector, cx: &mut Context) {
        if self.base.exit_policy.lingers() {
            // Clients in the backlog are left to the superserver.
            self.listeners.close(cx);
        }
        self.listeners.close_all_when_empty(cx.now);
    }

    fn hand_over(
        &mut self,
        _: &Sender<MovedSocket>,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        self.stop_listening(redirector, cx);
    }

    fn apply_settings(&mut self, redirector: &mut Redirector, cx: &mut Context) {
        let settings = &self.base.settings;
        redirector.handle_input(Input::Reconfigure(settings.redirect_options()), cx.now);
        let budget = DescriptorBudget::of(settings);
        self.clients_max = budget.clients;
        self.buffers.set_pipes_max(budget.pipes);
        self.redirects.reconfigure(settings);
        // Clients that are here may have less time from now on.
        self.timers = TimerQueue::default();
        for (key, client) in self.clients.iter() {
            if client.phase == TunnelPhase::Relaying {
                let most = self.silence_max(client).min(PEER_CHECK_INTERVAL);
                self.timers.schedule(cx.now + most, key);
            }
        }
    }
}

impl WorkerMachine for Redirector {
    fn handle_common(&mut self, input: CommonInput, now: Moment) {
        let input = match input {
            CommonInput::QueueUp => Input::QueueUp,
            CommonInput::QueueDown => Input::QueueDown,
            CommonInput::QueueReply { id, reply } => Input::QueueReply { id, reply },
            CommonInput::Fallback { service, addresses } => Input::Fallback { service, addresses },
            CommonInput::QueueAnswer(reply) => return debug!(target: "redirect", "queue: {reply}"),
        };
        self.handle_input(input, now);
    }
}

impl TcpWorker {
    /// A worker without clients. `seed` makes its jitter differ from that of others.
    ///
    /// # Errors
    /// As many workers as were announced ask the queue of this process already.
    pub fn new(shared: &SharedState, seed: u64, cx: &Context) -> io::Result<TcpWorker> {
        let settings = &shared.settings;
        let budget = DescriptorBudget::of(settings);
        let mut buffers = RelayBuffers::new(settings.redirect_splice, shared.pipe_count.clone());
        buffers.set_pipes_max(budget.pipes);
        Ok(TcpWorker {
            base: WorkerBase::new(shared, seed, cx)?,
            listeners: Listeners::default(),
            clients: Slab::default(),
            unfinished: Vec::new(),
            timers: TimerQueue::default(),
            buffers,
            clients_max: budget.clients,
            deferred_connects: DeferredConnects::default(),
            last_outcome: None,
            per_source: PerSourceLimit::new(shared.source_limiter.clone()),
            redirects: HttpRedirects::new(settings),
        })
    }

    /// A client's timer is due: ends the connection if it was silent for too long, or
    /// if a host is gone.
    fn check_client(&mut self, key: Key, redirector: &mut Redirector, cx: &mut Context) {
        let Some(client) =
            self.clients.get_mut(key).filter(|client| client.phase == TunnelPhase::Relaying)
        else {
            return;
        };
        match client.tunnel.check_peers(cx.now) {
            TunnelStatus::Closed(outcome) => return self.finish(key, outcome, redirector, cx),
            TunnelStatus::ProviderFailed => {
                return self.on_connect_failed(key, Failure::TimedOut, redirector, cx)
            }
            TunnelStatus::Open | TunnelStatus::Unfinished => {}
        }
        let Some(client) = self.clients.get(key) else { return };
        let deadline = client.last_active + self.silence_max(client);
        if deadline > cx.now {
            self.timers.schedule(deadline.min(cx.now + PEER_CHECK_INTERVAL), key);
        } else {
            let outcome = if client.half_closed { Outcome::HalfClosed } else { Outcome::Idle };
            self.finish(key, outcome, redirector, cx);
        }
    }

    /// How the last client ended.
    pub fn last_outcome(&self) -> Option<Outcome> {
        self.last_outcome
    }

    fn silence_max(&self, client: &Client) -> Span {
        let idle = self.base.settings.redirect_idle_timeout;
        if client.half_closed {
            idle.min(self.base.settings.redirect_half_closed_timeout)
        } else {
            idle
        }
    }

    /// Takes a client in.
    pub fn admit(
        &mut self,
        mut stream: TcpStream,
        arrival: Arrival,
        permit: Permit,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        let index = self.clients.next_index();
        if let Err(error) =
            cx.registry.register(&mut stream, SocketRole::Client.token(index), ALL_INTERESTS)
        {
            warn!(target: "redirect", "{}: {error}", arrival.from);
            return;
        }
        let key = self.clients.insert(Client {
            tunnel: Tunnel::new(stream),
            phase: TunnelPhase::Identifying,
            last_active: cx.now,
            half_closed: false,
            is_unfinished: false,
            source: None,
            _permit: permit,
        });
        debug_assert_eq!(key.index(), index);
        let Some(client) = self.clients.get_mut(key) else { return };
        let identified =
            self.base.proxy_protocol.on_arrival(key, arrival, &mut client.tunnel, cx.now);
        self.on_identified(key, identified, redirector, cx);
    }

    /// A client is identified, or not yet, or rejected.
    fn on_identified(
        &mut self,
        key: Key,
        identified: Identified,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match identified {
            Identified::Client(arrival @ Arrival { service, from, port }) => {
                let max = self.base.settings.redirect_per_source_max;
                match self.per_source.try_acquire(from, max, cx.now) {
                    Ok(source) => client.source = source,
                    Err(()) => {
                        return self.on_identified(key, Identified::Rejected, redirector, cx)
                    }
                }
                client.phase = TunnelPhase::Waiting;
                self.base.metrics.client_arrived(service);
                if self.redirects.includes(service) {
                    return self.begin_redirect(key, arrival, cx.now);
                }
                redirector
                    .handle_input(Input::Arrived { client: key, service, from, port }, cx.now);
            }
            Identified::Incomplete => {}
            Identified::Rejected => {
                client.tunnel.reset_client();
                self.drop_client(key);
            }
        }
    }

    /// Connects a client to a provider, in turn.
    fn connect(&mut self, key: Key, to: SocketAddr, redirector: &mut Redirector, cx: &mut Context) {
        // Connects that already wait get descriptors first.
        let result = (!self.deferred_connects.any_waiting())
            .then(|| self.try_connect(key, to, redirector, cx));
        if !matches!(result, Some(Ok(()))) {
            redirector.handle_input(Input::ConnectDeferred { client: key }, cx.now);
            self.deferred_connects.defer(key, to, result.and_then(Result::err).as_ref(), cx.now);
        }
    }

    /// Makes the connects that had to wait, as far as there are descriptors now.
    fn retry_deferred(&mut self, redirector: &mut Redirector, cx: &mut Context) {
        while let Some((key, to)) = self.deferred_connects.pop_ready(cx.now) {
            if self.clients.get(key).is_none() {
                continue;
            }
            redirector.handle_input(Input::ConnectStarted { client: key }, cx.now);
            if self.try_connect(key, to, redirector, cx).is_err() {
                redirector.handle_input(Input::ConnectDeferred { client: key }, cx.now);
                return self.deferred_connects.defer_first(key, to, cx.now);
            }
        }
    }

    /// Connects to a provider.
    ///
    /// # Errors
    /// The system has no descriptor for that.
    fn try_connect(
        &mut self,
        key: Key,
        to: SocketAddr,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) -> Result<(), io::Error> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        if self.base.own_listeners.leads_back(Transport::Tcp, to, cx.now) {
            self.base.blocked_log.log(to, &OWN_LISTENER, cx.now);
            redirector.handle_input(Input::ConnectBlocked { client: key }, cx.now);
            return Ok(());
        }
        client.phase = TunnelPhase::Connecting;
        client.last_active = cx.now;
        let result = client.tunnel.connect(&mut self.buffers, |has_early_data| {
            let mut provider = connect(to, has_early_data)?;
            cx.registry.register(
                &mut provider,
                SocketRole::Provider.token(key.index()),
                ALL_INTERESTS,
            )?;
            io::Result::Ok(provider)
        });
        match result {
            Ok(ConnectStatus::Pending) => {}
            Ok(ConnectStatus::Connected) => {
                client.mark_unfinished(key, &mut self.unfinished);
                self.on_connected(key, to, redirector, cx);
            }
            Ok(ConnectStatus::Refused) => {
                self.on_connect_failed(key, Failure::Refused, redirector, cx)
            }
            Ok(ConnectStatus::ClientGone) => {
                redirector.handle_input(Input::ClientLeft { client: key }, cx.now)
            }
            Err(error) => {
                debug!(target: "redirect", "{to}: {error}");
                if socket::is_out_of_sockets(&error) {
                    client.phase = TunnelPhase::Waiting;
                    self.buffers.close_idle_pipes();
                    return Err(error);
                }
                client.phase = TunnelPhase::Waiting;
                if blocked::is_blocked(&error, to) {
                    self.base.blocked_log.log(to, &error, cx.now);
                    redirector.handle_input(Input::ConnectBlocked { client: key }, cx.now);
                } else {
                    let failed = Input::ConnectFailed { client: key, why: Failure::Refused };
                    redirector.handle_input(failed, cx.now);
                }
            }
        }
        Ok(())
    }

    /// A connect succeeded, or did not.
    fn check_connect(&mut self, key: Key, redirector: &mut Redirector, cx: &mut Context) {
        let Some(provider) = self.clients.get(key).and_then(|client| client.tunnel.provider())
        else {
            return;
        };
        match provider.take_error() {
            Ok(None) => {
                if let Ok(to) = provider.peer_addr() {
                    self.on_connected(key, to, redirector, cx);
                }
            }
            Ok(Some(error)) | Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::TimedOut => Failure::TimedOut,
                    io::ErrorKind::ConnectionReset => Failure::Reset,
                    _ => Failure::Refused,
                };
                self.on_connect_failed(key, why, redirector, cx);
            }
        }
    }

    fn on_connected(
        &mut self,
        key: Key,
        to: SocketAddr,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.tunnel.provider().is_some_and(|provider| is_connected_to_itself(provider, to)) {
            return self.on_connect_failed(key, Failure::Refused, redirector, cx);
        }
        client.phase = TunnelPhase::Relaying;
        let started = std::mem::replace(&mut client.last_active, cx.now);
        if let Some(service) = redirector.service(key) {
            self.base.metrics.connected(service, cx.now.since(started));
        }
        let deadline = cx.now + self.base.settings.redirect_idle_timeout.min(PEER_CHECK_INTERVAL);
        self.timers.schedule(deadline, key);
        let clients = &self.clients;
        self.timers.prune(|key| clients.get(key).is_some());
        redirector.handle_input(Input::Connected { client: key }, cx.now);
    }

    fn on_connect_failed(
        &mut self,
        key: Key,
        why: Failure,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        if let Some(client) = self.clients.get_mut(key) {
            client.phase = TunnelPhase::Waiting;
            client.half_closed = false;
            client.tunnel.drop_provider();
            redirector.handle_input(Input::ConnectFailed { client: key, why }, cx.now);
        }
    }

    /// Moves a client's bytes on, if it has a provider that answered.
    fn transfer(&mut self, key: Key, redirector: &mut Redirector, cx: &mut Context) {
        let Some(client) =
            self.clients.get_mut(key).filter(|client| client.phase == TunnelPhase::Relaying)
        else {
            return;
        };
        client.last_active = cx.now;
        match client.tunnel.transfer(&mut self.buffers) {
            TunnelStatus::Open => {}
            TunnelStatus::Unfinished => {
                cx.skip_sleep = true;
                client.mark_unfinished(key, &mut self.unfinished);
            }
            TunnelStatus::ProviderFailed => {
                return self.on_connect_failed(key, Failure::Reset, redirector, cx)
            }
            TunnelStatus::Closed(outcome) => return self.finish(key, outcome, redirector, cx),
        }
        let client_token = SocketRole::Client.token(key.index());
        let provider_token = SocketRole::Provider.token(key.index());
        client.tunnel.update_interest(&cx.registry, client_token, provider_token);
        if !client.half_closed && client.tunnel.half_closed() {
            client.half_closed = true;
            let deadline = cx.now + self.base.settings.redirect_half_closed_timeout;
            self.timers.schedule(deadline, key);
        }
    }

    /// A client's visit is over.
    fn finish(
        &mut self,
        key: Key,
        outcome: Outcome,
        redirector: &mut Redirector,
        cx: &mut Context,
    ) {
        let Some(client) = self.clients.get(key) else { return };
        let (sent, received) = client.tunnel.moved();
        let result = client.tunnel.result(outcome);
        let provider = client.tunnel.provider().filter(|_| access_log::is_on());
        let local = provider.and_then(|provider| provider.local_addr().ok());
        self.drop_client(key);
        let closed = Input::Closed { client: key, outcome, result, local, sent, received };
        redirector.handle_input(closed, cx.now);
    }

    fn drop_client(&mut self, key: Key) {
        if let Some(client) = self.clients.remove(key) {
            self.base.proxy_protocol.forget(key);
            if self.redirects.forget(key) {
                self.base.answerer.handle_input(Question::Forget { question: key }, Moment::ZERO);
            }
            self.deferred_connects.descriptors_freed();
            if let Some(source) = client.source {
                self.per_source.release(source);
            }
            let was_full = self.base.client_count.count() >= self.clients_max;
            // Its permit goes first, so that there is room.
            drop(client);
            self.listeners.resume(was_full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_is_small() {
        // Without optimisation mio remembers the loop of each socket, and on Windows more.
        let of_mio = 2 * (size_of::<TcpStream>() - size_of::<std::net::TcpStream>());
        assert!(cfg!(windows) || size_of::<Client>() - of_mio <= 128);
    }
}
