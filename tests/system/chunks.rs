//! Random bytes in random pieces, both ways at once, through sockets of random sizes,
//! with readers that pause and with random ends: all bytes arrive, in order.
//!
//! `PEGASUS_SEED` replays a run, `PEGASUS_CHUNKS` sets the number of connections.

use crate::support::pegasus::{command, Queue, Redirect};
use crate::support::random::Random;
use crate::support::socket::{connect_with, furnish, Room};
use crate::support::{free_ports, until, PATIENCE};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 300;
/// Connections at once; each worker has a service and a provider of its own.
const WORKERS: u16 = 32;
/// Sizes at which the relay decides something.
const BORDERS: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 80 << 10, 128 << 10, 1 << 20];

/// The bytes of all streams: each is a part of it, repeated.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| Random::new(1).bytes(1_000_003));

/// Returns at most `count` bytes of a stream, from a position on.
fn piece(start: usize, place: usize, count: usize) -> &'static [u8] {
    let from = (start + place) % BYTES.len();
    &BYTES[from..(from + count).min(BYTES.len())]
}

/// Sizes of a stream and its pieces.
fn size(random: &mut Random) -> usize {
    match random.below(64) {
        0..8 => 0,
        8..24 => random.below(300) as usize,
        24..44 => near(random, &BORDERS[..5]),
        44..63 => random.below(400_000) as usize,
        _ => near(random, &BORDERS[5..]) * (1 + random.below(2) as usize),
    }
}

fn near(random: &mut Random, borders: &[usize]) -> usize {
    borders[random.below(borders.len() as u64) as usize] + random.below(5) as usize - 2
}

/// The system is slow where a segment does not fit several times.
fn room(random: &mut Random) -> Room {
    let mut bytes = || [2048, 5000, 20_000, 50_000, 200_000, 1 << 20][random.below(6) as usize];
    let send = bytes();
    let receive = bytes();
    Room { send, receive, segment: [536, 1460, 32_000][random.below(3) as usize].min(receive / 8) }
}

/// One side of a connection.
struct Side {
    stream: TcpStream,
    /// The stream that it sends: its start and its length.
    sends: (usize, usize),
    sent: usize,
    /// The stream that it must receive.
    receives: (usize, usize),
    received: usize,
    /// It withholds this many bytes, and its end, until it saw the other's end.
    holds: Option<usize>,
    told: bool,
    ended: bool,
    /// The longest piece that it writes, and reads.
    pieces: [usize; 2],
    /// In how many of 64 turns it pauses before the next piece.
    pauses: u64,
    until: [Instant; 2],
}

impl Side {
    fn may_send(&self) -> bool {
        match self.holds {
            Some(kept) if !self.ended => self.sent + kept < self.sends.1,
            _ => !self.told,
        }
    }

    /// A pause of the writer, or of the reader, before its next piece.
    fn pause(&mut self, which: usize, random: &mut Random) {
        if random.below(64) < self.pauses {
            self.until[which] = Instant::now() + Duration::from_micros(random.below(3000));
        }
    }

    /// Moves a piece each way, if it can; returns whether it did.
    fn step(&mut self, random: &mut Random, buffer: &mut [u8]) -> Result<bool, String> {
        let now = Instant::now();
        let mut moved = false;
        if self.may_send() && self.until[0] <= now {
            let kept = self.holds.filter(|_| !self.ended).unwrap_or(0);
            let most = (1 + random.below(self.pieces[0] as u64) as usize)
                .min(self.sends.1 - kept - self.sent);
            if self.sent == self.sends.1 {
                self.stream.shutdown(Shutdown::Write).map_err(|error| format!("end: {error}"))?;
                (self.told, moved) = (true, true);
            } else {
                match self.stream.write(piece(self.sends.0, self.sent, most)) {
                    Ok(count) => (self.sent, moved) = (self.sent + count, true),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("write: {error}")),
                }
                self.pause(0, random);
            }
        }
        if !self.ended && self.until[1] <= now {
            let most = 1 + random.below(self.pieces[1] as u64) as usize;
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) if self.received == self.receives.1 => (self.ended, moved) = (true, true),
                Ok(0) => return Err("it ended too early".into()),
                Ok(count) => {
                    self.check(&buffer[..count])?;
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("read: {error}")),
            }
            self.pause(1, random);
        }
        Ok(moved)
    }

    /// Asserts that these are the next bytes.
    fn check(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        if self.received + bytes.len() > self.receives.1 {
            return Err("more than was sent".into());
        }
        while !bytes.is_empty() {
            let expected = piece(self.receives.0, self.received, bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                return Err(format!("wrong bytes after {}", self.received));
            }
            (self.received, bytes) = (self.received + now.len(), later);
        }
        Ok(())
    }

    fn over(&self) -> bool {
        self.told && self.ended
    }

    /// Returns what it waits for, and until when it pauses.
    fn waits(&self, now: Instant) -> (libc::pollfd, Option<Instant>) {
        let wants = [self.may_send(), !self.ended];
        let events = [libc::POLLOUT, libc::POLLIN];
        let ready = (0..2)
            .filter(|&which| wants[which] && self.until[which] <= now)
            .map(|which| events[which]);
        let poll = libc::pollfd { fd: self.stream.as_raw_fd(), events: ready.sum(), revents: 0 };
        let pauses = (0..2)
            .filter(|&which| wants[which] && self.until[which] > now)
            .map(|which| self.until[which]);
        (poll, pauses.min())
    }
}

/// Both sides of a connection, one behind the other at its ends.
fn exchange(sides: &mut [Side; 2], random: &mut Random, buffer: &mut [u8]) -> Result<(), String> {
    let mut last = Instant::now();
    while !sides.iter().all(Side::over) {
        let mut moved = false;
        for side in sides.iter_mut() {
            moved |= side.step(random, buffer)?;
        }
        let now = Instant::now();
        if moved {
            last = now;
            continue;
        }
        if now.duration_since(last) > PATIENCE {
            return Err("it does not go on".into());
        }
        let [one, other] = [&sides[0], &sides[1]].map(|side| side.waits(now));
        let pause = one.1.into_iter().chain(other.1).min();
        let wait = pause.map_or(1000, |until| until.duration_since(now).as_millis() as i32 + 1);
        let mut polls = [one.0, other.0];
        // SAFETY: two structures, as the count says; the descriptors are open. The result
        // does not matter: every socket is tried again.
        unsafe { libc::poll(polls.as_mut_ptr(), 2, wait) };
    }
    Ok(())
}

/// One connection, the same for the same seed.
fn connection(
    seed: u64,
    place: SocketAddrV4,
    listener: &TcpListener,
    buffer: &mut [u8],
) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let ours = room(random);
    let theirs = room(random);
    let starts = [(); 2].map(|()| random.below(BYTES.len() as u64) as usize);
    // The smallest windows pass some 50 KB a second.
    let most = 50 * ours.receive.min(theirs.receive) as usize;
    let sizes = [(); 2].map(|()| size(random).min(most));
    furnish(listener, theirs);
    let client = connect_with(place, ours);
    let (provider, _) = listener.accept().map_err(|error| format!("accept: {error}"))?;
    provider.set_nodelay(true).map_err(|error| error.to_string())?;
    // Neither waits for the other's end, or one of them does.
    let holds = match random.below(3) {
        0 => [None, None],
        1 => [Some(random.below(sizes[0] as u64 + 1) as usize), None],
        _ => [None, Some(random.below(sizes[1] as u64 + 1) as usize)],
    };
    let mut side = |stream: TcpStream, own: usize| {
        let now = Instant::now();
        // Small pieces only for short streams: long ones would take too long.
        let longest = |random: &mut Random, count: usize| match random.below(4) {
            0 if count < 1000 => 1 + random.below(8) as usize,
            0..2 => near(random, &BORDERS[..3]),
            _ => 1 + count / 200 + random.below(150_000) as usize,
        };
        let pieces = [longest(random, sizes[own]), longest(random, sizes[1 - own])];
        let sends = (starts[own], sizes[own]);
        let receives = (starts[1 - own], sizes[1 - own]);
        let pauses = [0, 4, 32][random.below(3) as usize];
        // A reader that starts late finds all buffers full.
        let late = Duration::from_millis([0, 0, 10, 30][random.below(4) as usize]);
        Side {
            stream,
            sends,
            sent: 0,
            receives,
            received: 0,
            holds: holds[own],
            told: false,
            ended: false,
            pieces,
            pauses,
            until: [now, now + late],
        }
    };
    let mut sides = [side(client, 0), side(provider, 1)];
    for side in &sides {
        side.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
    }
    exchange(&mut sides, random, buffer)
        .map_err(|what| format!("{what}\nclient: {}\nprovider: {}", sides[0], sides[1]))
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Side { sends, sent, receives, received, holds, told, ended, pieces, .. } = self;
        write!(
            f,
            "sent {sent} of {}, received {received} of {}, holds {holds:?}, told {told}, \
             ended {ended}, pieces {pieces:?}",
            sends.1, receives.1
        )
    }
}

fn all_arrive(splice: &str) {
    let count = std::env::var("PEGASUS_CHUNKS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(CONNECTIONS);
    let seed = Random::told().next();
    let queue = Queue::start(&[]);
    let ports = free_ports(WORKERS);
    let listeners: Vec<TcpListener> =
        ports.clone().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let mut settings = vec![splice.to_string(), format!("redirect_queue={}", queue.address)];
    for (listener, port) in listeners.iter().zip(ports.clone()) {
        let provider = listener.local_addr().unwrap();
        let service = format!("w{port}");
        let answer = queue.ask(&format!(
            "ticket?provider={provider}&service={service}&tickets=9&capacity=9&lease=10m"
        ));
        assert!(answer.starts_with("ok "), "{answer}");
        settings.push(format!("service_{service}_listen=127.0.0.1:{port}"));
    }
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let redirect = Redirect::of(&mut command("redirect", &settings));
    let pipes = redirect.open("pipe:");

    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (listener, port) in listeners.iter().zip(ports) {
            let next = &next;
            let place = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            scope.spawn(move || {
                let mut buffer = vec![0; 200_001];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    // Any numbers that are not neighbours of another run's.
                    let own = Random::new(seed ^ number).next();
                    connection(own, place, listener, &mut buffer)
                        .unwrap_or_else(|what| panic!("connection {number}: {what}"));
                }
            });
        }
    });
    let complete = || redirect.log_with(&["closed service=", "outcome=complete"]).len() as u64;
    until("all are complete", || complete() == count);
    assert_eq!(
        redirect.open("pipe:") > pipes,
        splice == "redirect_splice=auto",
        "the other data path was taken"
    );
    let active = || queue.status().providers().map(|row| row.number("active")).sum::<u64>();
    until("nothing in progress", || active() == 0);
}

#[test]
fn random_chunks_arrive_spliced() {
    all_arrive("redirect_splice=auto");
}

#[test]
fn random_chunks_arrive_copied() {
    all_arrive("redirect_splice=off");
}
