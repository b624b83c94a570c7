//! Downloads, one after the other in each stream.

use super::super::providers::DOWNLOAD;
use super::Sample;
use crate::bench::exact::wait;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What is taken at once.
const PIECE: usize = 1 << 20;

struct Client {
    stream: TcpStream,
    asked: bool,
    got: u64,
}

impl Client {
    fn call(poll: &Poll, place: usize, door: SocketAddr) -> io::Result<Client> {
        let mut stream = TcpStream::connect(door)?;
        poll.registry().register(
            &mut stream,
            Token(place),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Client { stream, asked: false, got: 0 })
    }

    /// Takes what has come, without looking at it.
    fn take(&mut self) -> io::Result<u64> {
        if !self.asked {
            self.asked = self.stream.write(b"?")? == 1;
        }
        // SAFETY: with this flag TCP counts the bytes and puts them nowhere.
        let count = unsafe {
            libc::recv(self.stream.as_raw_fd(), std::ptr::null_mut(), PIECE, libc::MSG_TRUNC)
        };
        u64::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Downloads in each stream, one after the other; bytes are counted.
pub fn run(doors: &[SocketAddr], streams: usize, lasting: Duration) -> Sample {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(64);
    let mut calls = 0;
    let mut call = |poll: &Poll, place| {
        calls += 1;
        Client::call(poll, place, doors[calls % doors.len()])
    };
    let mut clients: Vec<Option<Client>> =
        (0..streams).map(|place| call(&poll, place).ok()).collect();
    let mut sample = Sample::new();
    let end = sample.begun + lasting;
    sample.failed += clients.iter().filter(|client| client.is_none()).count() as u64;
    while Instant::now() < end && clients.iter().any(Option::is_some) {
        wait(&mut poll, &mut events, Some(end));
        for event in &events {
            let Token(place) = event.token();
            while let Some(client) = &mut clients[place] {
                match client.take() {
                    Ok(count @ 1..) => {
                        client.got += count;
                        sample.done += count;
                        sample.ended = Instant::now();
                        if sample.ended >= end {
                            return sample;
                        }
                        continue;
                    }
                    Ok(_) => sample.failed += u64::from(client.got != DOWNLOAD),
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::NotConnected
                        ) =>
                    {
                        break
                    }
                    Err(_) => sample.failed += 1,
                }
                clients[place] = call(&poll, place).ok();
                break;
            }
        }
    }
    sample
}
