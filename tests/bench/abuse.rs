//! Clients of a redirector while its admin address is abused.
//!
//! ```text
//! cargo test --release --test main bench_abuse -- --ignored --nocapture
//! ```
//! Owns three turns, which follow one another in every round, each time in another order: no
//! abuse, the same abuse of a socket of the test's own, and abuse of the admin address. The
//! abuse takes processor time itself; the second turn shows how much of a difference is that.
//!
//! A client comes every 2.5 ms, sends 64 bytes, reads them back and leaves. Its time counts from
//! the moment it was due. The abuse: 10,000 connections that say nothing; 32 that send their
//! request byte by byte; heads without an end; garbage and pipelined requests; and scrapes
//! without a pause. Everything stays in a network of the test's own.
//!
//! | environment | default | |
//! |---|---|---|
//! | `PEGASUS_BENCH_ROUNDS` | `7` | |
//! | `PEGASUS_BENCH_SECONDS` | `2` | of each turn in each round |
#![cfg(target_os = "linux")]

use super::host::{describe, parameter};
use super::statistics::{median, quantile};
use crate::support::namespace;
use crate::support::pegasus::{Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{raise_descriptors, reset};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Clients: threads, and the time from one client of a thread to its next one.
const THREADS: u32 = 4;
const PACE: Duration = Duration::from_millis(10);
/// Connections that say nothing, and those that say little.
const SILENT: usize = 10_000;
const SLOW: usize = 32;
/// The longest wait of a client, or of an abuser.
const WAIT_MAX: Duration = Duration::from_secs(5);

const TURNS: [&str; 3] = ["no abuse", "abuse of another socket", "abuse of the admin address"];

/// What a turn gave: milliseconds of clients, in order; those that failed; and the
/// redirector's processor time, in milliseconds for each second.
struct Taken {
    times: Vec<f64>,
    failed: usize,
    used: f64,
    silent: usize,
}

impl Taken {
    fn quantile(&self, part: f64) -> f64 {
        quantile(&self.times, part)
    }
}

fn visit(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.write_all(&[b'x'; 64])?;
    stream.read_exact(&mut [0; 64])
}

/// Clients of one thread: their times, and how many failed.
fn clients(to: SocketAddr, first: Instant, end: Instant) -> (Vec<f64>, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut due = first;
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match visit(to) {
            Ok(()) => times.push(due.elapsed().as_secs_f64() * 1000.0),
            Err(_) => failed += 1,
        }
        due += PACE;
    }
    (times, failed)
}

/// A connection that was begun; it ends with a reset, so that no port is kept.
struct Begun(Option<TcpStream>);

impl Begun {
    fn to(to: SocketAddr) -> Option<Begun> {
        let stream = mio::net::TcpStream::connect(to).ok()?;
        // SAFETY: the descriptor was given up by its owner in the same breath.
        Some(Begun(Some(unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) })))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(reset);
    }
}

/// Sends this again and again, each time on a connection of its own.
fn repeat(to: SocketAddr, over: &AtomicBool, pause: Duration, bytes: &[u8], answer: bool) {
    while !over.load(Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(200)) {
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let _ = stream.write_all(bytes);
            if answer {
                let _ = stream.read_to_end(&mut Vec::new());
            }
            reset(stream);
        }
        thread::sleep(pause);
    }
}

/// Peers that send a request byte by byte.
fn slow(to: SocketAddr, over: &AtomicBool) {
    let mut streams: Vec<Option<Begun>> = (0..SLOW).map(|_| None).collect();
    for byte in b"GET /metrics HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        if over.load(Relaxed) {
            return;
        }
        for place in &mut streams {
            let stream = place.as_mut().and_then(|begun| begun.0.as_mut());
            if stream.is_none_or(|stream| stream.write_all(&[*byte]).is_err()) {
                *place = Begun::to(to);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Opens as many as it can, and holds them until the turn is over.
fn silent(to: SocketAddr, over: &AtomicBool, count: &AtomicUsize) {
    let mut held = Vec::new();
    while held.len() < SILENT && !over.load(Relaxed) {
        let Some(begun) = Begun::to(to) else { break };
        held.push(begun);
        count.store(held.len(), Relaxed);
    }
    while !over.load(Relaxed) {
        thread::sleep(Duration::from_millis(10));
    }
}

/// All of the abuse, until it is over.
fn abuse(to: SocketAddr, over: &AtomicBool, count: &AtomicUsize) {
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 * 1024]].concat();
    let garbage = b"\xff\x00\r\n\r\nGET / GET / GET /metrics HTTP/1.1\r\n\r\n".repeat(400);
    let scrape = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    thread::scope(|scope| {
        scope.spawn(|| silent(to, over, count));
        scope.spawn(|| slow(to, over));
        scope.spawn(|| repeat(to, over, Duration::from_millis(10), &endless, false));
        scope.spawn(|| repeat(to, over, Duration::from_millis(10), &garbage, false));
        scope.spawn(|| repeat(to, over, Duration::ZERO, scrape, true));
    });
}

/// A socket of the test's own, which takes connections as the admin address does.
fn stand_in() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = VecDeque::new();
        for stream in listener.incoming().map_while(Result::ok) {
            held.push_back(stream);
            if held.len() > 64 {
                held.pop_front();
            }
            thread::sleep(Duration::from_millis(2));
        }
    });
    address
}

fn turn(redirect: &Redirect, abused: Option<SocketAddr>, length: Duration) -> Taken {
    let (over, count) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    thread::scope(|scope| {
        if let Some(to) = abused {
            scope.spawn(move || abuse(to, over, count));
        }
        let (used, start) = (redirect.used(), Instant::now());
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let first = start + PACE * number / THREADS;
                scope.spawn(move || clients(redirect.address, first, start + length))
            })
            .collect();
        let (mut times, mut failed) = (Vec::new(), 0);
        for thread in threads {
            let (more, lost) = thread.join().unwrap();
            times.extend(more);
            failed += lost;
        }
        let used = (redirect.used() - used).as_secs_f64() / start.elapsed().as_secs_f64() * 1000.0;
        over.store(true, Relaxed);
        times.sort_by(f64::total_cmp);
        Taken { times, failed, used, silent: count.load(Relaxed) }
    })
}

#[test]
#[ignore = "a benchmark: see the file"]
fn bench_abuse() {
    let (rounds, seconds) =
        (parameter("PEGASUS_BENCH_ROUNDS", 7), parameter("PEGASUS_BENCH_SECONDS", 2.0));
    let length = Duration::from_secs_f64(seconds);
    println!("{}", describe());
    println!("descriptors: {}", raise_descriptors());
    namespace::alone(|| {
        let provider = Provider::echo();
        let queue = Queue::start(&[]);
        queue.offer(provider.address, 1000);
        let mut redirect = Redirect::start(queue.address, &["redirect_admin=127.0.0.1:0"]);
        let line = redirect.says(&["serves http://"]);
        let admin = line.rsplit("http://").next().unwrap().trim_end_matches('/').parse().unwrap();
        let places = [None, Some(stand_in()), Some(admin)];
        let mut taken: [Vec<Taken>; 3] = Default::default();
        let mut random = Random::of_now();
        turn(&redirect, None, length);
        for _ in 0..rounds {
            let mut order = [0, 1, 2];
            order.sort_by_key(|_| random.below(1 << 30));
            for place in order {
                taken[place].push(turn(&redirect, places[place], length));
            }
        }
        println!(
            "{:28} {:>8} {:>6} {:>8} {:>8} {:>8} {:>7} {:>10} {:>10}",
            "",
            "clients",
            "failed",
            "p50, ms",
            "p99, ms",
            "CPU ms/s",
            "silent",
            "p99/first",
            "p99/second"
        );
        for (number, name) in TURNS.iter().enumerate() {
            let turns = &taken[number];
            let of = |figure: &dyn Fn(&Taken) -> f64| median(turns.iter().map(figure).collect());
            // Round by round.
            let ratio = |others: &[Taken]| {
                let pairs = turns.iter().zip(others);
                median(
                    pairs.map(|(one, other)| one.quantile(0.99) / other.quantile(0.99)).collect(),
                )
            };
            println!(
                "{name:28} {:8} {:6} {:8.2} {:8.2} {:8.1} {:7.0} {:10.2} {:10.2}",
                turns.iter().map(|taken| taken.times.len()).sum::<usize>(),
                turns.iter().map(|taken| taken.failed).sum::<usize>(),
                of(&|taken| taken.quantile(0.5)),
                of(&|taken| taken.quantile(0.99)),
                of(&|taken| taken.used),
                of(&|taken| taken.silent as f64),
                ratio(&taken[0]),
                ratio(&taken[1]),
            );
        }
    });
}
