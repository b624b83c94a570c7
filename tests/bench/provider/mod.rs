//! A provider: HTTP before an [`Engine`], which sleeps instead of working.
//!
//! Owns its connections, its misfortunes, when requests came, and what it tells of its
//! load: a file for `monitor_load=file:`, and heartbeats as Apache's mod_heartbeat sends
//! them. Knows no balancer. `GET /work/MICROSECONDS` is answered when that much work is
//! done, with the provider's number; `GET /health` at once.
#![cfg(target_os = "linux")]

pub mod engine;
mod load_file;

use super::exact::wait;
use crate::support::socket::reset;
use engine::{Build, Engine};
use load_file::{LoadFile, PUBLISH};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Reports between two heartbeats: a second, as mod_heartbeat.
const BEAT_EVERY: u32 = 5;
/// Workers of the modelled Apache for each unit of speed.
const WORKERS: f64 = 20.0;
/// The longest head of a request.
const HEAD: usize = 4096;
/// Connections that the system accepts in advance.
const BACKLOG: i32 = 4096;

pub const BEATS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 7, 1), 27_999);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// What can happen to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// So many tasks of others want its CPUs.
    Hogs(usize),
    /// The port closes, connections are reset.
    Die,
    /// It receives and sends nothing: connects time out.
    FallSilent,
    /// It listens again, and reads what came meanwhile.
    Return,
    /// It answers 503 to everything at once.
    Sicken,
    Recover,
}

/// What it has seen.
#[derive(Default)]
pub struct Seen {
    /// When requests for work came.
    pub came: Vec<Instant>,
    /// Requests that were in it when it died or fell silent: they cannot be saved.
    pub broken: usize,
    /// Most requests in it at once.
    pub most: usize,
}

/// A provider that runs until it is dropped.
pub struct Provider {
    pub address: SocketAddr,
    /// The file with its load.
    pub load: PathBuf,
    seen: Arc<Mutex<Seen>>,
    turns: Option<Sender<Turn>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    /// `beats`: it sends heartbeats.
    pub fn start(
        number: usize,
        address: SocketAddr,
        build: Build,
        directory: &Path,
        beats: bool,
    ) -> Provider {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let load = directory.join(format!("load-{}-{}", address.ip(), address.port()));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (turns, receiver) = channel();
        let mut host = Host {
            number,
            poll,
            address,
            listener: None,
            clients: HashMap::new(),
            next: FIRST_CLIENT,
            engine: Engine::new(build),
            build,
            epoch: Instant::now(),
            sick: false,
            silent: None,
            seen: seen.clone(),
            load: LoadFile::new(load.clone(), &build),
            beats: beats.then(|| UdpSocket::bind((address.ip(), 0)).unwrap()),
            published: 0,
        };
        host.listen();
        host.publish();
        let thread = thread::spawn(move || host.run(&receiver));
        Provider { address, load, seen, turns: Some(turns), waker, thread: Some(thread) }
    }

    pub fn turn(&self, turn: Turn) {
        if let Some(turns) = &self.turns {
            let _ = turns.send(turn);
        }
        let _ = self.waker.wake();
    }

    pub fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.turns = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Client {
    stream: TcpStream,
    head: Vec<u8>,
    working: bool,
}

/// What is held back while nothing can be sent.
struct Silence {
    answers: Vec<usize>,
    /// They fill the backlog, so that the system drops all other connects.
    _fillers: Vec<std::net::TcpStream>,
}

/// What a request wants.
enum Wish {
    Work(f64),
    Health,
    Other,
}

impl Wish {
    fn of(head: &[u8]) -> Wish {
        let head = String::from_utf8_lossy(head);
        let path = head.split(' ').nth(1).unwrap_or("");
        match path.strip_prefix("/work/").and_then(|micros| micros.parse::<u32>().ok()) {
            Some(micros) => Wish::Work(f64::from(micros) / 1e6),
            None if path == "/health" => Wish::Health,
            None => Wish::Other,
        }
    }
}

/// The thread's side.
struct Host {
    number: usize,
    poll: Poll,
    address: SocketAddr,
    listener: Option<TcpListener>,
    clients: HashMap<usize, Client>,
    next: usize,
    engine: Engine,
    build: Build,
    epoch: Instant,
    sick: bool,
    silent: Option<Silence>,
    seen: Arc<Mutex<Seen>>,
    load: LoadFile,
    beats: Option<UdpSocket>,
    published: u32,
}

impl Host {
    fn run(mut self, turns: &Receiver<Turn>) {
        let mut events = Events::with_capacity(256);
        let mut publish = Instant::now() + PUBLISH;
        loop {
            let due = self.engine.due().map(|due| self.epoch + Duration::from_secs_f64(due));
            wait(&mut self.poll, &mut events, Some(due.map_or(publish, |due| due.min(publish))));
            self.advance();
            match turns.try_recv() {
                Ok(turn) => self.take(turn),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            let ready: Vec<Token> = events.iter().map(|event| event.token()).collect();
            if self.silent.is_none() {
                for token in ready {
                    match token {
                        LISTENER => self.accept(),
                        WAKER => {}
                        Token(client) => self.read(client),
                    }
                }
            }
            if Instant::now() >= publish {
                publish = Instant::now() + PUBLISH;
                self.publish();
            }
        }
    }

    fn listen(&mut self) {
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = self.listener.insert(TcpListener::from_std(listener));
        set_backlog(listener, BACKLOG);
        self.poll.registry().register(listener, LISTENER, Interest::READABLE).unwrap();
    }

    fn accept(&mut self) {
        while let Some(Ok((mut stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            let client = self.next;
            self.next += 1;
            let _ = stream.set_nodelay(true);
            self.poll.registry().register(&mut stream, Token(client), Interest::READABLE).unwrap();
            self.clients.insert(client, Client { stream, head: Vec::new(), working: false });
            self.read(client);
        }
    }

    fn read(&mut self, client: usize) {
        let Some(known) = self.clients.get_mut(&client).filter(|client| !client.working) else {
            return;
        };
        let mut buffer = [0; 1024];
        loop {
            match known.stream.read(&mut buffer) {
                Ok(count @ 1..) if known.head.len() < HEAD => {
                    known.head.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It only tested the connection, or gave up.
                _ => return drop(self.clients.remove(&client)),
            }
            if known.head.windows(4).any(|end| end == b"\r\n\r\n") {
                break;
            }
        }
        match Wish::of(&known.head) {
            _ if self.sick => self.answer(client, "503 Service Unavailable"),
            Wish::Health => self.answer(client, "200 OK"),
            Wish::Other => self.answer(client, "404 Not Found"),
            Wish::Work(seconds) => {
                known.working = true;
                self.engine.add(client, seconds);
                let mut seen = self.seen.lock().unwrap();
                seen.came.push(Instant::now());
                seen.most = seen.most.max(self.engine.jobs());
            }
        }
    }

    fn advance(&mut self) {
        for client in self.engine.advance(self.epoch.elapsed().as_secs_f64()) {
            match &mut self.silent {
                Some(silence) => silence.answers.push(client),
                None => self.answer(client, "200 OK"),
            }
        }
    }

    fn answer(&mut self, client: usize, status: &str) {
        if let Some(mut client) = self.clients.remove(&client) {
            let body = format!("{}\n", self.number);
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
            // A client that gave up does not receive it.
            let _ = client.stream.write_all(text.as_bytes());
        }
    }

    fn count_broken(&self) {
        let working = self.clients.values().filter(|client| client.working).count();
        self.seen.lock().unwrap().broken += working;
    }

    fn fall_silent(&mut self) {
        self.count_broken();
        set_backlog(self.listener.as_ref().unwrap(), 0);
        let filler = |_| std::net::TcpStream::connect(self.address).ok();
        self.silent =
            Some(Silence { answers: Vec::new(), _fillers: (0..2).filter_map(filler).collect() });
    }

    fn speak_again(&mut self, silence: Silence) {
        silence.answers.into_iter().for_each(|client| self.answer(client, "200 OK"));
        set_backlog(self.listener.as_ref().unwrap(), BACKLOG);
        // What was ready meanwhile is not reported again.
        self.accept();
        let clients: Vec<usize> = self.clients.keys().copied().collect();
        clients.into_iter().for_each(|client| self.read(client));
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Hogs(hogs) => self.engine.set_hogs(hogs),
            Turn::Die => {
                self.listener = None;
                self.engine.clear();
                self.count_broken();
                self.clients.drain().for_each(|(_, client)| reset(client.stream.into()));
            }
            Turn::FallSilent => self.fall_silent(),
            Turn::Return => match self.silent.take() {
                Some(silence) => self.speak_again(silence),
                None => self.listen(),
            },
            Turn::Sicken => self.sick = true,
            Turn::Recover => self.sick = false,
        }
    }

    /// Tells of its load.
    fn publish(&mut self) {
        self.load.publish(&self.engine);
        self.published += 1;
        if let Some(beats) = self.beats.as_ref().filter(|_| self.listener.is_some()) {
            if self.published % BEAT_EVERY == 1 {
                let all = (WORKERS * self.build.speed) as usize;
                let busy = self.engine.jobs().min(all);
                let ready = all - busy;
                let port = self.address.port();
                let beat = format!("v=1&ready={ready}&busy={busy}&port={port}");
                let _ = beats.send_to(beat.as_bytes(), BEATS);
            }
        }
    }
}

/// How many connections the system may accept in advance.
fn set_backlog(listener: &TcpListener, backlog: i32) {
    // SAFETY: the descriptor is open and listens; to listen again changes the backlog.
    let done = unsafe { libc::listen(listener.as_raw_fd(), backlog) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
