//! Questions and answers on connections that stay.

use super::{Sample, GRACE};
use crate::bench::exact::wait;
use crate::support::PATIENCE;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// When a question is answered.
#[derive(Clone, Copy)]
pub enum Answered {
    /// So many bytes came.
    Bytes(usize),
    /// So many lines came; each counts.
    Lines(usize),
}

/// What is said.
pub struct Talk<'a> {
    pub question: &'a [u8],
    pub answered: Answered,
    /// No more than so many are asked for.
    pub most: u64,
}

/// So many connections; each has seen that its provider echoes a byte.
pub fn open_echoing(doors: &[SocketAddr], count: usize) -> io::Result<Vec<std::net::TcpStream>> {
    /// Fewer than the shortest backlog.
    const AT_ONCE: usize = 64;
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let first = streams.len();
        for number in first..count.min(first + AT_ONCE) {
            let mut stream = std::net::TcpStream::connect(doors[number % doors.len()])?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"?")?;
            streams.push(stream);
        }
        for stream in &mut streams[first..] {
            stream.read_exact(&mut [0])?;
        }
    }
    Ok(streams)
}

struct Client {
    stream: TcpStream,
    since: Instant,
    /// What came of the answer.
    got: usize,
    /// It has asked, and nothing went wrong.
    waits: bool,
}

impl Client {
    fn ask(&mut self, question: &[u8]) -> bool {
        self.since = Instant::now();
        self.waits = self.stream.write(question).is_ok_and(|count| count == question.len());
        self.waits
    }
}

/// Asks and waits for replies, on connections that stay open.
pub fn run(streams: Vec<std::net::TcpStream>, talk: &Talk, lasting: Duration) -> Sample {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 64 * 1024];
    let mut clients = Vec::with_capacity(streams.len());
    for (place, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(place), Interest::READABLE).unwrap();
        clients.push(Client { stream, since: Instant::now(), got: 0, waits: false });
    }
    let (whole, items) = match talk.answered {
        Answered::Bytes(count) => (count, 1),
        Answered::Lines(count) => (count, count as u64),
    };
    let mut sample = Sample::new();
    let end = sample.begun + lasting;
    for client in &mut clients {
        sample.failed += u64::from(!client.ask(talk.question));
    }
    let mut waiting = clients.iter().filter(|client| client.waits).count();
    while waiting > 0 && Instant::now() < end + GRACE {
        wait(&mut poll, &mut events, Some(end + GRACE));
        for event in &events {
            let client = &mut clients[event.token().0];
            loop {
                let count = match client.stream.read(&mut buffer) {
                    Ok(count @ 1..) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    _ => {
                        waiting -= usize::from(std::mem::take(&mut client.waits));
                        sample.failed += 1;
                        break;
                    }
                };
                client.got += match talk.answered {
                    Answered::Bytes(_) => count,
                    Answered::Lines(_) => {
                        buffer[..count].iter().filter(|byte| **byte == b'\n').count()
                    }
                };
                // What the queue says instead of an answer.
                sample.failed += u64::from(buffer[..count].starts_with(b"error"));
                if client.waits && client.got >= whole {
                    client.got -= whole;
                    sample.did(items, client.since);
                    let more = Instant::now() < end && sample.done < talk.most;
                    if !more || !client.ask(talk.question) {
                        sample.failed += u64::from(more);
                        client.waits = false;
                        waiting -= 1;
                    }
                }
            }
        }
    }
    sample.failed += waiting as u64;
    sample
}
