//! A control connection to a ticket queue: kept open, made again when lost.
//!
//! Owns the socket, the name look-up, retries with backoff and jitter, the time limit for
//! answers, and log lines about all this. Not responsible for what is asked.

use super::event_loop::Context;
use super::resolver::Lookup;
use crate::os::socket::{self, SHORT_READ_DRAINS};
use log::{info, warn};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::address::HostPort;
use pegasus_core::base::backoff::Backoff;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::channel::{Matched, Requester};
use pegasus_core::protocol::message::Request;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Span = Span::from_secs(3);
/// How long a `done` may wait for the next message, which saves both sides a wake-up. A
/// request that waits for the ticket waits this much longer at most.
const DONE_DELAY_MAX: Span = Span::from_millis(2);

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
    Idle { retry: Moment },
    Resolving(Lookup),
    Connecting { stream: TcpStream, until: Moment },
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
    /// Answers that are still to come, and since when nothing came.
    replies_due: u64,
    /// When the unsent messages must leave, while all of them are ends of requests.
    flush_at: Option<Moment>,
    silent_since: Moment,
    silence_max: Span,
    /// Resolved and not tried yet.
    addresses: VecDeque<SocketAddr>,
    backoff: Backoff,
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
            replies_due: 0,
            flush_at: None,
            silent_since: Moment::ZERO,
            silence_max,
            addresses: VecDeque::new(),
            backoff: Backoff::new(retry.0, retry.1),
            random: Random::new(seed),
            writable: false,
            events: VecDeque::new(),
        }
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
        !matches!(self.state, State::Up(_)) || self.requester.out.is_empty()
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
            State::Connecting { until, .. } => Some(*until),
            State::Up(_) => self
                .flush_at
                .or_else(|| (self.replies_due > 0).then(|| self.silent_since + self.silence_max)),
        }
    }

    /// Connects, gives up an attempt, or gives up a queue that does not answer.
    pub fn handle_timeout(&mut self, cx: &mut Context) {
        match &self.state {
            State::Idle { retry } if cx.now >= *retry => {
                self.state = State::Resolving(Lookup::start(&self.host_port, cx.waker()));
            }
            State::Connecting { until, .. } if cx.now >= *until => self.try_next(cx, "no answer"),
            State::Up(_)
                if self.replies_due > 0 && cx.now.since(self.silent_since) >= self.silence_max =>
            {
                self.connection_lost(cx, "it does not answer");
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

    fn connection_lost(&mut self, cx: &mut Context, why: &str) {
        let retry = cx.now + self.backoff.delay(&mut self.random);
        self.state = State::Idle { retry };
        self.requester = Requester::default();
        (self.replies_due, self.flush_at) = (0, None);
        if !std::mem::replace(&mut self.unreachable, true) {
            warn!(target: self.log_target, "queue {}: {why}; trying again", self.host_port);
        }
        self.events.push_back(QueueEvent::Down);
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
                self.state = State::Up(stream);
                self.addresses.clear();
                self.backoff.reset();
                if std::mem::take(&mut self.unreachable) {
                    info!(target: self.log_target, "queue {} is back", self.host_port);
                }
                self.events.push_back(QueueEvent::Up);
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
        let mut buffer = [0; 16 * 1024];
        loop {
            let State::Up(stream) = &mut self.state else { return };
            let drained = match stream.read(&mut buffer) {
                Ok(0) => return self.connection_lost(cx, "it closed the connection"),
                Ok(count) => {
                    self.silent_since = cx.now;
                    self.requester.receive(&buffer[..count]);
                    SHORT_READ_DRAINS && !ended && count < buffer.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.connection_lost(cx, &error.to_string()),
            };
            loop {
                match self.requester.next_reply() {
                    Ok(Some(answer)) => {
                        self.replies_due = self.replies_due.saturating_sub(1);
                        self.events.push_back(QueueEvent::Answer(answer));
                    }
                    Ok(None) => break,
                    Err(error) => return self.connection_lost(cx, error),
                }
            }
            if drained {
                return;
            }
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
