//! Clients that connect one after the other while something else happens.

use super::socket::{connect, drain, End};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Sends something to an echo and checks the reply; returns what went wrong, if anything.
pub fn visit(to: SocketAddr, words: &str) -> Result<(), String> {
    let mut stream =
        TcpStream::connect(to).map_err(|error| format!("{words}: connect: {error}"))?;
    let _ = stream.set_read_timeout(Some(super::PATIENCE));
    stream.write_all(words.as_bytes()).map_err(|error| format!("{words}: write: {error}"))?;
    // A reset shows when the connection is read.
    let _ = stream.shutdown(Shutdown::Write);
    match drain(&mut stream) {
        (bytes, End::Fin) if bytes == words.as_bytes() => Ok(()),
        (bytes, end) => Err(format!("{words}: {} bytes and {end:?}", bytes.len())),
    }
}

/// Several clients at a time; when one ends, the next connects.
pub struct Visits {
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Visits {
    pub fn start(to: SocketAddr, at_once: usize) -> Visits {
        let (over, count): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let threads = (0..at_once).map(|number| {
            let over = over.clone();
            let count = count.clone();
            thread::spawn(move || {
                let mut failed = Vec::new();
                for turn in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    failed.extend(visit(to, &format!("client {number} turn {turn}")).err());
                    count.fetch_add(1, Ordering::SeqCst);
                }
                failed
            })
        });
        let threads = threads.collect();
        Visits { over, count, threads }
    }

    /// Returns how many visits are over.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits for the last ones; returns those that failed.
    pub fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Returns a client whose connection works: its first byte came back.
#[track_caller]
pub fn running(to: SocketAddr) -> TcpStream {
    use std::io::Read;
    let mut client = connect(to);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    client
}
