//! UDP clients and providers.

use super::pegasus::{command, Queue, Redirect, SERVICE};
use super::{until_some, PATIENCE};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Returns a client's socket that receives datagrams from `to` only.
#[track_caller]
pub fn client(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Returns the next datagram.
#[track_caller]
pub fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let count = socket.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

/// Sends a datagram and returns the reply.
#[track_caller]
pub fn ask(socket: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    socket.send(bytes).unwrap();
    hear(socket)
}

/// A UDP server that runs until it is dropped; a closure makes the replies.
pub struct Sink {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    #[track_caller]
    pub fn start(place: &str, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Sink {
        let socket = UdpSocket::bind(place).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let (taken, over): (Arc<Mutex<Vec<_>>>, Arc<AtomicBool>) = Default::default();
        let list = taken.clone();
        let ended = over.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::SeqCst) {
                let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
                list.lock().unwrap().push(buffer[..count].to_vec());
                if let Some(answer) = answer(&buffer[..count]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Sink { address, taken, over, thread: Some(thread) }
    }

    /// A server that never replies.
    pub fn silent() -> Sink {
        Sink::start("127.0.0.1:0", |_| None)
    }

    /// A server that echoes.
    pub fn echo() -> Sink {
        Sink::start("127.0.0.1:0", |bytes| Some(bytes.to_vec()))
    }

    /// A server that replies with its name.
    pub fn named(name: &'static str) -> Sink {
        Sink::start("127.0.0.1:0", move |_| Some(name.into()))
    }

    /// Returns the datagrams that it has received.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A queue and a UDP redirector in front of providers with many tickets.
pub struct Flows {
    pub queue: Queue,
    pub redirect: Redirect,
}

impl Flows {
    /// The providers take turns.
    #[track_caller]
    pub fn before(providers: &[SocketAddr], settings: &[&str]) -> Flows {
        Flows::at("127.0.0.1:0", "round-robin", providers, settings)
    }

    /// The first free provider is chosen.
    #[track_caller]
    pub fn first_of(providers: &[SocketAddr], settings: &[&str]) -> Flows {
        Flows::at("127.0.0.1:0", "fifo", providers, settings)
    }

    #[track_caller]
    pub fn at(place: &str, scheduler: &str, providers: &[SocketAddr], settings: &[&str]) -> Flows {
        let queue = Queue::start(&[&format!("queue_scheduler={scheduler}")]);
        for provider in providers {
            queue.offer(provider, 10_000);
        }
        let asks = format!("redirect_queue={}", queue.address);
        let listen = format!("service_{SERVICE}_listen={place}/udp");
        let settings: Vec<&str> =
            settings.iter().copied().chain([asks.as_str(), listen.as_str()]).collect();
        let redirect = Redirect::of(&mut command("redirect", &settings));
        // One thread, so that its descriptors can be counted.
        until_some("it is connected to the queue", || {
            (queue.status().queue().number("connections") >= 2).then_some(())
        });
        Flows { queue, redirect }
    }

    /// Returns a client of it.
    #[track_caller]
    pub fn client(&self) -> UdpSocket {
        client(self.redirect.address)
    }

    /// Waits until it has this many sockets for flows.
    #[track_caller]
    pub fn has_flows(&self, count: u64) {
        let active =
            || self.queue.status().providers().map(|row| row.number("active")).sum::<u64>();
        until_some(&format!("{count} flows"), || (active() == count).then_some(()));
    }
}

impl Deref for Flows {
    type Target = Redirect;

    fn deref(&self) -> &Redirect {
        &self.redirect
    }
}
