//! The service under test: a host of [`engine`](super::engine) behind a port.
//!
//! Owns its connections, its death and its silence, and the file with its load, for
//! `monitor_load=file:`. Knows no balancer. A request is a line with its work in
//! microseconds. The reply, the service's number, comes when the work is done, and then
//! the connection ends.

use super::engine::{Build, Engine};
use super::load_file::{LoadFile, PUBLISH};
use crate::bench::exact::wait;
use crate::support::socket::reset;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender, TryRecvError};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const BACKLOG: i32 = 4096;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// What can happen to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The port closes, connections are reset.
    Die,
    /// It receives and sends nothing: connects time out.
    FallSilent,
    /// It is there again.
    Return,
}

/// A service that runs until it is dropped.
pub struct Service {
    pub address: SocketAddr,
    /// Returns the file with its load.
    pub load: PathBuf,
    broken: Arc<AtomicUsize>,
    turns: Option<Sender<Turn>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn start(number: usize, build: Build, directory: &Path) -> Service {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, crate::support::free_port()))
                .unwrap();
        let address = listener.local_addr().unwrap();
        let load = directory.join(format!("load-{number}-{}", address.port()));
        let broken = Arc::new(AtomicUsize::new(0));
        let (turns, receiver) = channel();
        let mut counter = Counter {
            number,
            poll,
            address,
            listener: None,
            clients: HashMap::new(),
            next: FIRST_CLIENT,
            engine: Engine::new(build),
            epoch: Instant::now(),
            silent: None,
            broken: broken.clone(),
            load: LoadFile::new(load.clone(), &build),
        };
        counter.listen(listener);
        counter.load.publish(&counter.engine);
        let thread = thread::spawn(move || counter.run(&receiver));
        Service { address, load, broken, turns: Some(turns), waker, thread: Some(thread) }
    }

    pub fn turn(&self, turn: Turn) {
        if let Some(turns) = &self.turns {
            let _ = turns.send(turn);
        }
        let _ = self.waker.wake();
    }

    /// Requests that were in progress when it died or became silent: they cannot be
    /// saved.
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
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
    line: Vec<u8>,
    working: bool,
}

/// What is held back while nothing can be sent.
#[derive(Default)]
struct Silence {
    answers: Vec<usize>,
    /// They fill the backlog, so that the system drops all other connects.
    _fillers: Vec<TcpStream>,
}

/// The thread's side.
struct Counter {
    number: usize,
    poll: Poll,
    address: SocketAddr,
    listener: Option<TcpListener>,
    clients: HashMap<usize, Client>,
    next: usize,
    engine: Engine,
    epoch: Instant,
    silent: Option<Silence>,
    broken: Arc<AtomicUsize>,
    load: LoadFile,
}

impl Counter {
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
                publish += PUBLISH;
                self.load.publish(&self.engine);
            }
        }
    }

    fn listen(&mut self, listener: std::net::TcpListener) {
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
            self.clients.insert(client, Client { stream, line: Vec::new(), working: false });
            self.read(client);
        }
    }

    fn read(&mut self, client: usize) {
        let Some(known) = self.clients.get_mut(&client).filter(|client| !client.working) else {
            return;
        };
        let mut buffer = [0; 64];
        loop {
            match known.stream.read(&mut buffer) {
                Ok(count @ 1..) => known.line.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It only tested the connection, or gave up.
                _ => return drop(self.clients.remove(&client)),
            }
            if known.line.ends_with(b"\n") {
                let micros = std::str::from_utf8(&known.line)
                    .ok()
                    .and_then(|line| line.trim().parse::<u32>().ok());
                known.working = true;
                self.engine.add(client, f64::from(micros.unwrap_or(0)) / 1e6);
                return;
            }
        }
    }

    fn advance(&mut self) {
        for client in self.engine.advance(self.epoch.elapsed().as_secs_f64()) {
            match &mut self.silent {
                Some(silence) => silence.answers.push(client),
                None => self.answer(client),
            }
        }
    }

    fn answer(&mut self, client: usize) {
        if let Some(mut client) = self.clients.remove(&client) {
            // A client that gave up does not receive it.
            let _ = client.stream.write_all(format!("{}\n", self.number).as_bytes());
        }
    }

    fn count_broken(&self) {
        let working = self.clients.values().filter(|client| client.working).count();
        self.broken.fetch_add(working, Ordering::SeqCst);
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Die => {
                self.listener = None;
                self.engine.clear();
                self.count_broken();
                self.clients.drain().for_each(|(_, client)| reset(client.stream.into()));
            }
            Turn::FallSilent => {
                self.count_broken();
                set_backlog(self.listener.as_ref().unwrap(), 0);
                let fillers =
                    (0..2).filter_map(|_| TcpStream::connect(self.address).ok()).collect();
                self.silent = Some(Silence { answers: Vec::new(), _fillers: fillers });
            }
            Turn::Return => {
                if let Some(silence) = self.silent.take() {
                    silence.answers.into_iter().for_each(|client| self.answer(client));
                    set_backlog(self.listener.as_ref().unwrap(), BACKLOG);
                    // Results that were reported meanwhile are not reported again.
                    self.accept();
                    let clients: Vec<usize> = self.clients.keys().copied().collect();
                    clients.into_iter().for_each(|client| self.read(client));
                } else if self.listener.is_none() {
                    self.listen(std::net::TcpListener::bind(self.address).unwrap());
                }
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
