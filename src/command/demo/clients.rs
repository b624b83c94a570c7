//! The demo's own clients.
//!
//! Owns their threads and what they saw. Each asks again and again, one request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Clients at first: more than the quick two can run at once.
pub const CLIENTS: usize = 10;
/// Clients at once.
pub const CLIENTS_MAX: usize = 32;
/// How long a client waits for an answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure a client waits so long.
const PAUSE: Duration = Duration::from_millis(10);

/// What the clients saw.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub answered: usize,
    pub failed: usize,
    /// The longest time from the connect to the last byte of an answer.
    pub longest: Duration,
}

#[derive(Default)]
struct Shared {
    /// So many are to run.
    wanted: AtomicUsize,
    running: [AtomicBool; CLIENTS_MAX],
    answered: AtomicUsize,
    failed: AtomicUsize,
    longest_millis: AtomicUsize,
}

/// The running clients. They end when this is told so, or with the process.
pub struct Clients {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Clients {
    /// None yet.
    pub fn of(address: SocketAddr) -> Clients {
        Clients { address, shared: Arc::default() }
    }

    /// How many are to run.
    pub fn wanted(&self) -> usize {
        self.shared.wanted.load(Ordering::SeqCst)
    }

    /// From now on so many run; those that are too many end with their request.
    pub fn set_wanted(&self, wanted: usize) {
        let wanted = wanted.min(CLIENTS_MAX);
        self.shared.wanted.store(wanted, Ordering::SeqCst);
        for number in 0..wanted {
            if !self.shared.running[number].swap(true, Ordering::SeqCst) {
                let (shared, address) = (self.shared.clone(), self.address);
                thread::spawn(move || shared.run(number, address));
            }
        }
    }

    /// Waits for those that end.
    pub fn wait_for_the_end(&self) {
        self.set_wanted(0);
        while self.shared.running.iter().any(|running| running.load(Ordering::SeqCst)) {
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn seen(&self) -> Seen {
        let Shared { answered, failed, longest_millis, .. } = &*self.shared;
        Seen {
            answered: answered.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            longest: Duration::from_millis(longest_millis.load(Ordering::Relaxed) as u64),
        }
    }
}

impl Shared {
    fn run(&self, number: usize, address: SocketAddr) {
        let is_wanted = || number < self.wanted.load(Ordering::SeqCst);
        loop {
            while is_wanted() {
                self.visit(address);
            }
            self.running[number].store(false, Ordering::SeqCst);
            // It may be wanted again, by a user that saw it run.
            if !is_wanted() || self.running[number].swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    fn visit(&self, address: SocketAddr) {
        let start = Instant::now();
        if request(address).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            let millis = start.elapsed().as_millis() as usize;
            self.longest_millis.fetch_max(millis, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }
}

fn request(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
