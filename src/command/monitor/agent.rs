//! The addresses of `monitor_agent`: a line about a service for each connection, as
//! HAProxy's agent check reads it.
//!
//! Owns the connections and every bound of them: number, bytes, time, and how many are
//! taken in a second. Not responsible for what the line says.

use crate::command::daemon::AGENT_CONNECTIONS_MAX;
use crate::net::event_loop::Context;
use crate::net::listeners::{Accepted, Listeners};
use log::{info, warn};
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::quota::Quota;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::agent::{Askers, Standing};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};

/// Connections taken in a second: what they cost is bounded, too.
const ACCEPTED_PER_SECOND: u32 = 200;
/// How long the name of a service is waited for, where there are several.
const NAME_TIMEOUT: Span = Span::from_millis(200);
/// How long a connection may last: nothing is known in the first moments of a monitor.
const ANSWER_TIMEOUT: Span = Span::from_secs(5);
/// How long a peer may take to hang up.
const LINGER_TIMEOUT: Span = Span::from_secs(1);
/// The longest name with the end of its line, in bytes; and how much more is read and
/// thrown away, so that no reset destroys the answer.
const NAME_BYTES_MAX: usize = 64;
const LINGER_BYTES_MAX: usize = 4096;

/// Which service a connection asks about.
enum Question {
    /// Its name is not whole yet. From this moment on it is the first service.
    Named(Vec<u8>, Moment),
    /// None: there is no such name.
    Known(Option<ServiceName>),
    /// It is answered; so many bytes may still come.
    Answered(usize),
}

struct Connection {
    stream: TcpStream,
    from: IpAddr,
    question: Question,
    deadline: Moment,
    /// In the order of arrival.
    number: u64,
}

/// Answers HAProxy's agent checks.
pub struct Agent {
    listeners: Listeners<()>,
    connections: Slab<Connection>,
    askers: Askers,
    arrivals: u64,
    accepted: Quota,
}

impl Default for Agent {
    /// One that nothing can ask.
    fn default() -> Agent {
        Agent {
            listeners: Listeners::default(),
            connections: Slab::default(),
            askers: Askers::default(),
            arrivals: 0,
            accepted: Quota::per_second(ACCEPTED_PER_SECOND),
        }
    }
}

/// Tokens from here on are the agent's: even ones are connections, odd ones listeners.
const FIRST_TOKEN: usize = usize::MAX / 2 + 1;

fn token(number: usize, listener: bool) -> Token {
    Token(FIRST_TOKEN + number * 2 + usize::from(listener))
}

impl Agent {
    /// Listens on these sockets.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn listen(sockets: Vec<TcpListener>, cx: &Context) -> io::Result<Agent> {
        let mut agent = Agent::default();
        for (number, socket) in sockets.into_iter().enumerate() {
            agent.listeners.add(number, (), socket, token(number, true), cx)?;
        }
        let addresses: Vec<String> = agent.listeners.addresses().map(|at| at.to_string()).collect();
        if !addresses.is_empty() {
            info!(target: "monitor", "answers agent checks at {}", addresses.join(" "));
        }
        Ok(agent)
    }

    /// Whether there is anything that can be asked.
    pub fn is_used(&self) -> bool {
        self.listeners.addresses().next().is_some()
    }

    /// Takes the event of a token, if that is the agent's.
    pub fn on_event(&mut self, Token(token): Token) -> bool {
        let Some(number) = token.checked_sub(FIRST_TOKEN) else { return false };
        if number % 2 == 1 {
            self.listeners.on_readable(number / 2);
        } else if let Some(key) = self.connections.key_at(number / 2) {
            self.read(key);
        }
        true
    }

    /// When [`end_turn`](Agent::end_turn) has something to do.
    pub fn next_timeout(&self) -> Option<Moment> {
        let due = |(_, connection): (Key, &Connection)| match connection.question {
            Question::Named(_, until) => until.min(connection.deadline),
            _ => connection.deadline,
        };
        self.connections.iter().map(due).chain(self.listeners.next_timeout()).min()
    }

    /// Takes connections in and answers those that can be answered. `services` are those
    /// of this host, `standing` says how the one of a number stands, if that is known.
    pub fn end_turn(
        &mut self,
        services: &[ServiceName],
        standing: impl Fn(usize) -> Option<Standing>,
        cx: &mut Context,
    ) {
        self.accept(cx);
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if cx.now >= connection.deadline {
                self.connections.remove(key);
                continue;
            }
            if let Question::Named(_, until) = connection.question {
                if services.len() <= 1 || cx.now >= until {
                    connection.question = Question::Known(services.first().copied());
                }
            }
            let Question::Known(service) = connection.question else { continue };
            let number = service.and_then(|name| services.iter().position(|known| *known == name));
            let Some(standing) = number.map_or(Some(Standing::Unknown), &standing) else {
                continue;
            };
            if connection.answer(standing, cx.now).is_err() {
                self.connections.remove(key);
                continue;
            }
            if let Some(service) = service {
                self.askers.told(connection.from, service, standing, cx.now);
            }
            self.read(key);
        }
    }

    /// Whether an agent check is expected that has not heard yet that this host drains.
    pub fn is_expected(&self, now: Moment) -> bool {
        self.askers.are_expected(now)
    }

    fn accept(&mut self, cx: &mut Context) {
        let now = cx.now;
        for accepted in self.listeners.accept(cx, || self.accepted.take(now)) {
            match accepted {
                Accepted::Client { stream, from, .. } => self.admit(stream, from.ip(), cx),
                Accepted::OutOfSockets(error) => {
                    warn!(target: "monitor", "accepting at monitor_agent pauses: {error}");
                }
            }
        }
    }

    /// One more connection takes the place of the oldest.
    fn admit(&mut self, mut stream: TcpStream, from: IpAddr, cx: &mut Context) {
        if self.connections.len() >= AGENT_CONNECTIONS_MAX {
            let oldest = self.connections.iter().min_by_key(|(_, connection)| connection.number);
            if let Some(key) = oldest.map(|(key, _)| key) {
                self.connections.remove(key);
            }
        }
        let token = token(self.connections.next_index(), false);
        if cx.registry.register(&mut stream, token, Interest::READABLE).is_err() {
            return;
        }
        self.arrivals += 1;
        let key = self.connections.insert(Connection {
            stream,
            from,
            question: Question::Named(Vec::new(), cx.now + NAME_TIMEOUT),
            deadline: cx.now + ANSWER_TIMEOUT,
            number: self.arrivals,
        });
        self.read(key);
    }

    fn read(&mut self, key: Key) {
        let ended = self.connections.get_mut(key).is_some_and(|connection| {
            matches!(connection.read(), Err(error) if error.kind() != io::ErrorKind::WouldBlock)
        });
        if ended {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    /// Reads what is there, until the system has no more of it.
    ///
    /// # Errors
    /// The connection is over, or nothing more is there.
    fn read(&mut self) -> io::Result<()> {
        loop {
            let mut buffer = [0; NAME_BYTES_MAX];
            let count = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            match &mut self.question {
                Question::Named(line, _) => {
                    line.extend_from_slice(&buffer[..count]);
                    let ended = line.contains(&b'\n') || line.len() >= NAME_BYTES_MAX;
                    if count > 0 && !ended {
                        continue;
                    }
                    let name = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
                    let name = String::from_utf8_lossy(name).trim().to_string();
                    if name.is_empty() {
                        // A connection that says nothing means the first service, from now on.
                        self.question = Question::Named(Vec::new(), Moment::ZERO);
                    } else {
                        self.question = Question::Known(ServiceName::typed(&name).ok());
                    }
                }
                Question::Known(_) => {}
                Question::Answered(left) => {
                    *left = left.checked_sub(count).ok_or(io::ErrorKind::InvalidData)?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            if count == 0 {
                // It sends no more. What it asked is answered all the same.
                return Ok(());
            }
        }
    }

    /// Answers in one piece, which fits into any socket that was not written to.
    ///
    /// # Errors
    /// The connection is over.
    fn answer(&mut self, standing: Standing, now: Moment) -> io::Result<()> {
        self.stream.write_all(format!("{standing}\n").as_bytes())?;
        self.stream.shutdown(Shutdown::Write)?;
        self.question = Question::Answered(LINGER_BYTES_MAX);
        self.deadline = now + LINGER_TIMEOUT;
        Ok(())
    }
}
