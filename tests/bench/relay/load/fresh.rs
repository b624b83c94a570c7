//! A fresh connection for each request.

use super::super::providers::ANSWER;
use super::{Sample, GRACE};
use crate::bench::exact::wait;
use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n";

/// How they come.
#[derive(Clone, Copy)]
pub struct Fresh {
    /// Most connections at once.
    pub at_once: usize,
    /// How many are due in a second; none: the next one when one has ended.
    pub rate: Option<f64>,
    /// Ends its sending side behind the request.
    pub half_close: bool,
}

/// How a client finds its provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// It connects to the door.
    Straight,
    /// The door is a name server, which tells one of these addresses; clients know the port.
    Named(Vec<SocketAddr>),
    /// The door sends it on by HTTP.
    Redirected,
}

/// A question for the addresses of `web.example`.
const QUESTION: &[u8] = b"\x70\x65\x01\0\0\x01\0\0\0\0\0\0\x03web\x07example\0\0\x01\0\x01";

/// A connection on which something is asked.
struct Exchange {
    stream: TcpStream,
    asked: bool,
}

/// What a client waits for.
enum Step {
    Address(UdpSocket),
    /// What it has of the redirect.
    Location(Exchange, Vec<u8>),
    /// How many bytes of the answer it has.
    Answer(Exchange, usize),
}

/// How it goes on.
enum Turn {
    Waits,
    Ends(bool),
    GoesTo(SocketAddr),
}

struct Client {
    step: Step,
    /// When it was due.
    since: Instant,
}

impl Exchange {
    fn to(place: SocketAddr) -> io::Result<Exchange> {
        Ok(Exchange { stream: TcpStream::connect(place)?, asked: false })
    }

    /// Asks and reads until the end, which is an answer; none if that is still to come.
    fn go_on(
        &mut self,
        how: Fresh,
        buffer: &mut [u8],
        mut came: impl FnMut(&[u8]),
    ) -> Option<io::Result<()>> {
        if !self.asked {
            match self.stream.write(REQUEST) {
                Ok(count) => self.asked = count == REQUEST.len(),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    return None
                }
                Err(error) => return Some(Err(error)),
            }
            if how.half_close {
                if let Err(error) = self.stream.shutdown(Shutdown::Write) {
                    return Some(Err(error));
                }
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Some(Ok(())),
                Ok(count) => came(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Client {
    fn go_on(&mut self, how: Fresh, way: &Way, buffer: &mut [u8]) -> Turn {
        match &mut self.step {
            Step::Address(socket) => match socket.recv(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Turn::Waits,
                told => {
                    let place = told.ok().and_then(|count| first_address(&buffer[..count], way));
                    place.map_or(Turn::Ends(false), Turn::GoesTo)
                }
            },
            Step::Location(exchange, head) => {
                match exchange.go_on(how, buffer, |bytes| head.extend_from_slice(bytes)) {
                    None => Turn::Waits,
                    Some(_) => location(head).map_or(Turn::Ends(false), Turn::GoesTo),
                }
            }
            Step::Answer(exchange, got) => {
                match exchange.go_on(how, buffer, |bytes| *got += bytes.len()) {
                    None => Turn::Waits,
                    Some(ended) => Turn::Ends(ended.is_ok() && *got == ANSWER),
                }
            }
        }
    }
}

/// Of an answer to [`QUESTION`]: its first record has a pointer to the name, then ten bytes,
/// then the address.
fn first_address(answer: &[u8], way: &Way) -> Option<SocketAddr> {
    let Way::Named(places) = way else { return None };
    let [0xc0, _, 0, 1, 0, 1, _, _, _, _, 0, 4, ip @ ..] = answer.get(QUESTION.len()..)? else {
        return None;
    };
    let ip = IpAddr::from(<[u8; 4]>::try_from(ip.get(..4)?).ok()?);
    places.iter().find(|place| place.ip() == ip).copied()
}

fn location(head: &[u8]) -> Option<SocketAddr> {
    let head = std::str::from_utf8(head).ok()?;
    let (_, rest) = head.split_once("Location: http://")?;
    rest.split('/').next()?.parse().ok()
}

/// The first step of a client. A name server bounds what one address is told in a second,
/// so that questions come from many addresses.
fn begin(door: SocketAddr, way: &Way, number: u32) -> io::Result<Step> {
    Ok(match way {
        Way::Straight => Step::Answer(Exchange::to(door)?, 0),
        Way::Redirected => Step::Location(Exchange::to(door)?, Vec::new()),
        Way::Named(_) => {
            let [_, _, third, last] = number.to_be_bytes();
            let source = Ipv4Addr::new(127, 1, third & 63, last);
            let socket = UdpSocket::bind((source, 0).into())?;
            socket.connect(door)?;
            socket.send(QUESTION)?;
            Step::Address(socket)
        }
    })
}

fn register(step: &mut Step, place: usize, poll: &Poll) -> io::Result<()> {
    let (registry, both) = (poll.registry(), Interest::READABLE | Interest::WRITABLE);
    match step {
        Step::Address(socket) => registry.register(socket, Token(place), Interest::READABLE),
        Step::Location(exchange, _) | Step::Answer(exchange, _) => {
            registry.register(&mut exchange.stream, Token(place), both)
        }
    }
}

/// Opens connections, to each address in turn.
pub fn run(doors: &[SocketAddr], way: &Way, how: Fresh, lasting: Duration) -> Sample {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let mut buffer = [0; 4096];
    let mut clients: Vec<Option<Client>> = (0..how.at_once).map(|_| None).collect();
    let mut free: Vec<usize> = (0..how.at_once).rev().collect();
    let mut started = 0u32;
    let mut sample = Sample::new();
    let begun = sample.begun;
    let end = sample.begun + lasting;
    loop {
        let due = |started: u32| {
            how.rate.map(|rate| begun + Duration::from_secs_f64(f64::from(started) / rate))
        };
        while let Some(place) = free.last().copied() {
            let now = Instant::now();
            let since = due(started).unwrap_or(now);
            if since > now || since >= end {
                break;
            }
            let door = doors[started as usize % doors.len()];
            started += 1;
            let begun = begin(door, way, started).and_then(|mut step| {
                register(&mut step, place, &poll)?;
                Ok(step)
            });
            match begun {
                Ok(step) => {
                    free.pop();
                    clients[place] = Some(Client { step, since });
                }
                Err(_) => sample.failed += 1,
            }
        }
        let now = Instant::now();
        if now >= end && (free.len() == how.at_once || now >= end + GRACE) {
            sample.failed += (how.at_once - free.len()) as u64;
            return sample;
        }
        let next = due(started).filter(|_| !free.is_empty()).unwrap_or(end).min(end);
        wait(&mut poll, &mut events, Some(if now < end { next } else { end + GRACE }));
        for event in &events {
            let Token(place) = event.token();
            let Some(client) = clients[place].as_mut() else { continue };
            let well = match client.go_on(how, way, &mut buffer) {
                Turn::Waits => continue,
                Turn::Ends(well) => well,
                Turn::GoesTo(provider) => {
                    let next = Exchange::to(provider).and_then(|exchange| {
                        client.step = Step::Answer(exchange, 0);
                        register(&mut client.step, place, &poll)
                    });
                    if next.is_ok() {
                        continue;
                    }
                    false
                }
            };
            if let Some(client) = clients[place].take() {
                free.push(place);
                match well {
                    true => sample.did(1, client.since),
                    false => sample.failed += 1,
                }
            }
        }
    }
}
