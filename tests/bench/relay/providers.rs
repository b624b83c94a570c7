//! The providers behind every balancer: a process of its own, three addresses.
//!
//! Owns what clients get there: a reply of a kilobyte, an echo, 64 MiB, an echo of
//! datagrams. It is one process, so that its descriptors and its processor time can be
//! told from the bench's: the test binary runs itself again, with a variable in its
//! environment.

use crate::support::process::Process;
use crate::support::Directory;
use mio::event::{Event, Source};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;

/// Bytes of an answer, with its head.
pub const ANSWER: usize = 1024;
/// Bytes of a download.
pub const DOWNLOAD: u64 = 64 << 20;

const VARIABLE: &str = "PEGASUS_BENCH_PROVIDERS";
const ADDRESSES: [u8; 3] = [2, 3, 4];
const TRADES: [Trade; 3] = [Trade::Answer, Trade::Echo, Trade::Download];

/// What a provider does for its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trade {
    /// Replies to anything with a kilobyte, and closes.
    Answer,
    Echo,
    /// The same with a long answer.
    Download,
    /// An echo of datagrams.
    Datagrams,
}

/// The process, and where it listens.
pub struct Providers {
    process: Process,
    places: Vec<(Trade, Vec<SocketAddr>)>,
}

impl Providers {
    pub fn start() -> Providers {
        // A test's name is its path without the crate.
        let name = concat!(module_path!(), "::part").split_once("::").map_or("", |(_, name)| name);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture"]).env(VARIABLE, "1");
        let mut process = Process::start("providers", &mut command);
        let places = TRADES.into_iter().chain([Trade::Datagrams]).map(|trade| {
            let line = process.says(&[&format!("{trade:?} at ")]);
            (trade, line.split_whitespace().skip(2).map(|word| word.parse().unwrap()).collect())
        });
        let places = places.collect();
        Providers { process, places }
    }

    /// Where this trade is.
    pub fn at(&self, trade: Trade) -> &[SocketAddr] {
        let found = self.places.iter().find(|(known, _)| *known == trade);
        found.map_or(&[], |(_, places)| places)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The other side of [`Providers::start`]; does nothing in other processes.
#[test]
#[ignore = "a part of bench_relay"]
fn part() {
    if std::env::var_os(VARIABLE).is_some() {
        crate::support::socket::raise_descriptors();
        Counter::open().run();
    }
}

struct Client {
    stream: TcpStream,
    trade: Trade,
    /// Of a download: bytes that it was sent, once it asked.
    sent: Option<u64>,
}

struct Counter {
    poll: Poll,
    listeners: Vec<(Trade, TcpListener)>,
    sockets: Vec<UdpSocket>,
    /// By token, behind those of listeners and sockets.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    answer: Vec<u8>,
    download: File,
}

fn addresses() -> impl Iterator<Item = SocketAddr> {
    ADDRESSES.into_iter().map(|last| (IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())
}

fn register(poll: &Poll, source: &mut impl Source, token: usize) {
    poll.registry().register(source, Token(token), Interest::READABLE).unwrap();
}

impl Counter {
    fn open() -> Counter {
        let poll = Poll::new().unwrap();
        let mut listeners = Vec::new();
        let mut sockets = Vec::new();
        for trade in TRADES {
            let mut line = format!("{trade:?} at");
            for address in addresses() {
                let mut listener = TcpListener::bind(address).unwrap();
                line += &format!(" {}", listener.local_addr().unwrap());
                register(&poll, &mut listener, listeners.len());
                listeners.push((trade, listener));
            }
            eprintln!("{line}");
        }
        let mut line = format!("{:?} at", Trade::Datagrams);
        for address in addresses() {
            let mut socket = UdpSocket::bind(address).unwrap();
            line += &format!(" {}", socket.local_addr().unwrap());
            register(&poll, &mut socket, listeners.len() + sockets.len());
            sockets.push(socket);
        }
        eprintln!("{line}");
        let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ";
        let head = format!("{head}{}\r\n\r\n", ANSWER - head.len() - 7);
        let answer = format!("{head:.<ANSWER$}").into_bytes();
        Counter {
            poll,
            listeners,
            sockets,
            clients: Vec::new(),
            free: Vec::new(),
            answer,
            download: download(),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Err(error) = self.poll.poll(&mut events, None) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
                continue;
            }
            let first = self.first_client();
            for event in &events {
                match event.token().0 {
                    listener if listener < self.listeners.len() => self.accept(listener),
                    socket if socket < first => {
                        echo(&self.sockets[socket - self.listeners.len()], &mut buffer)
                    }
                    client => self.serve(client - first, event, &mut buffer),
                }
            }
        }
    }

    fn first_client(&self) -> usize {
        self.listeners.len() + self.sockets.len()
    }

    fn accept(&mut self, listener: usize) {
        let first = self.first_client();
        let trade = self.listeners[listener].0;
        while let Ok((mut stream, _)) = self.listeners[listener].1.accept() {
            let _ = stream.set_nodelay(true);
            let place = self.free.pop().unwrap_or(self.clients.len());
            if place == self.clients.len() {
                self.clients.push(None);
            }
            let both = Interest::READABLE | Interest::WRITABLE;
            let interest = if trade == Trade::Download { both } else { Interest::READABLE };
            self.poll.registry().register(&mut stream, Token(first + place), interest).unwrap();
            self.clients[place] = Some(Client { stream, trade, sent: None });
        }
    }

    /// An event may be one of an earlier client in this place; then nothing is ready.
    fn serve(&mut self, place: usize, event: &Event, buffer: &mut [u8]) {
        let Some(client) = &mut self.clients[place] else { return };
        let over = match client.trade {
            Trade::Answer => client.answer(&self.answer, buffer),
            Trade::Download => client.download(&self.download, event, buffer),
            Trade::Echo | Trade::Datagrams => client.echo(buffer),
        };
        if !matches!(over, Ok(false)) {
            self.clients[place] = None;
            self.free.push(place);
        }
    }
}

/// Returns what can be read now; none if nothing can.
fn now(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Each: whether the connection is over.
impl Client {
    fn answer(&mut self, answer: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        match now(self.stream.read(buffer))? {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(_) => self.stream.write_all(answer).map(|()| true),
        }
    }

    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while let Some(count) = now(self.stream.read(buffer))? {
            if count == 0 {
                return Ok(true);
            }
            // Messages are small and are waited for: there is room for the answer.
            self.stream.write_all(&buffer[..count])?;
        }
        Ok(false)
    }

    fn download(&mut self, file: &File, event: &Event, buffer: &mut [u8]) -> io::Result<bool> {
        if self.sent.is_none() && event.is_readable() {
            match now(self.stream.read(buffer))? {
                None => {}
                Some(0) => return Ok(true),
                Some(_) => self.sent = Some(0),
            }
        }
        let Some(sent) = &mut self.sent else { return Ok(false) };
        while *sent < DOWNLOAD {
            let mut offset = *sent as libc::off_t;
            let left = (DOWNLOAD - *sent) as usize;
            // SAFETY: both descriptors are open, and the offset is there while it runs.
            let count = unsafe {
                libc::sendfile(self.stream.as_raw_fd(), file.as_raw_fd(), &raw mut offset, left)
            };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error());
            match now(count)? {
                None => return Ok(false),
                Some(count) => *sent += count as u64,
            }
        }
        Ok(true)
    }
}

fn echo(socket: &UdpSocket, buffer: &mut [u8]) {
    while let Ok((count, from)) = socket.recv_from(buffer) {
        let _ = socket.send_to(&buffer[..count], from);
    }
}

/// Returns the file to download, which has no name.
fn download() -> File {
    let directory = Directory::new();
    let path = directory.file("download");
    let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|place| (place % 251) as u8).collect();
    for _ in 0..DOWNLOAD / block.len() as u64 {
        file.write_all(&block).unwrap();
    }
    file
}
