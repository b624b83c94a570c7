//! The server of control connections.
//!
//! Owns the connections of redirectors, monitors and scripts: their sockets, limits and
//! timeouts. Not responsible for requests (`TicketQueue`) and the order of replies
//! (`Responder`).

use super::link::{Link, Security};
use super::shared::SharedQueue;
use crate::command::admin::Metrics;
use crate::command::plugins::Plugins;
use crate::config::settings::Settings;
use crate::net::event_loop::{self, Context, Handler};
use crate::net::listeners::{Accepted, Listeners};
use crate::os::socket::SHORT_READ_DRAINS;
use log::{debug, info, log, warn, Level};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::line_decoder::LINE_BYTES_MAX;
use pegasus_core::protocol::reply::{ErrorCode, Reply};
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::responder::{ReplySlot, Responder};
use pegasus_core::protocol::send_buffer::OUT_BYTES_MAX;
use pegasus_core::queue::ticket_queue::{Input, Output, ProviderEvent, QueueLog};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::net::{Shutdown, SocketAddr, TcpListener};

/// A connection without an active or waiting request is closed after this silence.
const IDLE_MAX: Span = Span::from_secs(600);
/// Time between searches for idle connections.
const IDLE_SWEEP: Span = Span::from_secs(10);
/// How long a refused connection stays open, so that the peer can read the error.
const LINGER: Span = Span::from_secs(2);
/// Most refused connections that stay open.
const REFUSED_MAX: usize = 256;
/// Reads of one connection before others get their turn.
const READS_MAX: usize = 4;
/// How long reading one connection and its requests may take before others get their turn.
const SLICE: Span = Span::from_nanos(500_000);
/// When all requests of a turn took so long, each further connection gets one.
const TURN_MAX: Span = Span::from_millis(2);
/// Bytes that peers have not read. Beyond it no peer gets a status, the only long answer.
const UNREAD_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 16 * 1024;

/// The most memory of so many connections and their answers, in bytes. A peer that does not
/// read has its send buffer full, and one answer more.
pub fn memory_max(connections: usize) -> usize {
    let each = OUT_BYTES_MAX + BUFFER_BYTES + LINE_BYTES_MAX + size_of::<Connection>();
    connections.saturating_mul(each).saturating_add(UNREAD_MAX)
}

/// Commands from another thread to a running queue.
pub enum QueueCommand {
    /// Drain; the second time end at once.
    Terminate,
    /// Apply new settings.
    Reconfigure(Box<Settings>),
    /// A queue of another process takes over: close every connection, so that the peers
    /// connect there.
    HandOver,
}

/// A connection of a peer.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Its address.
    pub(super) from: SocketAddr,
    pub(super) responder: Responder,
    /// What its bytes are: lines, or records with lines in them.
    pub(super) link: Link,
    /// Its address is unknown, and it has not proved a key.
    pub(super) is_stranger: bool,
    /// Until when it must have proved a key.
    pub(super) deadline: Option<Moment>,
    /// Connections before it, of all times.
    pub(super) serial: u64,
    /// It is read again at the end of this turn, or in the next one.
    unfinished: bool,
    /// A request that must wait for the next turn.
    postponed: Option<(ReplySlot, Request)>,
    readable: bool,
    writable: bool,
    dirty: bool,
    /// The peer has sent a request that it may send.
    pub(super) has_sent: bool,
    /// An event reported an end of the stream that has not been read yet.
    eof_pending: bool,
    /// The peer has closed its side, and whether the queue knows.
    eof: bool,
    eof_told: bool,
    pub(super) last_active: Moment,
    /// The connection has ended; until then further bytes are discarded.
    linger_until: Option<Moment>,
}

/// The connections, their listeners and the plug-ins.
pub struct ControlServer {
    listeners: Listeners<()>,
    pub(super) connections: Slab<Connection>,
    pub(super) connections_max: usize,
    /// Connections with bytes to send, or to close.
    dirty: Vec<Key>,
    /// Connections that used up their reads of this turn.
    pub(super) unfinished: Vec<Key>,
    /// Connections that may not have sent a request yet, in order of arrival.
    pub(super) newcomers: VecDeque<Key>,
    admitted: u64,
    /// How long the requests of this turn took so far, and whether a status was among them.
    turn_spent: Span,
    status_given: bool,
    refused: VecDeque<(Moment, TcpStream)>,
    plugins: Plugins,
    pub(super) security: Security,
    metrics: Metrics,
    next_sweep: Moment,
    /// When draining must end; none: not draining.
    drain_until: Option<Moment>,
    drain_timeout: Span,
    pub(super) buffer: Vec<u8>,
    /// Outputs of one request; kept to reuse the allocation.
    outputs: Vec<Output>,
}

/// Even tokens are connections, odd ones listeners.
fn token(number: usize, listener: bool) -> Token {
    Token(number * 2 + usize::from(listener))
}

fn is_denied(reply: &Reply) -> bool {
    matches!(reply, Reply::Error { error, .. } if error.code == ErrorCode::Denied)
}

impl Handler for ControlServer {
    type StateMachine = SharedQueue;
    type Command = QueueCommand;

    fn on_event(&mut self, event: &Event, queue: &mut SharedQueue, cx: &mut Context) {
        let Token(number) = event.token();
        if number % 2 == 1 {
            return self.listeners.on_readable(number / 2);
        }
        let Some(key) = self.connections.key_at(number / 2) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.eof_pending |= event.is_read_closed() || event.is_error();
        connection.readable |= event.is_readable() || connection.eof_pending;
        connection.writable |= event.is_writable();
        // After the end of the stream, reading reports no reset.
        if connection.eof && !matches!(connection.stream.take_error(), Ok(None)) {
            return self.connection_lost(key, queue, cx);
        }
        if !connection.unfinished {
            self.read_requests(key, queue, cx);
        }
    }

    fn on_output(&mut self, output: Output, queue: &mut SharedQueue, cx: &mut Context) {
        match output {
            Output::Reply { connection, slot, reply } => {
                if let Reply::Error { error, .. } = &reply {
                    debug!(target: "queue", "error {} {}", error.code.word(), error.explanation);
                }
                if let Some(known) = self.connections.get_mut(connection) {
                    let denied = is_denied(&reply);
                    known.responder.reply(slot, reply);
                    if denied && known.is_stranger {
                        known.responder.close();
                    }
                    self.mark_dirty(connection);
                }
            }
            Output::StartPlugin { service, command } => {
                self.plugins.start(service, command.as_deref(), cx.waker());
                // The process starts at the end of this turn.
                cx.skip_sleep = true;
            }
            Output::PluginSend { service, line } => {
                if let Some(input) = self.plugins.send_line(service, line, cx.now) {
                    queue.handle_input(input, cx.now);
                }
            }
            Output::PluginOk { service } => self.plugins.replied(service),
            Output::RestartPlugin { service, why } => self.plugins.restart(service, why, cx.now),
            Output::Log(note) => {
                let level = match note.event {
                    ProviderEvent::Failed
                    | ProviderEvent::LeaseEnded
                    | ProviderEvent::Displaced
                    | ProviderEvent::Contested => Level::Warn,
                    ProviderEvent::Registered
                    | ProviderEvent::Withdrew
                    | ProviderEvent::Drained
                    | ProviderEvent::Resumed => Level::Info,
                };
                log!(target: "queue", level, "{note}");
                let QueueLog { event, service, provider, key } = note;
                let by = key.map_or(String::new(), |key| format!(" (key {key})"));
                self.metrics.event(|| format!("{service}: {provider} {}{by}", event.word()));
            }
        }
    }

    fn on_command(&mut self, command: QueueCommand, queue: &mut SharedQueue, cx: &mut Context) {
        match command {
            QueueCommand::Terminate if self.drain_until.is_some() => {
                self.drain_until = Some(cx.now)
            }
            QueueCommand::Terminate => {
                info!(target: "queue", "draining");
                self.metrics.set_draining();
                self.listeners.close(cx);
                self.drain_until = Some(cx.now + self.drain_timeout);
                queue.handle_input(Input::Drain, cx.now);
            }
            QueueCommand::HandOver => {
                self.listeners.close(cx);
                for key in self.connections.keys() {
                    self.flush(key, queue, cx);
                    self.close(key, queue, cx);
                }
            }
            QueueCommand::Reconfigure(settings) => {
                self.connections_max = settings.queue_connections_max;
                self.drain_timeout = settings.drain_timeout;
                self.reconfigure_security(&settings, queue, cx);
                queue.handle_input(Input::Reconfigure(Box::new(settings.queue_options())), cx.now);
            }
        }
    }

    fn on_timeout(&mut self, queue: &mut SharedQueue, cx: &mut Context) {
        for input in self.plugins.poll_inputs(cx.now) {
            queue.handle_input(input, cx.now);
        }
        while self.refused.front().is_some_and(|(until, _)| cx.now >= *until) {
            self.refused.pop_front();
        }
        self.close_unproved(queue, cx);
        if cx.now < self.next_sweep {
            return;
        }
        self.next_sweep = cx.now + if self.lingering() { LINGER.part(4) } else { IDLE_SWEEP };
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let over = match connection.linger_until {
                Some(until) => cx.now >= until,
                None => {
                    cx.now.since(connection.last_active) >= IDLE_MAX && !queue.has_requests(key)
                }
            };
            if over {
                self.close(key, queue, cx);
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let refused = self.refused.front().map(|(until, _)| *until);
        let sweep = (!self.connections.is_empty()).then_some(self.next_sweep);
        let listeners = self.listeners.next_timeout();
        let unproved = self.security.next_timeout();
        [refused, sweep, listeners, unproved, self.plugins.next_timeout(), self.drain_until]
            .into_iter()
            .flatten()
            .min()
    }

    fn end_turn(&mut self, queue: &mut SharedQueue, cx: &mut Context) -> bool {
        // What is answered does not wait for newcomers and for those with much to ask.
        self.flush_dirty(queue, cx);
        for accepted in self.listeners.accept(cx, || Some(())) {
            match accepted {
                Accepted::Client { stream, from, .. } => self.admit(stream, from, queue, cx),
                Accepted::OutOfSockets(error) => {
                    warn!(target: "queue", "accepting pauses: {error}")
                }
            }
        }
        self.security.renew_budget();
        for key in std::mem::take(&mut self.unfinished) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.unfinished = false;
                self.read_requests(key, queue, cx);
            }
        }
        (self.turn_spent, self.status_given) = (Span::ZERO, false);
        self.flush_dirty(queue, cx);
        // Draining waits only for replies that are still to be sent.
        self.drain_until.is_some_and(|until| {
            cx.now >= until
                || self.connections.iter().all(|(_, connection)| !connection.has_unsent())
        })
    }
}

impl ControlServer {
    /// Returns a server without listeners. Connections get keys behind those of at most
    /// `local_handles_max` threads.
    pub fn new(settings: &Settings, local_handles_max: usize, metrics: &Metrics) -> ControlServer {
        ControlServer {
            listeners: Listeners::default(),
            connections: Slab::with_reserved(local_handles_max),
            connections_max: settings.queue_connections_max,
            dirty: Vec::new(),
            unfinished: Vec::new(),
            newcomers: VecDeque::new(),
            admitted: 0,
            turn_spent: Span::ZERO,
            status_given: false,
            refused: VecDeque::new(),
            plugins: Plugins::default(),
            security: Security::new(settings),
            metrics: metrics.clone(),
            next_sweep: Moment::ZERO,
            drain_until: None,
            drain_timeout: settings.drain_timeout,
            buffer: vec![0; BUFFER_BYTES],
            outputs: Vec::new(),
        }
    }

    /// Accepts connections on this socket; each has a `number` of its own.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn listen(&mut self, number: usize, socket: TcpListener, cx: &Context) -> io::Result<()> {
        self.listeners.add(number, (), socket, token(number, true), cx)
    }

    /// Returns the addresses of the listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses().collect()
    }

    fn lingering(&self) -> bool {
        self.connections.iter().any(|(_, connection)| connection.linger_until.is_some())
    }

    pub(super) fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(key);
            }
        }
    }

    fn admit(
        &mut self,
        mut stream: TcpStream,
        from: SocketAddr,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) {
        let (link, is_stranger) = self.security.begin(from.ip());
        let is_full = self.connections.len() >= self.connections_max;
        if is_full && !self.displace(from, is_stranger, queue, cx) {
            // Stays open for a moment: closing at once could lose the error.
            let _ = stream.write(b"error busy too many connections\n");
            let _ = stream.shutdown(Shutdown::Write);
            if self.refused.len() >= REFUSED_MAX {
                self.refused.pop_front();
            }
            return self.refused.push_back((cx.now + LINGER, stream));
        }
        self.admitted += 1;
        let key = self.connections.insert(Connection {
            stream,
            from,
            responder: Responder::default(),
            link,
            is_stranger,
            deadline: None,
            serial: self.admitted,
            unfinished: false,
            eof_told: false,
            postponed: None,
            readable: true,
            writable: true,
            dirty: false,
            has_sent: false,
            eof_pending: false,
            eof: false,
            last_active: cx.now,
            linger_until: None,
        });
        let Some(connection) = self.connections.get_mut(key) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            cx.registry.register(&mut connection.stream, token(key.index(), false), interest)
        {
            warn!(target: "queue", "{from}: {error}");
            self.connections.remove(key);
            return;
        }
        self.newcomers.push_back(key);
        queue.handle_input(Input::Connected { connection: key, peer: from.ip() }, cx.now);
        if is_stranger {
            self.admit_stranger(key, queue, cx);
        }
    }

    pub(super) fn close(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) {
        if let Some(mut connection) = self.connections.remove(key) {
            self.security.forget_stranger(&mut connection.is_stranger);
            queue.handle_input(Input::Disconnected { connection: key }, cx.now);
        }
        // Connections that closed without a request would otherwise pile up here.
        while self.newcomers.front().is_some_and(|key| {
            self.connections.get(*key).is_none_or(|connection| connection.has_sent)
        }) {
            self.newcomers.pop_front();
        }
        if self.newcomers.len() > 2 * self.connections.len() + 64 {
            let connections = &self.connections;
            self.newcomers
                .retain(|key| connections.get(*key).is_some_and(|connection| !connection.has_sent));
        }
    }

    /// A connection broke: its last replies may not have arrived.
    fn connection_lost(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) {
        queue.handle_input(Input::SendFailed { connection: key }, cx.now);
        self.close(key, queue, cx);
    }

    /// Reads requests from a connection and handles them.
    fn read_requests(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) {
        let spent_before = self.turn_spent;
        for reads in 0.. {
            if !self.handle_requests(key, queue, cx) || !self.take_records(key, queue, cx) {
                return;
            }
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.eof && !std::mem::replace(&mut connection.eof_told, true) {
                return queue.handle_input(Input::ReadClosed { connection: key }, cx.now);
            }
            if !connection.readable
                || (connection.responder.is_backpressured() && connection.linger_until.is_none())
            {
                return;
            }
            if reads == READS_MAX || self.turn_spent >= spent_before + SLICE {
                return self.go_on_later(key, cx);
            }
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    connection.readable = false;
                    connection.eof = true;
                    connection.end();
                }
                // Further bytes are read and discarded: unread, they would reset the
                // connection when it is closed, and the error could be lost.
                Ok(_) if connection.linger_until.is_some() => {}
                Ok(count) => {
                    connection.readable =
                        connection.eof_pending || !SHORT_READ_DRAINS || count == self.buffer.len();
                    self.take_bytes(key, count, cx);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.readable = false
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(target: "queue", "{}: {error}", connection.from);
                    return self.connection_lost(key, queue, cx);
                }
            }
        }
    }

    /// Passes requests to the queue one at a time, so that a full send buffer stops the
    /// next one. Returns false if the rest must wait for the next turn.
    pub(super) fn handle_requests(
        &mut self,
        key: Key,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) -> bool {
        // Most connections have one request, or none any more: the clock is read when needed.
        let mut begun = None;
        let mut spent = Span::ZERO;
        let slice = if self.turn_spent < TURN_MAX { SLICE } else { Span::ZERO };
        let mut goes_on = true;
        while let Some(connection) = self.connections.get_mut(key) {
            let next = match connection.postponed.take() {
                None if !goes_on => None,
                None => connection.responder.next_request(),
                postponed => postponed,
            };
            let Some((slot, request)) = next else { break };
            if matches!(request, Request::Status { .. }) {
                if self.status_given {
                    connection.postponed = Some((slot, request));
                    goes_on = false;
                    break;
                }
                self.status_given = true;
                let unread = |(_, other): (Key, &Connection)| other.responder.out.bytes().len();
                if self.connections.iter().map(unread).sum::<usize>() > UNREAD_MAX {
                    let reply = Reply::error(ErrorCode::Busy, "too many answers are not read");
                    self.on_output(Output::Reply { connection: key, slot, reply }, queue, cx);
                    continue;
                }
            }
            let begun = *begun.get_or_insert_with(event_loop::now);
            self.handle_request(key, slot, request, queue, cx);
            spent = event_loop::now().since(begun);
            goes_on = spent < slice;
        }
        self.turn_spent = self.turn_spent + spent;
        self.mark_dirty(key);
        if !goes_on {
            self.go_on_later(key, cx);
        }
        goes_on
    }

    fn handle_request(
        &mut self,
        key: Key,
        slot: ReplySlot,
        request: Request,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) {
        let mut outputs = std::mem::take(&mut self.outputs);
        queue.ask(Input::Request { connection: key, slot, request }, cx.now, &mut outputs);
        let denied = outputs.iter().any(|output| match output {
            Output::Reply { connection, reply, .. } => *connection == key && is_denied(reply),
            _ => false,
        });
        if let Some(connection) = self.connections.get_mut(key).filter(|_| !denied) {
            // Only what it may ask for keeps a connection.
            connection.has_sent = true;
            connection.last_active = cx.now;
        }
        for output in outputs.drain(..) {
            self.on_output(output, queue, cx);
        }
        self.outputs = outputs;
    }

    fn flush_dirty(&mut self, queue: &mut SharedQueue, cx: &mut Context) {
        for key in std::mem::take(&mut self.dirty) {
            self.flush(key, queue, cx);
        }
    }

    /// Sends pending replies, and closes a connection that has ended.
    fn flush(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.dirty = false;
        let was_backpressured = connection.responder.is_backpressured();
        while connection.writable && connection.has_unsent() {
            let Connection { stream, responder, link, .. } = connection;
            let Some(out) = link.wire(&mut responder.out) else { break };
            match stream.write(out.bytes()) {
                Ok(count) => out.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.writable = false
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.connection_lost(key, queue, cx),
            }
        }
        if connection.responder.finished() && !connection.has_unsent() {
            if connection.eof && connection.linger_until.is_none() && queue.has_unconfirmed(key) {
                // A peer that closed the whole connection replies to this with a reset.
                let _ = connection.stream.shutdown(Shutdown::Write);
                connection.linger_until = Some(cx.now + LINGER);
                self.next_sweep = self.next_sweep.min(cx.now + LINGER);
                return;
            }
            if connection.eof {
                return self.close(key, queue, cx);
            }
            if connection.linger_until.is_none() {
                let _ = connection.stream.shutdown(Shutdown::Write);
                connection.linger_until = Some(cx.now + LINGER);
                self.next_sweep = self.next_sweep.min(cx.now + LINGER);
                queue.handle_input(Input::Disconnected { connection: key }, cx.now);
            }
        }
        if was_backpressured && !connection.responder.is_backpressured() {
            self.go_on_later(key, cx);
        }
    }

    /// Reads a connection again when others had their turn.
    pub(super) fn go_on_later(&mut self, key: Key, cx: &mut Context) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        cx.skip_sleep = true;
        if !std::mem::replace(&mut connection.unfinished, true) {
            self.unfinished.push(key);
        }
    }
}
