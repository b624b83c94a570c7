//! Connections that are reset, at every stage and from both sides: the other side sees a
//! reset, and nothing is left behind.

use crate::support::pegasus::Balancer;
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, drain, reset, Deaf, End};
use crate::support::{until, PATIENCE};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const PATHS: [&str; 2] = ["redirect_splice=auto", "redirect_splice=off"];
/// Clients that do the same, one after the other.
const TIMES: usize = 5;
const MUCH: usize = 2 << 20;

/// Waits for the other side to reset, without a call that a clean end answers.
#[track_caller]
fn is_broken_off(stream: &mut TcpStream) {
    until("the other side has broken off", || stream.take_error().unwrap().is_some());
}

#[track_caller]
fn drain_to_the_reset(stream: &mut TcpStream) {
    assert_eq!(drain(stream).1, End::Reset);
}

#[track_caller]
fn pour_to_the_end(stream: &mut TcpStream) {
    let error = loop {
        if let Err(error) = stream.write(&[b'x'; 16 * 1024]) {
            break error.kind();
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

fn read_much(stream: &mut TcpStream) {
    stream.read_exact(&mut vec![0; MUCH]).unwrap();
}

fn pour_much(stream: &mut TcpStream) {
    stream.write_all(&vec![b'y'; MUCH]).unwrap();
}

/// Closes its side, and waits until the other side has seen that.
fn end(stream: &mut TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
}

fn hear_the_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    stream.write_all(b"c").unwrap();
}

type Act = fn(&mut TcpStream);

/// What one side does before it resets, and the other to find out.
const SCENES: [(&str, Act, Act); 6] = [
    ("while nothing is under way", |_| {}, drain_to_the_reset),
    ("while the other does nothing", |_| {}, is_broken_off),
    ("while it sends", pour_much, drain_to_the_reset),
    ("while it receives", read_much, pour_to_the_end),
    ("after its end", end, |stream| {
        hear_the_end(stream);
        is_broken_off(stream);
    }),
    (
        "while it receives, after its end",
        |stream| {
            end(stream);
            read_much(stream);
        },
        |stream| {
            hear_the_end(stream);
            pour_to_the_end(stream);
        },
    ),
];

/// A provider that reports each client that it served to a clean end.
fn provider_who(act: impl Fn(TcpStream) + Send + Sync + 'static) -> (Provider, Receiver<()>) {
    let (sender, done) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |stream| {
        act(stream);
        let _ = sender.lock().map(|sender| sender.send(()));
    });
    (provider, done)
}

/// A balancer with one thread, and its sockets while it has no client.
fn balancer(providers: &[SocketAddr], settings: &[&str]) -> (Balancer, usize) {
    let settings: Vec<&str> = settings.iter().copied().chain(["redirect_threads=1"]).collect();
    let balancer = Balancer::before(providers, &settings);
    until("it is connected to the queue", || {
        balancer.queue.status().queue().number("connections") >= 2
    });
    let sockets = balancer.redirect.open("socket:");
    (balancer, sockets)
}

/// No socket is left, and no request is in progress.
#[track_caller]
fn nothing_is_left(balancer: &Balancer, sockets: usize) {
    balancer.settles();
    until("all sockets are closed", || balancer.redirect.open("socket:") == sockets);
}

/// Both know that they are connected, and then one of them resets.
fn play(client_breaks: bool) {
    for ((scene, breaks, hears), path) in
        SCENES.into_iter().flat_map(|scene| PATHS.map(|path| (scene, path)))
    {
        let (provider, done) = provider_who(move |mut stream| {
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(b"b").unwrap();
            if client_breaks {
                return hears(&mut stream);
            }
            breaks(&mut stream);
            reset(stream);
        });
        let (balancer, sockets) = balancer(&[provider.address], &[path]);
        for _ in 0..TIMES {
            let mut client = connect(balancer.address());
            client.write_all(b"a").unwrap();
            client.read_exact(&mut [0; 1]).unwrap();
            if client_breaks {
                breaks(&mut client);
                reset(client);
            } else {
                hears(&mut client);
            }
            done.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{scene}, {path}"));
        }
        nothing_is_left(&balancer, sockets);
        let outcome = if client_breaks { "outcome=client-reset" } else { "outcome=provider-reset" };
        until(&format!("all break off {scene}, {path}"), || {
            balancer.redirect.log_with(&[outcome]).len() == TIMES
        });
    }
}

#[test]
fn a_client_that_breaks_off_resets_its_provider() {
    play(true);
}

#[test]
fn a_provider_that_breaks_off_resets_its_client() {
    play(false);
}

/// Clients, some of which have sent something, and some of which have closed their side.
fn clients(address: SocketAddr) -> Vec<TcpStream> {
    let client = |number| {
        let mut client = connect(address);
        if number % 2 == 0 {
            client.write_all(b"hello").unwrap();
        }
        if number % 3 == 0 {
            client.shutdown(Shutdown::Write).unwrap();
        }
        client
    };
    (0..12).map(client).collect()
}

#[test]
fn clients_that_wait_for_a_ticket_may_break_off() {
    let (balancer, sockets) = balancer(&[], &["redirect_wait=10m"]);
    let clients = clients(balancer.address());
    until("all wait", || balancer.queue.status().queue().number("waiting") == clients.len() as u64);
    clients.into_iter().for_each(reset);
    nothing_is_left(&balancer, sockets);
}

#[test]
fn clients_whose_provider_is_called_may_break_off() {
    let deaf = Deaf::start();
    let (balancer, sockets) = balancer(&[deaf.address], &["redirect_connect_timeout=10m"]);
    let clients = clients(balancer.address());
    until("all call", || balancer.queue.status().active(deaf.address) == clients.len() as u64);
    clients.into_iter().for_each(reset);
    nothing_is_left(&balancer, sockets);
    until("all are known to be gone", || {
        balancer.redirect.log_with(&["outcome=gave-up"]).len() == 12
    });
    assert_eq!(
        balancer.queue.status().provider(deaf.address).map_or(1, |row| row.number("failures")),
        0
    );
}

#[test]
fn a_provider_that_ended_and_then_breaks_off_is_not_replaced() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let (rude, done) = provider_who(move |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = gone.lock().map(|gone| gone.recv());
        reset(stream);
    });
    let other = Provider::named("other");
    let (mut balancer, sockets) = balancer(&[rude.address, other.address], &[]);
    let mut client = connect(balancer.address());
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    go.send(()).unwrap();
    done.recv_timeout(PATIENCE).unwrap();
    is_broken_off(&mut client);
    balancer.redirect.closed(&["outcome=provider-reset"]);
    nothing_is_left(&balancer, sockets);
    assert_eq!(other.clients(), 0, "the client has heard an end already");
}

/// Does a few things in random order, and then resets, or not.
fn behave(mut stream: TcpStream, random: &mut Random) {
    let mut buffer = vec![0; 100_000];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(5)));
    for _ in 0..random.below(6) {
        let count = 1 + random.below(buffer.len() as u64) as usize;
        match random.below(6) {
            0 | 1 => drop(stream.write(&buffer[..count])),
            2 | 3 => drop(stream.read(&mut buffer[..count])),
            4 => thread::sleep(Duration::from_micros(random.below(2000))),
            _ => drop(stream.shutdown(Shutdown::Write)),
        }
    }
    if random.below(4) > 0 {
        reset(stream);
    }
}

#[test]
fn whoever_breaks_off_whenever_leaves_nothing_behind() {
    const CLIENTS: u64 = 400;
    let seed = Random::told().next();
    for path in PATHS {
        let number = AtomicU64::new(0);
        let provider = Provider::start(move |stream| {
            behave(
                stream,
                &mut Random::new(seed ^ (CLIENTS + number.fetch_add(1, Ordering::Relaxed))),
            );
        });
        let (balancer, sockets) =
            balancer(&[provider.address], &[path, "redirect_idle_timeout=2s"]);
        let address = balancer.address();
        thread::scope(|scope| {
            for worker in 0..8 {
                scope.spawn(move || {
                    for number in (worker..CLIENTS).step_by(8) {
                        behave(connect(address), &mut Random::new(seed ^ number));
                    }
                });
            }
        });
        // A client whose provider reset before a byte tries others, of which there are
        // none.
        balancer.queue.offer(provider.address, 1000);
        nothing_is_left(&balancer, sockets);
        // Empty pipes are kept for later; as many as were ever in use.
        assert!(
            balancer.redirect.open("pipe:") < 2 * 2 * 20,
            "{}",
            balancer.redirect.open("pipe:")
        );
    }
}
