//! Clients that come all the time, and what each of them lost.

use crate::support::random::Random;
use crate::support::socket::{drain, End};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than any provider is frozen and any client waits for a ticket.
const PATIENT: Duration = Duration::from_secs(60);
/// Between two requests of a client, so that the load is bounded.
const REST: Duration = Duration::from_millis(10);

/// When something was killed, until it was gone or back.
#[derive(Clone, Default)]
pub struct Outages(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Outages {
    pub fn during(&self, kill: impl FnOnce()) {
        let start = Instant::now();
        kill();
        self.0.lock().unwrap().push((start, Instant::now()));
    }

    fn excuse(&self, from: Instant, to: Instant) -> bool {
        self.0.lock().unwrap().iter().any(|(start, end)| *start <= to && from <= *end)
    }
}

/// What clients lost.
#[derive(Default)]
pub struct Lost {
    pub failures: Vec<String>,
    /// Requests that failed while something was killed.
    pub excused: usize,
}

/// A request that failed: since when it was under way, and how it ended.
type Failure = (Instant, Instant, String);

pub struct Clients {
    over: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<Vec<Failure>>>,
    outages: Outages,
}

impl Clients {
    /// Several of each kind at each place.
    pub fn start(places: &[SocketAddr], outages: &Outages) -> Clients {
        let mut clients = Clients {
            over: Arc::default(),
            counts: Vec::new(),
            threads: Vec::new(),
            outages: outages.clone(),
        };
        for (number, place) in places.iter().copied().enumerate() {
            for turn in 0..3 {
                let seed = (number * 3 + turn) as u64;
                clients.add(seed, move |random| visit(place, random));
                clients.add(seed, move |random| talk(place, random));
                clients.add(seed, move |random| exchange(place, random));
            }
        }
        clients
    }

    fn add(&mut self, seed: u64, act: impl Fn(&mut Random) -> Result<(), String> + Send + 'static) {
        let (over, count) = (self.over.clone(), Arc::<AtomicUsize>::default());
        self.counts.push(count.clone());
        self.threads.push(thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut failures = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let start = Instant::now();
                match act(&mut random) {
                    Ok(()) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(why) => failures.push((start, Instant::now(), why)),
                }
                thread::sleep(REST);
            }
            failures
        }));
    }

    /// Returns how many requests were answered.
    pub fn count(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    pub fn all_served(&self) -> bool {
        self.counts.iter().all(|count| count.load(Ordering::SeqCst) > 0)
    }

    /// Waits for the last answers.
    pub fn end(self) -> Lost {
        self.over.store(true, Ordering::SeqCst);
        let mut lost = Lost::default();
        for thread in self.threads {
            for (from, to, why) in thread.join().unwrap() {
                match self.outages.excuse(from, to) {
                    true => lost.excused += 1,
                    false => lost.failures.push(format!("{why} after {:?}", to - from)),
                }
            }
        }
        lost
    }
}

fn connect(place: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(place).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(PATIENT)).unwrap();
    stream.set_write_timeout(Some(PATIENT)).unwrap();
    Ok(stream)
}

/// Sends all, ends, and reads all.
fn visit(place: SocketAddr, random: &mut Random) -> Result<(), String> {
    let length = 1 + random.below(60_000) as usize;
    let bytes = random.bytes(length);
    let mut stream = connect(place)?;
    stream.write_all(&bytes).map_err(|error| format!("visit: write: {error}"))?;
    let _ = stream.shutdown(Shutdown::Write);
    match drain(&mut stream) {
        (back, End::Fin) if back == bytes => Ok(()),
        (back, end) => Err(format!("visit: {} bytes of {} and {end:?}", back.len(), bytes.len())),
    }
}

/// Asks and hears for a second or two, over one connection.
fn talk(place: SocketAddr, random: &mut Random) -> Result<(), String> {
    let mut stream = connect(place)?;
    for turn in 0..10 + random.below(50) {
        let length = 1 + random.below(4000) as usize;
        let bytes = random.bytes(length);
        let mut back = vec![0; bytes.len()];
        stream
            .write_all(&bytes)
            .and_then(|()| stream.read_exact(&mut back))
            .map_err(|error| format!("talk: turn {turn}: {error}"))?;
        if back != bytes {
            return Err(format!("talk: turn {turn}: other bytes"));
        }
        thread::sleep(REST);
    }
    let _ = stream.shutdown(Shutdown::Write);
    match drain(&mut stream) {
        (back, End::Fin) if back.is_empty() => Ok(()),
        (back, end) => Err(format!("talk: {} bytes at the end and {end:?}", back.len())),
    }
}

/// One flow of datagrams; each waits for the reply to the one before.
fn exchange(place: SocketAddr, random: &mut Random) -> Result<(), String> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(place).unwrap();
    // A datagram that was lost costs so long.
    socket.set_read_timeout(Some(PATIENT / 4)).unwrap();
    let mut back = vec![0; 65_536];
    for turn in 0..5 + random.below(40) {
        let length = 1 + random.below(1400) as usize;
        let bytes = random.bytes(length);
        let sent = socket.send(&bytes).and_then(|_| socket.recv(&mut back));
        match sent {
            Ok(count) if back[..count] == bytes[..] => thread::sleep(REST),
            Ok(count) => return Err(format!("datagram {turn}: {count} other bytes")),
            Err(error) => return Err(format!("datagram {turn}: {error}")),
        }
    }
    Ok(())
}
