//! Open-loop clients: each starts when it is due, whatever happened to the others.
//!
//! Owns the requests of a run, the same for every contestant, and how each ended. A client
//! is a thread with one HTTP request on one connection, as the paper's were.

use crate::support::random::Random;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How long a client waits for its answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// What a client's thread needs.
const STACK: usize = 128 * 1024;
/// Clients under way at once, of one contestant; further ones fail.
const MOST: usize = 1500;

/// A request: when, and how much work.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub due: Duration,
    pub work: Duration,
}

/// Poisson arrivals of `rate` a second, with exponential work.
pub fn requests(seed: u64, rate: f64, work: Duration, lasting: Duration) -> Vec<Request> {
    let mut random = Random::new(seed);
    let mut exponential = move |mean| Duration::from_secs_f64(random.exponential(mean));
    let mut requests = Vec::new();
    let mut due = Duration::ZERO;
    loop {
        due += exponential(1.0 / rate);
        if due >= lasting {
            return requests;
        }
        requests.push(Request { due, work: exponential(work.as_secs_f64()) });
    }
}

/// Where clients find the service.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    At(SocketAddr),
    /// At the addresses that this name server gives, in their order, and this port.
    Named(SocketAddr, u16),
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Answered,
    /// Closed, reset or refused without an answer.
    Refused,
    /// An error of HTTP.
    Error,
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

/// Sends the requests from `start` on; returns when the last one has ended.
pub fn run(door: Door, requests: &[Request], start: Instant) -> Vec<Visit> {
    let visits = Mutex::new(Vec::with_capacity(requests.len()));
    let under_way = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for request in requests {
            let until = start + request.due;
            thread::sleep(until.saturating_duration_since(Instant::now()));
            let over = |end| {
                let took = start.elapsed() - request.due;
                visits.lock().unwrap().push(Visit { due: request.due, took, end });
            };
            use std::sync::atomic::Ordering::SeqCst;
            if under_way.fetch_add(1, SeqCst) >= MOST {
                under_way.fetch_sub(1, SeqCst);
                over(End::TimedOut);
                continue;
            }
            let under_way = &under_way;
            let work = request.work;
            let client = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                over(visit(door, work, until + PATIENCE));
                under_way.fetch_sub(1, SeqCst);
            });
            client.expect("a thread for a client");
        }
    });
    visits.into_inner().unwrap()
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// One client.
fn visit(door: Door, work: Duration, until: Instant) -> End {
    let places: Vec<SocketAddr> = match door {
        Door::At(place) => vec![place],
        Door::Named(server, port) => {
            let found = resolve(server, until).unwrap_or_default();
            found.into_iter().map(|ip| SocketAddr::new(IpAddr::V4(ip), port)).collect()
        }
    };
    // A client with several addresses tries the next one when a call is refused.
    let stream =
        places.into_iter().find_map(|place| TcpStream::connect_timeout(&place, left(until)).ok());
    let Some(mut stream) = stream else {
        return if Instant::now() >= until { End::TimedOut } else { End::Refused };
    };
    let _ = stream.set_nodelay(true);
    let head = format!(
        "GET /work/{} HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n",
        work.as_micros()
    );
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    let talk = stream.write_all(head.as_bytes()).and_then(|()| loop {
        stream.set_read_timeout(Some(left(until)))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    });
    let answer = String::from_utf8_lossy(&answer);
    match talk {
        _ if Instant::now() >= until => End::TimedOut,
        _ if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('\n') => End::Answered,
        Ok(()) if answer.starts_with("HTTP/") => End::Error,
        _ => End::Refused,
    }
}

/// Asks for the addresses of `web.example`.
fn resolve(server: SocketAddr, until: Instant) -> std::io::Result<Vec<Ipv4Addr>> {
    const QUESTION: &[u8] = b"\x03web\x07example\x00\x00\x01\x00\x01";
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(left(until).min(Duration::from_secs(2))))?;
    let head = [0x70, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    socket.send(&[&head[..], QUESTION].concat())?;
    let mut answer = [0; 1232];
    let count = socket.recv(&mut answer)?;
    let answer = &answer[..count];
    let mut addresses = Vec::new();
    let mut rest = answer.get(12 + QUESTION.len()..).unwrap_or(&[]);
    // Records whose name is a pointer to the question: 12 bytes, then an address.
    while let [0xc0, _, 0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d, ..] = rest {
        addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        rest = &rest[16..];
    }
    Ok(addresses)
}
