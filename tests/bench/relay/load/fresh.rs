//! A fresh connection for each request.

use super::super::providers::ANSWER;
use super::{Sample, GRACE};
use crate::bench::exact::wait;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
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

struct Client {
    stream: TcpStream,
    /// When it was due.
    since: Instant,
    asked: bool,
    got: usize,
}

impl Client {
    /// Whether it got its answer, once that is decided.
    fn go_on(&mut self, how: Fresh, buffer: &mut [u8]) -> Option<bool> {
        if !self.asked {
            match self.stream.write(REQUEST) {
                Ok(count) => self.asked = count == REQUEST.len(),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    return None
                }
                Err(_) => return Some(false),
            }
            if how.half_close && self.stream.shutdown(Shutdown::Write).is_err() {
                return Some(false);
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Some(self.got == ANSWER),
                Ok(count) => self.got += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(false),
            }
        }
    }
}

fn connect(door: SocketAddr, place: usize, poll: &Poll) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(door)?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(place), interest)?;
    Ok(stream)
}

/// Opens connections, to each address in turn.
pub fn run(doors: &[SocketAddr], how: Fresh, lasting: Duration) -> Sample {
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
            match connect(door, place, &poll) {
                Ok(stream) => {
                    free.pop();
                    clients[place] = Some(Client { stream, since, asked: false, got: 0 });
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
            let Some(well) =
                clients[place].as_mut().and_then(|client| client.go_on(how, &mut buffer))
            else {
                continue;
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
