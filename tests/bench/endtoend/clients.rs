//! Open-loop clients: they start when they are due, whatever happened to the others.
//!
//! Owns the requests of a run, the same for every balancer under test, and the result of
//! each. Knows only the balancers' addresses.

use crate::bench::exact::wait;
use crate::support::random::Random;
use crate::support::socket::reset;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Mean work of a request at speed 1.
pub const WORK: Duration = Duration::from_millis(50);
/// How long a client waits for its reply.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A request: when, how much work, through which of the balancers.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub due: Duration,
    work: Duration,
    door: usize,
}

/// Poisson arrivals with exponential work.
pub fn requests(seed: u64, rate: f64, doors: usize, lasting: Duration) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut requests = Vec::new();
    let mut due = Duration::ZERO;
    loop {
        due += Duration::from_secs_f64(random.exponential(1.0 / rate));
        if due >= lasting {
            return requests;
        }
        let work = Duration::from_secs_f64(random.exponential(WORK.as_secs_f64()));
        requests.push(Request { due, work, door: random.below(doors as u64) as usize });
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By the provider of this number.
    Answered(usize),
    /// Closed or reset without a reply.
    Refused,
    /// No reply in time.
    TimedOut,
}

/// The result of a request.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub due: Duration,
    /// From when it was due.
    pub took: Duration,
    pub end: End,
}

struct Client {
    stream: TcpStream,
    request: Request,
    asked: bool,
    answer: Vec<u8>,
}

impl Client {
    /// How it ended, if it did.
    fn go_on(&mut self) -> Option<End> {
        if !self.asked {
            // It is not connected yet.
            let head = format!(
                "GET /work/{} HTTP/1.1\r\nHost: web.example\r\n\r\n",
                self.request.work.as_micros()
            );
            match self.stream.write(head.as_bytes()) {
                Ok(_) => self.asked = true,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    return None
                }
                Err(_) => return Some(End::Refused),
            }
        }
        let mut buffer = [0; 256];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => break,
            }
        }
        let answer = String::from_utf8_lossy(&self.answer);
        let number = answer
            .starts_with("HTTP/1.1 200 ")
            .then(|| answer.lines().last()?.parse().ok())
            .flatten();
        Some(number.map_or(End::Refused, End::Answered))
    }
}

/// Sends the requests, from `start` on; returns when the last one has ended.
pub fn run(doors: &[SocketAddr], requests: &[Request], start: Instant) -> Vec<Visit> {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut timeouts: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut visits = Vec::with_capacity(requests.len());
    let mut next = 0;
    while next < requests.len() || !clients.is_empty() {
        let due = requests.get(next).map(|request| start + request.due);
        let timeout = timeouts.front().map(|(until, _)| *until);
        wait(&mut poll, &mut events, due.into_iter().chain(timeout).min());
        let visit = |request: Request, end| Visit {
            due: request.due,
            took: start.elapsed() - request.due,
            end,
        };
        for event in &events {
            let Token(number) = event.token();
            let Some(end) = clients.get_mut(&number).and_then(Client::go_on) else { continue };
            visits.extend(clients.remove(&number).map(|client| visit(client.request, end)));
        }
        while let Some(request) =
            requests.get(next).filter(|request| start.elapsed() >= request.due)
        {
            let both = Interest::READABLE | Interest::WRITABLE;
            let stream = TcpStream::connect(doors[request.door]).and_then(|mut stream| {
                poll.registry().register(&mut stream, Token(next), both)?;
                Ok(stream)
            });
            match stream {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    clients.insert(
                        next,
                        Client { stream, request: *request, asked: false, answer: Vec::new() },
                    );
                    timeouts.push_back((start + request.due + TIMEOUT, next));
                }
                Err(_) => visits.push(visit(*request, End::Refused)),
            }
            next += 1;
        }
        while let Some((_, number)) =
            timeouts.front().copied().filter(|(until, _)| Instant::now() >= *until)
        {
            timeouts.pop_front();
            if let Some(client) = clients.remove(&number) {
                visits.push(visit(client.request, End::TimedOut));
                // It closes without waiting for the other side, and so leaves no half of
                // a connection.
                reset(client.stream.into());
            }
        }
        // Most have ended long before their time.
        while timeouts.front().is_some_and(|(_, number)| !clients.contains_key(number)) {
            timeouts.pop_front();
        }
    }
    visits
}
