//! The demo's providers: small HTTP servers that can be killed, revived and slowed down.

use super::clients::CLIENT_TIMEOUT;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Requests that each provider runs at once.
pub const WORKERS: usize = 4;
/// Connections that wait for a worker of one provider.
const JOBS_MAX: usize = 1024;
/// How many times as long a slowed provider takes.
const SLOWER: usize = 10;

/// A tiny HTTP server that answers its own name, after a while.
pub struct Provider {
    pub name: &'static str,
    pub address: SocketAddr,
    alive: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    /// Time for one request.
    millis: Arc<AtomicUsize>,
    usual_millis: usize,
    jobs: SyncSender<TcpStream>,
}

impl Provider {
    /// Starts one that takes this time for a request.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start(name: &'static str, millis: usize) -> io::Result<Provider> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let served = Arc::new(AtomicUsize::new(0));
        let time = Arc::new(AtomicUsize::new(millis));
        for _ in 0..WORKERS {
            let waiting = waiting.clone();
            let (served, time) = (served.clone(), time.clone());
            thread::spawn(move || work(&waiting, name, &time, &served));
        }
        let alive = Arc::default();
        let provider =
            Provider { name, address, alive, served, millis: time, usual_millis: millis, jobs };
        provider.listen(listener);
        Ok(provider)
    }

    fn listen(&self, listener: TcpListener) {
        self.alive.store(true, Ordering::SeqCst);
        let alive = self.alive.clone();
        let jobs = self.jobs.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Ok(stream) = stream {
                    let _ = jobs.send(stream);
                }
                if !alive.load(Ordering::SeqCst) {
                    break;
                }
            }
            // A client that came before the end is served.
            let _ = listener.set_nonblocking(true);
            while let Ok((stream, _)) = listener.accept() {
                let _ = stream.set_nonblocking(false);
                let _ = jobs.send(stream);
            }
        });
    }

    /// Whether it accepts connections.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Whether it is slower than usual.
    pub fn is_slowed(&self) -> bool {
        self.millis.load(Ordering::SeqCst) != self.usual_millis
    }

    /// Requests that it has answered.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Makes it slower than usual, or as it was.
    pub fn toggle_speed(&self) {
        let factor = if self.is_slowed() { 1 } else { SLOWER };
        self.millis.store(factor * self.usual_millis, Ordering::SeqCst);
    }

    /// Kills it, or brings it back.
    pub fn toggle(&self) {
        if self.alive.swap(false, Ordering::SeqCst) {
            // The accepting thread wakes up by one more connection, and closes the port.
            let _ = TcpStream::connect(self.address);
        } else if let Ok(listener) = TcpListener::bind(self.address) {
            self.listen(listener);
        }
    }
}

fn work(
    waiting: &Mutex<Receiver<TcpStream>>,
    name: &str,
    millis: &AtomicUsize,
    served: &AtomicUsize,
) {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(stream) = next() {
        let time = Duration::from_millis(millis.load(Ordering::SeqCst) as u64);
        if answer(&stream, name, time).is_ok_and(|answered| answered) {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns whether there was a request.
fn answer(stream: &TcpStream, name: &str, time: Duration) -> io::Result<bool> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        // A request of this size is no request.
        if reader.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Ok(false);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    thread::sleep(time);
    let body = format!("{name}\n");
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    (&mut &*stream).write_all((head + &body).as_bytes())?;
    Ok(true)
}
