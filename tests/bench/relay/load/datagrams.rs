//! Questions and answers in datagrams, a socket for each flow.

use super::Sample;
use crate::bench::exact::wait;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// An answer that takes longer is lost, and the next question is asked.
const LOST: Duration = Duration::from_millis(100);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Asks and waits for replies, in flows of datagrams.
pub fn run(doors: &[SocketAddr], flows: usize, question: &[u8], lasting: Duration) -> Sample {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let mut buffer = [0; 2048];
    let mut sample = Sample::new();
    let mut clients: Vec<(UdpSocket, Instant)> = (0..flows)
        .map(|place| {
            let mut socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            socket.connect(doors[place % doors.len()]).unwrap();
            poll.registry().register(&mut socket, Token(place), Interest::READABLE).unwrap();
            let _ = socket.send(question);
            (socket, Instant::now())
        })
        .collect();
    let end = sample.begun + lasting;
    let mut look = sample.begun + LOOK;
    while Instant::now() < end {
        wait(&mut poll, &mut events, Some(look.min(end)));
        for event in &events {
            let (socket, since) = &mut clients[event.token().0];
            while let Ok(count) = socket.recv(&mut buffer) {
                if count != question.len() {
                    sample.failed += 1;
                    continue;
                }
                sample.did(1, *since);
                *since = sample.ended;
                let _ = socket.send(question);
            }
        }
        let now = Instant::now();
        if now < look {
            continue;
        }
        look = now + LOOK;
        for (socket, since) in
            clients.iter_mut().filter(|(_, since)| now.saturating_duration_since(*since) > LOST)
        {
            sample.failed += 1;
            *since = now;
            let _ = socket.send(question);
        }
    }
    sample
}
