//! A control connection to a ticket queue: kept open, made again when lost.
//!
//! Owns the socket, the name look-up, the retries with backoff and jitter, the
//! patience with a queue that does not answer, and what the log is told of it. What is asked and what an
//! answer means is its owner's business.

use super::drive::Desk;
use super::names::Lookup;
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
/// How long the news that a request has ended may wait for something else to be
/// said, which saves both sides a wake-up. On a calm day the next question takes
/// it along; who waits for the place then waits so much longer at most.
const DONE_WAITS: Span = Span::from_millis(2);

/// What a peer tells its owner.
#[derive(Debug)]
pub enum News<T> {
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

/// See the file's head. `T` tells what an answer in order is for.
pub struct Peer<T> {
    /// Whose peer it is, for the log.
    owner: &'static str,
    target: HostPort,
    /// The log knows that it is away.
    away: bool,
    token: Token,
    state: State,
    channel: Requester<T>,
    /// Answers that are still to come, and since when nothing came.
    owed: u64,
    /// All that is unsent, and owed, is news that requests have ended; until when
    /// it may wait.
    sends_by: Option<Moment>,
    silent_since: Moment,
    silence_max: Span,
    /// Resolved and not tried yet.
    addresses: VecDeque<SocketAddr>,
    backoff: Backoff,
    random: Random,
    writable: bool,
    news: VecDeque<News<T>>,
}

impl<T> Peer<T> {
    /// A peer that connects at its first [`expire`](Peer::expire). A peer that
    /// owes answers for `silence_max` counts as away.
    pub fn new(
        owner: &'static str,
        target: HostPort,
        token: Token,
        retry: (Span, Span),
        silence_max: Span,
        seed: u64,
    ) -> Peer<T> {
        Peer {
            owner,
            target,
            away: false,
            token,
            state: State::Idle { retry: Moment::ZERO },
            channel: Requester::default(),
            owed: 0,
            sends_by: None,
            silent_since: Moment::ZERO,
            silence_max,
            addresses: VecDeque::new(),
            backoff: Backoff::new(retry.0, retry.1),
            random: Random::new(seed),
            writable: false,
            news: VecDeque::new(),
        }
    }

    /// Whom it connects to.
    pub fn target(&self) -> &HostPort {
        &self.target
    }

    /// Another patience from now on. While answers are owed it is not made
    /// shorter: they were asked for with the time that there was then.
    pub fn set_silence_max(&mut self, silence_max: Span) {
        self.silence_max = if self.owed == 0 { silence_max } else { silence_max.max(self.silence_max) };
    }

    /// Our address on this connection, while there is one.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match &self.state {
            State::Up(stream) => stream.local_addr().ok().map(|local| local.ip().to_canonical()),
            _ => None,
        }
    }

    /// Whether everything asked was sent, or nobody is there to send it to. (An
    /// answer that comes when nobody is here any more does no harm to what was asked.)
    pub fn flushed(&self) -> bool {
        !matches!(self.state, State::Up(_)) || self.channel.out.is_empty()
    }

    /// The next piece of news.
    pub fn poll(&mut self) -> Option<News<T>> {
        self.news.pop_front()
    }

    /// Asks, when the turn is flushed. While the peer is away nothing is asked.
    pub fn ask(&mut self, request: &Request, purpose: T, now: Moment) {
        if let State::Up(_) = self.state {
            let first = self.owed == 0;
            if first {
                self.silent_since = now;
            }
            self.owed += 1;
            self.sends_by = match request {
                Request::Done { .. } if first => Some(now + DONE_WAITS),
                Request::Done { .. } => self.sends_by,
                _ => None,
            };
            self.channel.send(&self.target.host_in_url(), request, purpose);
        }
    }

    /// When [`expire`](Peer::expire) must be called.
    pub fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Idle { retry } => Some(*retry),
            State::Resolving(_) => None,
            State::Connecting { until, .. } => Some(*until),
            State::Up(_) => self.sends_by.or_else(|| (self.owed > 0).then(|| self.silent_since + self.silence_max)),
        }
    }

    /// Time passed: connects, gives an attempt up, or loses patience.
    pub fn expire(&mut self, desk: &mut Desk) {
        match &self.state {
            State::Idle { retry } if desk.now >= *retry => {
                self.state = State::Resolving(Lookup::begin(&self.target, desk.waker()));
            }
            State::Connecting { until, .. } if desk.now >= *until => self.try_next(desk, "no answer"),
            State::Up(_) if self.owed > 0 && desk.now.since(self.silent_since) >= self.silence_max => {
                self.lost(desk, "it does not answer");
            }
            _ => {}
        }
        if let State::Resolving(lookup) = &self.state {
            if let Some(found) = lookup.done() {
                self.addresses = found.into();
                self.try_next(desk, "the name does not resolve");
            }
        }
    }

    /// Connects to the next address, or gives up for a while because of `why`.
    fn try_next(&mut self, desk: &mut Desk, why: &str) {
        let mut why = why.to_string();
        while let Some(address) = self.addresses.pop_front() {
            match self.connect(address, desk) {
                Ok(stream) => {
                    self.state = State::Connecting { stream, until: desk.now + CONNECT_TIMEOUT };
                    return;
                }
                Err(error) => why = error.to_string(),
            }
        }
        self.lost(desk, &why);
    }

    fn connect(&self, address: SocketAddr, desk: &Desk) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        socket::keepalive(&stream);
        desk.registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn lost(&mut self, desk: &mut Desk, why: &str) {
        let retry = desk.now + self.backoff.delay(&mut self.random);
        self.state = State::Idle { retry };
        self.channel = Requester::default();
        (self.owed, self.sends_by) = (0, None);
        if !std::mem::replace(&mut self.away, true) {
            warn!(target: self.owner, "queue {}: {why}; trying again", self.target);
        }
        self.news.push_back(News::Down);
    }

    /// The socket became ready.
    pub fn ready(&mut self, event: &Event, desk: &mut Desk) {
        if let State::Connecting { stream, .. } = &self.state {
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                return self.try_next(desk, &error.to_string());
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
                if std::mem::take(&mut self.away) {
                    info!(target: self.owner, "queue {} is back", self.target);
                }
                self.news.push_back(News::Up);
            }
        }
        self.writable |= event.is_writable();
        let ended = event.is_read_closed() || event.is_error();
        if event.is_readable() || ended {
            self.receive(ended, desk);
        }
    }

    /// `ended`: the end is there, behind what is to be read.
    fn receive(&mut self, ended: bool, desk: &mut Desk) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let State::Up(stream) = &mut self.state else { return };
            let drained = match stream.read(&mut buffer) {
                Ok(0) => return self.lost(desk, "it closed the connection"),
                Ok(count) => {
                    self.silent_since = desk.now;
                    self.channel.receive(&buffer[..count]);
                    SHORT_READ_DRAINS && !ended && count < buffer.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(desk, &error.to_string()),
            };
            loop {
                match self.channel.next_reply() {
                    Ok(Some(answer)) => {
                        self.owed = self.owed.saturating_sub(1);
                        self.news.push_back(News::Answer(answer));
                    }
                    Ok(None) => break,
                    Err(wrong) => return self.lost(desk, wrong),
                }
            }
            if drained {
                return;
            }
        }
    }

    /// Nothing may wait to be sent.
    pub fn hurry(&mut self) {
        self.sends_by = None;
    }

    /// Sends what was asked in this turn, in one piece where the system can.
    pub fn flush(&mut self, desk: &mut Desk) {
        if self.sends_by.is_some_and(|at| desk.now < at) {
            return;
        }
        self.sends_by = None;
        while let State::Up(stream) = &mut self.state {
            if self.channel.out.is_empty() || !self.writable {
                return;
            }
            match stream.write(self.channel.out.bytes()) {
                Ok(count) => self.channel.out.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lost(desk, &error.to_string()),
            }
        }
    }
}
