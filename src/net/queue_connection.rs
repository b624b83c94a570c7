//! A control connection to a ticket queue: kept open, made again when lost.
//!
//! Owns the socket, the name look-up, retries with backoff and jitter, the time limit for
//! answers, and log lines about all this. Not responsible for what is asked.

use super::event_loop::Context;
use super::resolver::Lookup;
use super::secure_link::SecureLink;
use crate::os::socket::{self, SHORT_READ_DRAINS};
use log::{info, warn};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::backoff::Backoff;
use pegasus_core::base::endpoint::HostPort;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::peer_key::PeerKey;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::{Matched, Requester};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Span = Span::from_secs(3);
/// How long a `done` may wait for the next message, which saves both sides a wake-up. A
/// request that waits for the ticket waits this much longer at most.
const DONE_DELAY_MAX: Span = Span::from_millis(2);
/// How long a handshake may take; a queue gives it as long.
const HANDSHAKE_TIMEOUT: Span = Span::from_secs(5);
/// A queue that keeps a connection so long on which it is asked nothing is of use.
const USEFUL_AFTER: Span = Span::from_secs(1);
/// Bytes that one read may bring. Most bring an answer of thirty, and each clears the buffer.
const READ_BYTES: usize = 2 * 1024;
/// With another key a new connection is made when no answer is due, or after this time.
const KEY_CHANGE_DELAY_MAX: Span = Span::from_secs(1);

/// What happens to a connection.
#[derive(Debug)]
pub enum QueueEvent<T> {
    /// It can be asked.
    Up,
    /// It cannot be reached; what it was asked is void.
    Down,
    /// It answered.
    Answer(Matched<T>),
}

enum State {
    Idle {
        retry: Moment,
    },
    Resolving(Lookup),
    Connecting {
        stream: TcpStream,
        until: Moment,
    },
    /// The two sides prove to each other that they have the key.
    Securing {
        stream: TcpStream,
        until: Moment,
    },
    Up(TcpStream),
}

/// A connection that reconnects. `T` says what an answer in order is for.
pub struct QueueConnection<T> {
    /// The target of its log lines.
    log_target: &'static str,
    host_port: HostPort,
    /// The log says that it is away.
    unreachable: bool,
    token: Token,
    state: State,
    requester: Requester<T>,
    /// The key that it proves, always; none: it speaks plain.
    key: Option<Arc<PeerKey>>,
    /// The connection's encryption, where there is a key.
    link: Option<SecureLink>,
    /// The key is another one than that of the connection: until when that may stay.
    key_change_until: Option<Moment>,
    /// Answers that are still to come, and since when nothing came.
    replies_due: u64,
    /// When the unsent messages must leave, while all of them are ends of requests.
    flush_at: Option<Moment>,
    silent_since: Moment,
    silence_max: Span,
    /// Resolved and not tried yet.
    addresses: VecDeque<SocketAddr>,
    backoff: Backoff,
    /// When it counts as useful although nothing was asked; none: it is, or is not there.
    useful_at: Option<Moment>,
    /// Why the queue does not want this connection, in its own words.
    refusal: Option<String>,
    random: Random,
    writable: bool,
    events: VecDeque<QueueEvent<T>>,
}

impl<T> QueueConnection<T> {
    /// Connects at its first [`handle_timeout`](QueueConnection::handle_timeout). A queue that
    /// owes answers for `silence_max` counts as unreachable.
    pub fn new(
        log_target: &'static str,
        host_port: HostPort,
        token: Token,
        retry: (Span, Span),
        silence_max: Span,
        seed: u64,
    ) -> QueueConnection<T> {
        QueueConnection {
            log_target,
            host_port,
            unreachable: false,
            token,
            state: State::Idle { retry: Moment::ZERO },
            requester: Requester::default(),
            key: None,
            link: None,
            key_change_until: None,
            replies_due: 0,
            flush_at: None,
            silent_since: Moment::ZERO,
            silence_max,
            addresses: VecDeque::new(),
            backoff: Backoff::new(retry.0, retry.1),
            useful_at: None,
            refusal: None,
            random: Random::new(seed),
            writable: false,
            events: VecDeque::new(),
        }
    }

    /// With this key from the start.
    pub fn with_key(self, key: Option<Arc<PeerKey>>) -> QueueConnection<T> {
        QueueConnection { key, ..self }
    }

    /// With another key from now on, or none. A connection with the old one is made anew as
    /// soon as no answer is due on it.
    pub fn set_key(&mut self, key: Option<Arc<PeerKey>>, now: Moment) {
        let proof = |key: &Option<Arc<PeerKey>>| key.as_ref().map(|key| (key.name, key.secret));
        if proof(&key) != proof(&self.key) {
            self.key_change_until = Some(now + KEY_CHANGE_DELAY_MAX);
        }
        self.key = key;
    }

    /// The queue that it connects to.
    pub fn host_port(&self) -> &HostPort {
        &self.host_port
    }

    /// Changes the time limit for answers. While answers are due it does not get shorter:
    /// they were asked for under the old one.
    pub fn set_silence_max(&mut self, silence_max: Span) {
        self.silence_max =
            if self.replies_due == 0 { silence_max } else { silence_max.max(self.silence_max) };
    }

    /// Our address on this connection, while there is one.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match &self.state {
            State::Up(stream) => stream.local_addr().ok().map(|local| local.ip().to_canonical()),
            _ => None,
        }
    }

    /// Whether everything asked was sent, or there is no connection. The answers do not
    /// matter to what was asked.
    pub fn is_flushed(&self) -> bool {
        let sent = |link: &SecureLink| link.out.is_empty();
        !matches!(self.state, State::Up(_))
            || (self.requester.out.is_empty() && self.link.as_ref().is_none_or(sent))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<QueueEvent<T>> {
        self.events.pop_front()
    }

    /// Asks, when the turn is flushed. While the queue is away nothing is asked.
    pub fn ask(&mut self, request: &Request, purpose: T, now: Moment) {
        if let State::Up(_) = self.state {
            let first = self.replies_due == 0;
            if first {
                self.silent_since = now;
            }
            self.replies_due += 1;
            self.flush_at = match request {
                Request::Done { .. } if first => Some(now + DONE_DELAY_MAX),
                Request::Done { .. } => self.flush_at,
                _ => None,
            };
            self.requester.send(&self.host_port.host_in_url(), request, purpose);
        }
    }

    /// When [`handle_timeout`](QueueConnection::handle_timeout) must be called.
    pub fn next_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Idle { retry } => Some(*retry),
            State::Resolving(_) => None,
            State::Connecting { until, .. } | State::Securing { until, .. } => Some(*until),
            State::Up(_) => {
                let silence =
                    || (self.replies_due > 0).then(|| self.silent_since + self.silence_max);
                let idle_since_change = self.key_change_until.filter(|_| self.replies_due == 0);
                let key_change = idle_since_change.map(|_| Moment::ZERO).or(self.key_change_until);
                let next = self.flush_at.or_else(silence);
                let useful = self.useful_at.filter(|_| self.replies_due == 0);
                next.into_iter().chain(key_change).chain(useful).min()
            }
        }
    }

    /// Connects, gives up an attempt, or gives up a queue that does not answer.
    pub fn handle_timeout(&mut self, cx: &mut Context) {
        match &self.state {
            State::Idle { retry } if cx.now >= *retry => {
                self.state = State::Resolving(Lookup::start(&self.host_port, cx.waker()));
            }
            State::Connecting { until, .. } if cx.now >= *until => self.try_next(cx, "no answer"),
            State::Securing { until, .. } if cx.now >= *until => {
                self.connection_lost(cx, "no answer to the handshake");
            }
            State::Up(_)
                if self
                    .key_change_until
                    .is_some_and(|until| self.replies_due == 0 || cx.now >= until) =>
            {
                self.change_key(cx);
            }
            State::Up(_)
                if self.replies_due > 0 && cx.now.since(self.silent_since) >= self.silence_max =>
            {
                self.connection_lost(cx, "it does not answer");
            }
            State::Up(_)
                if self.replies_due == 0 && self.useful_at.is_some_and(|at| cx.now >= at) =>
            {
                self.is_useful();
            }
            _ => {}
        }
        if let State::Resolving(lookup) = &self.state {
            if let Some(found) = lookup.result() {
                self.addresses = found.into();
                self.try_next(cx, "the name does not resolve");
            }
        }
    }

    /// Connects to the next address, or gives up for a while because of `why`.
    fn try_next(&mut self, cx: &mut Context, why: &str) {
        let mut why = why.to_string();
        while let Some(address) = self.addresses.pop_front() {
            match self.connect(address, cx) {
                Ok(stream) => {
                    self.state = State::Connecting { stream, until: cx.now + CONNECT_TIMEOUT };
                    return;
                }
                Err(error) => why = error.to_string(),
            }
        }
        self.connection_lost(cx, &why);
    }

    fn connect(&self, address: SocketAddr, cx: &Context) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        socket::keepalive(&stream);
        cx.registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// Makes a new connection at once, with the key of now.
    fn change_key(&mut self, cx: &mut Context) {
        info!(target: self.log_target, "queue {}: another key, a new connection", self.host_port);
        self.flush_now();
        self.flush(cx);
        self.forget_connection(cx.now);
    }

    fn forget_connection(&mut self, retry: Moment) {
        self.state = State::Idle { retry };
        self.requester = Requester::default();
        self.link = None;
        self.key_change_until = None;
        self.replies_due = 0;
        self.flush_at = None;
        self.useful_at = None;
        self.events.push_back(QueueEvent::Down);
    }

    fn connection_lost(&mut self, cx: &mut Context, why: &str) {
        let refusal = self.refusal.take();
        let why = refusal.as_deref().unwrap_or(why);
        let in_handshake = matches!(self.state, State::Securing { .. });
        let retry = cx.now + self.backoff.delay(&mut self.random);
        self.forget_connection(retry);
        if !std::mem::replace(&mut self.unreachable, true) {
            match self.key.as_ref().filter(|_| in_handshake) {
                Some(key) => {
                    let (target, queue, name) = (self.log_target, &self.host_port, key.name);
                    warn!(
                        target: target,
                        "queue {queue}: {why} in the handshake with key {name} (is it in the \
                         queue's key_file, with the same secret?); trying again"
                    );
                }
                None => {
                    warn!(target: self.log_target, "queue {}: {why}; trying again", self.host_port);
                }
            }
        }
    }

    /// The connection stands: it can be asked, after a handshake where there is a key.
    fn connected(&mut self, stream: TcpStream, cx: &mut Context) {
        self.addresses.clear();
        self.key_change_until = None;
        let Some(key) = &self.key else {
            self.state = State::Up(stream);
            return self.is_up(cx.now);
        };
        match SecureLink::connect(key) {
            Ok(link) => {
                self.link = Some(link);
                self.state = State::Securing { stream, until: cx.now + HANDSHAKE_TIMEOUT };
                self.flush_link(cx);
            }
            // Never in plain instead.
            Err(error) => self.connection_lost(cx, &error.to_string()),
        }
    }

    fn is_up(&mut self, now: Moment) {
        self.useful_at = Some(now + USEFUL_AFTER);
        self.events.push_back(QueueEvent::Up);
    }

    /// The queue answers, or keeps a connection on which nothing is due.
    fn is_useful(&mut self) {
        self.useful_at = None;
        self.refusal = None;
        self.backoff.reset();
        if std::mem::take(&mut self.unreachable) {
            info!(target: self.log_target, "queue {} is back", self.host_port);
        }
    }

    /// What came on an encrypted connection, as lines; an error ends it.
    fn decrypt(&mut self, bytes: &[u8], cx: &mut Context) -> Result<Vec<u8>, &'static str> {
        let mut lines = Vec::new();
        if let Some(link) = &mut self.link {
            link.receive(bytes, &mut lines)?;
            if link.is_up() && matches!(self.state, State::Securing { .. }) {
                let idle = State::Idle { retry: Moment::NEVER };
                if let State::Securing { stream, .. } = std::mem::replace(&mut self.state, idle) {
                    self.state = State::Up(stream);
                    self.is_up(cx.now);
                    self.flush_link(cx);
                }
            }
        }
        Ok(lines)
    }

    /// Sends what is encrypted already.
    fn flush_link(&mut self, cx: &mut Context) {
        let Some(link) = &mut self.link else { return };
        while let State::Up(stream) | State::Securing { stream, .. } = &mut self.state {
            if link.out.is_empty() || !self.writable {
                return;
            }
            match stream.write(link.out.bytes()) {
                Ok(count) => link.out.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.connection_lost(cx, &error.to_string()),
            }
        }
    }

    /// The socket became ready.
    pub fn on_event(&mut self, event: &Event, cx: &mut Context) {
        if let State::Connecting { stream, .. } = &self.state {
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                return self.try_next(cx, &error.to_string());
            }
            if !event.is_writable() || stream.peer_addr().is_err() {
                return;
            }
            if let State::Connecting { stream, .. } =
                std::mem::replace(&mut self.state, State::Idle { retry: Moment::NEVER })
            {
                self.writable = true;
                self.connected(stream, cx);
            }
        }
        self.writable |= event.is_writable();
        let ended = event.is_read_closed() || event.is_error();
        if event.is_readable() || ended {
            self.receive(ended, cx);
        }
    }

    /// `ended`: the end is there, behind what is to be read.
    fn receive(&mut self, ended: bool, cx: &mut Context) {
        let mut buffer = [0; READ_BYTES];
        loop {
            let (State::Up(stream) | State::Securing { stream, .. }) = &mut self.state else {
                return;
            };
            let drained = match stream.read(&mut buffer) {
                Ok(0) => return self.connection_lost(cx, "it closed the connection"),
                Ok(count) => {
                    if self.link.is_none() {
                        self.requester.receive(&buffer[..count]);
                    } else {
                        match self.decrypt(&buffer[..count], cx) {
                            Ok(lines) => self.requester.receive(&lines),
                            Err(why) => return self.connection_lost(cx, why),
                        }
                    }
                    SHORT_READ_DRAINS && !ended && count < buffer.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.connection_lost(cx, &error.to_string()),
            };
            loop {
                match self.requester.next_reply() {
                    Ok(Some(answer)) => {
                        // Bytes that are no answer do not show that it lives.
                        self.silent_since = cx.now;
                        self.replies_due = self.replies_due.saturating_sub(1);
                        self.judge(&answer);
                        self.events.push_back(QueueEvent::Answer(answer));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.refusal = self.requester.refusal.take().or(self.refusal.take());
                        return self.connection_lost(cx, error);
                    }
                }
            }
            if drained {
                return;
            }
        }
    }

    /// An answer that refuses the whole connection is a reason for its end, no sign of use.
    fn judge(&mut self, answer: &Matched<T>) {
        let (Matched::ById(_, reply) | Matched::InOrder(_, reply)) = answer;
        match reply {
            Reply::Error { error, .. } if error.code.refuses_peer() => {
                self.refusal = Some(reply.to_string());
            }
            _ => self.is_useful(),
        }
    }

    /// The next flush sends everything.
    pub fn flush_now(&mut self) {
        self.flush_at = None;
    }

    /// Sends what was asked in this turn, in one piece where the system can.
    pub fn flush(&mut self, cx: &mut Context) {
        if self.flush_at.is_some_and(|at| cx.now < at) {
            return;
        }
        self.flush_at = None;
        if let Some(link) = &mut self.link {
            if matches!(self.state, State::Up(_)) {
                let lines = &mut self.requester.out;
                if !lines.is_empty() {
                    link.send(lines.bytes());
                    lines.sent(lines.bytes().len());
                }
            }
            return self.flush_link(cx);
        }
        while let State::Up(stream) = &mut self.state {
            if self.requester.out.is_empty() || !self.writable {
                return;
            }
            match stream.write(self.requester.out.bytes()) {
                Ok(count) => self.requester.out.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.connection_lost(cx, &error.to_string()),
            }
        }
    }
}
