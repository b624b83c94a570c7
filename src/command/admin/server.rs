//! The thread that answers on admin addresses.
//!
//! Owns the connections and every bound of them: number, bytes, time, and how many are
//! taken in a second. It shares nothing with those who serve clients but short locks
//! around counters. Knows no content.

use super::content::{Answer, Content};
use super::http::{self, HEAD_BYTES_MAX};
use crate::net::event_loop::{self, Context, Handler};
use crate::net::listeners::{Accepted, Listeners};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::quota::Quota;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::NoStateMachine;
use pegasus_core::base::time::{Moment, Span};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

/// Connections at once. One more takes the place of the oldest that asked nothing yet.
pub const CONNECTIONS_MAX: usize = 64;
/// Connections taken in a second: what they cost is bounded, too.
const ACCEPTED_PER_SECOND: u32 = 500;
/// How long a request may take to arrive, an answer to leave, and a peer to hang up.
const REQUEST_TIMEOUT: Span = Span::from_secs(5);
const ANSWER_TIMEOUT: Span = Span::from_secs(30);
const LINGER_TIMEOUT: Span = Span::from_secs(1);
/// Bytes that are read and thrown away after an answer, so that no reset destroys it.
const LINGER_BYTES_MAX: usize = 64 * 1024;
/// Bytes written to a connection before others get their turn.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Commands to the thread.
pub enum AdminCommand {
    /// Take in no more connections, and end.
    End,
}

enum Phase {
    /// The request is not whole yet.
    Reading(Vec<u8>),
    /// The head, then the body; so much of both is sent.
    Answering { head: Vec<u8>, body: Arc<Vec<u8>>, sent: usize },
    /// All is sent; so much of what still comes was thrown away.
    Lingering(usize),
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    deadline: Moment,
    /// In the order of arrival.
    number: u64,
}

/// Answers HTTP requests on the admin addresses.
pub struct AdminServer {
    pub(super) listeners: Listeners<()>,
    connections: Slab<Connection>,
    /// They have more to write than fits into one turn.
    unfinished: Vec<Key>,
    content: Content,
    arrivals: u64,
    accepted: Quota,
    ending: bool,
}

/// Even tokens are connections, odd ones listeners.
pub(super) fn token(number: usize, listener: bool) -> Token {
    Token(number * 2 + usize::from(listener))
}

impl Handler for AdminServer {
    type StateMachine = NoStateMachine;
    type Command = AdminCommand;

    fn on_event(&mut self, event: &Event, _: &mut NoStateMachine, cx: &mut Context) {
        let Token(number) = event.token();
        if number % 2 == 1 {
            return self.listeners.on_readable(number / 2);
        }
        if let Some(key) = self.connections.key_at(number / 2) {
            self.advance(key, cx);
        }
    }

    fn on_output(&mut self, (): (), _: &mut NoStateMachine, _: &mut Context) {}

    fn on_command(&mut self, command: AdminCommand, _: &mut NoStateMachine, cx: &mut Context) {
        match command {
            AdminCommand::End => self.ending = true,
        }
        // At once: who comes from now on is another process's.
        self.listeners.close(cx);
    }

    fn on_timeout(&mut self, _: &mut NoStateMachine, cx: &mut Context) {
        self.content.sample(cx.now, &event_loop::now);
        let over = |connection: &Connection| cx.now >= connection.deadline;
        let keys: Vec<Key> = self.connections.keys();
        for key in keys {
            if self.connections.get(key).is_some_and(over) {
                self.connections.remove(key);
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let deadlines = self.connections.iter().map(|(_, connection)| connection.deadline);
        deadlines.chain(self.listeners.next_timeout()).chain([self.content.next_sample()]).min()
    }

    fn end_turn(&mut self, _: &mut NoStateMachine, cx: &mut Context) -> bool {
        let now = cx.now;
        for accepted in self.listeners.accept(cx, || self.accepted.take(now)) {
            match accepted {
                Accepted::Client { stream, .. } => self.admit(stream, cx),
                Accepted::OutOfSockets(error) => {
                    log::warn!(target: "admin", "accepting pauses: {error}");
                }
            }
        }
        for key in std::mem::take(&mut self.unfinished) {
            self.advance(key, cx);
        }
        self.ending && self.connections.is_empty()
    }
}

impl AdminServer {
    /// Without connections yet.
    pub fn new(content: Content) -> AdminServer {
        AdminServer {
            listeners: Listeners::default(),
            connections: Slab::default(),
            unfinished: Vec::new(),
            content,
            arrivals: 0,
            accepted: Quota::per_second(ACCEPTED_PER_SECOND),
            ending: false,
        }
    }

    fn admit(&mut self, mut stream: TcpStream, cx: &mut Context) {
        if self.connections.len() >= CONNECTIONS_MAX && !self.displace() {
            return;
        }
        let index = self.connections.next_index();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if cx.registry.register(&mut stream, token(index, false), interest).is_err() {
            return;
        }
        self.arrivals += 1;
        let key = self.connections.insert(Connection {
            stream,
            phase: Phase::Reading(Vec::new()),
            deadline: cx.now + REQUEST_TIMEOUT,
            number: self.arrivals,
        });
        self.advance(key, cx);
    }

    /// Makes room: the oldest connection goes whose request is not whole, or whose
    /// answer has left. Answers that are on their way stay.
    fn displace(&mut self) -> bool {
        let idle = |(_, connection): &(Key, &Connection)| {
            !matches!(connection.phase, Phase::Answering { .. })
        };
        let oldest =
            self.connections.iter().filter(idle).min_by_key(|(_, connection)| connection.number);
        let Some(key) = oldest.map(|(key, _)| key) else { return false };
        self.connections.remove(key).is_some()
    }

    /// Does what can be done for a connection now.
    fn advance(&mut self, key: Key, cx: &mut Context) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let goes_on = match connection.read() {
            Ok(None) => Ok(true),
            Ok(Some(parsed)) => {
                let (answer, head_only) = match parsed {
                    Ok(request) => {
                        let answer = self.content.answer(&request.path, cx.now, &event_loop::now);
                        (answer, request.head_only)
                    }
                    Err((status, why)) => (refusal(status, why), false),
                };
                connection.answer(answer, head_only, cx.now);
                Ok(true)
            }
            Err(error) => Err(error),
        };
        let written = goes_on.and_then(|_| connection.write(cx.now));
        match written {
            Ok(Progress::Waiting) => {}
            Ok(Progress::MoreToWrite) => {
                cx.skip_sleep = true;
                self.unfinished.push(key);
            }
            // What came while the answer was written is thrown away.
            Ok(Progress::Written) => {
                if connection.linger().is_err() {
                    self.connections.remove(key);
                }
            }
            Err(_) => drop(self.connections.remove(key)),
        }
    }
}

fn refusal(status: &'static str, why: &str) -> Answer {
    (status, "text/plain; charset=utf-8", Arc::new(format!("{why}\n").into_bytes()))
}

enum Progress {
    Waiting,
    MoreToWrite,
    Written,
}

type Parsed = Result<http::Request, http::Refusal>;

impl Connection {
    /// Reads of the request what is there; the request, once it is whole.
    ///
    /// # Errors
    /// The connection is over.
    fn read(&mut self) -> io::Result<Option<Parsed>> {
        let Phase::Reading(bytes) = &mut self.phase else { return Ok(None) };
        let mut buffer = [0; 1024];
        loop {
            let room = (HEAD_BYTES_MAX - bytes.len()).min(buffer.len());
            let read = match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes.extend_from_slice(&buffer[..read]);
            match http::parse(bytes) {
                Ok(None) => {}
                Ok(Some(request)) => return Ok(Some(Ok(request))),
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
        }
    }

    fn answer(&mut self, (status, content_type, body): Answer, head_only: bool, now: Moment) {
        let head = http::head(status, content_type, body.len());
        let body = if head_only { Arc::default() } else { body };
        self.phase = Phase::Answering { head, body, sent: 0 };
        self.deadline = now + ANSWER_TIMEOUT;
    }

    /// Writes what fits of the answer.
    ///
    /// # Errors
    /// The connection is over.
    fn write(&mut self, now: Moment) -> io::Result<Progress> {
        let mut written = 0;
        while let Phase::Answering { head, body, sent } = &mut self.phase {
            let rest = match head.get(*sent..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &body[*sent - head.len()..],
            };
            if rest.is_empty() {
                let _ = self.stream.shutdown(Shutdown::Write);
                self.phase = Phase::Lingering(0);
                self.deadline = now + LINGER_TIMEOUT;
                break;
            }
            if written >= WRITE_BYTES_MAX {
                return Ok(Progress::MoreToWrite);
            }
            match self.stream.write(&rest[..rest.len().min(WRITE_BYTES_MAX)]) {
                Ok(count) => {
                    *sent += count;
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waiting)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(if matches!(self.phase, Phase::Lingering(_)) {
            Progress::Written
        } else {
            Progress::Waiting
        })
    }

    /// Throws away what still comes.
    ///
    /// # Errors
    /// The peer has closed the connection, or sends without end.
    fn linger(&mut self) -> io::Result<()> {
        let Phase::Lingering(discarded) = &mut self.phase else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    *discarded += count;
                    if *discarded > LINGER_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
