//! Every superserver, every order in which the two sides may end, both data paths.

use crate::support::datagram::{client, Sink};
use crate::support::pegasus::Queue;
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::superserver::{Kind, DATAGRAMS, STREAMS};
use crate::support::{until, PATIENCE};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Enough for both directions to be spliced.
const BYTES: usize = 600_000;

/// Which side ends first: the other one sends its bytes only when it has seen that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum First {
    Client,
    Provider,
    Both,
}

/// Plays one side; returns all bytes that it received.
fn play(stream: &mut TcpStream, word: &[u8], begins: bool, waits: bool) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut heard = Vec::new();
    let say = |mut stream: &TcpStream| {
        stream.write_all(word).and_then(|()| stream.shutdown(Shutdown::Write))
    };
    match (begins, waits) {
        (true, true) => {
            say(stream)?;
            stream.read_to_end(&mut heard)?;
        }
        (false, true) => {
            stream.read_to_end(&mut heard)?;
            say(stream)?;
        }
        (_, false) => {
            let writer = stream.try_clone()?;
            thread::scope(|scope| {
                let writing = scope.spawn(move || say(&writer));
                stream.read_to_end(&mut heard)?;
                writing.join().unwrap()
            })?;
        }
    }
    Ok(heard)
}

/// A provider that plays its side as set, and reports what it received.
struct Stage {
    first: Arc<Mutex<First>>,
    provider: Provider,
    request: Vec<u8>,
    answer: Vec<u8>,
    heard: Receiver<io::Result<Vec<u8>>>,
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let request = Random::new(seed).bytes(BYTES);
        let answer = Random::new(seed + 1).bytes(BYTES + 1);
        let (first, (tell, heard)) = (Arc::new(Mutex::new(First::Both)), channel());
        let part = first.clone();
        let tell = Mutex::new(tell);
        let word = answer.clone();
        let provider = Provider::start(move |mut stream| {
            let first = *part.lock().unwrap();
            let heard = play(&mut stream, &word, first == First::Provider, first != First::Both);
            let _ = tell.lock().unwrap().send(heard);
        });
        Stage { first, provider, request, answer, heard }
    }

    /// Plays one client.
    fn visit(&self, address: SocketAddr, first: First) -> Result<(), String> {
        *self.first.lock().unwrap() = first;
        let mut stream =
            TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        let heard = play(&mut stream, &self.request, first == First::Client, first != First::Both)
            .map_err(|error| format!("the client: {error}"))?;
        let reached = self
            .heard
            .recv_timeout(PATIENCE)
            .map_err(|_| "the provider had no client".to_string())?;
        let reached = reached.map_err(|error| format!("the provider: {error}"))?;
        let whole = |what, heard: &[u8], said: &[u8]| match heard == said {
            true => Ok(()),
            false => Err(format!("{what}: {} of {} bytes, or other ones", heard.len(), said.len())),
        };
        whole("answer", &heard, &self.answer)?;
        whole("request", &reached, &self.request)
    }
}

/// Tests one superserver with one data path; returns what went wrong.
fn row(kind: &Kind, splice: &str, seed: u64) -> Vec<String> {
    let queue = Queue::start(&[]);
    let stage = Stage::new(seed);
    queue.offer(stage.provider.address, 100);
    // Where nothing starts the next process, the only one must not end between two
    // clients.
    let linger = if kind.lends { "redirect_linger=200ms" } else { "redirect_linger=1h" };
    let Some(server) = kind.start(queue.address, &[splice, linger]) else { return Vec::new() };
    let before = server.flags();
    let mut wrong = Vec::new();
    let mut cell = |name: &str, first| {
        if let Err(why) = stage.visit(server.address, first) {
            wrong.push(format!("{}, {splice}, {name}: {why}\n{}", kind.name, server.log()));
        }
    };
    for first in [First::Client, First::Provider, First::Both] {
        cell(&format!("{first:?} first"), first);
    }
    if kind.lends {
        until(&format!("{} has its socket back as it was", kind.name), || server.flags() == before);
        until("the process left", || queue.status().queue().number("connections") == 1);
    }
    cell("the next process", First::Client);
    wrong
}

/// Runs a test for every kind at once; returns all failures.
#[track_caller]
fn table(rows: Vec<Box<dyn FnOnce() -> Vec<String> + Send>>) {
    let rows: Vec<_> = rows.into_iter().map(thread::spawn).collect();
    let wrong: Vec<String> = rows
        .into_iter()
        .flat_map(|row| row.join().expect("the row's own words are above"))
        .collect();
    assert!(wrong.is_empty(), "{} cells failed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn whoever_ends_first_both_hear_all_of_it_under_every_superserver() {
    let seed = Random::of_now().below(1 << 40);
    println!("seed {seed}");
    for kinds in STREAMS.chunks(10) {
        let rows = kinds.iter().flat_map(|kind| {
            ["redirect_splice=auto", "redirect_splice=off"].map(|splice| {
                Box::new(move || row(kind, splice, seed)) as Box<dyn FnOnce() -> Vec<String> + Send>
            })
        });
        table(rows.collect());
    }
}

#[test]
fn datagrams_of_every_length_under_every_superserver() {
    let rows = DATAGRAMS.iter().map(|kind| {
        Box::new(move || {
            let queue = Queue::start(&[]);
            let provider = Sink::echo();
            queue.offer(provider.address, 100);
            let settings = ["redirect_linger=700ms", "service_web_udp_replies=1"];
            let Some(server) = kind.start(queue.address, &settings) else { return Vec::new() };
            let before = server.flags();
            for round in 0..2 {
                // xinetd discards datagrams that arrive while a process ends.
                let knocking = client(server.address);
                knocking.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                until(&format!("{} serves", kind.name), || {
                    knocking.send(b"knock").is_ok() && knocking.recv(&mut [0; 5]).is_ok()
                });
                let clients = [client(server.address), client(server.address)];
                for length in [0, 1, 1472, 65_507] {
                    for (number, client) in clients.iter().enumerate() {
                        let bytes = Random::new(length as u64 + number as u64).bytes(length);
                        let mut heard = vec![0; 65_536];
                        let answer = client.send(&bytes).and_then(|_| client.recv(&mut heard));
                        if !answer.as_ref().is_ok_and(|count| heard[..*count] == bytes) {
                            let log = server.log();
                            return vec![format!(
                                "{}, round {round}, {length} bytes: {answer:?}\n{log}",
                                kind.name
                            )];
                        }
                    }
                }
                if kind.lends {
                    until(&format!("{} has its socket back as it was", kind.name), || {
                        server.flags() == before
                    });
                    until("the process left", || queue.status().queue().number("connections") == 1);
                }
            }
            Vec::new()
        }) as Box<dyn FnOnce() -> Vec<String> + Send>
    });
    table(rows.collect());
}
