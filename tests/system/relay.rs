//! Bytes through the redirector: all arrive, in order, both ways, and the ends too.

use crate::support::pegasus::Balancer;
use crate::support::process::run;
use crate::support::provider::Provider;
use crate::support::random::Stream;
use crate::support::socket::{connect, drain, reset, End};
use crate::support::tool;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::sync::Mutex;
use std::thread;

/// In each direction.
const MUCH: u64 = if cfg!(debug_assertions) { 256 << 20 } else { 1 << 30 };
const PIECE: usize = 256 * 1024;

fn pour(mut stream: &TcpStream, seed: u64, count: u64) {
    let mut bytes = Stream::new(seed);
    let mut left = count;
    while left > 0 {
        let piece = bytes.next(PIECE.min(left as usize));
        stream.write_all(piece).unwrap();
        left -= piece.len() as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end; returns the number of bytes, all of which must be right.
fn check(mut stream: &TcpStream, seed: u64) -> u64 {
    let mut expected = Stream::new(seed);
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return count,
            read => {
                assert!(
                    expected.continues(&buffer[..read]),
                    "wrong within {read} bytes after {count}"
                );
                count += read as u64;
            }
        }
    }
}

/// Writes one way and checks the other, at the same time.
pub fn exchange(stream: &TcpStream, pours: u64, checks: u64, count: u64) -> u64 {
    thread::scope(|scope| {
        scope.spawn(|| pour(stream, pours, count));
        check(stream, checks)
    })
}

/// A provider that exchanges this many bytes with each client, and reports how many
/// arrived.
fn exchanger(count: u64) -> (Provider, mpsc::Receiver<u64>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |stream| {
        let came = exchange(&stream, 2, 1, count);
        sender.lock().unwrap().send(came).unwrap();
    });
    (provider, receiver)
}

fn much_both_ways_at_once(settings: &[&str]) {
    let (provider, came) = exchanger(MUCH);
    let mut balancer = Balancer::before(&[provider.address], settings);
    let client = connect(balancer.address());
    assert_eq!(exchange(&client, 1, 2, MUCH), MUCH);
    assert_eq!(came.recv().unwrap(), MUCH);
    balancer.redirect.closed(&[
        "outcome=complete",
        &format!("sent={MUCH} "),
        &format!("received={MUCH} "),
    ]);
    assert!(balancer.redirect.memory() < 64 * 1024, "{} KiB", balancer.redirect.memory());
}

#[test]
fn much_both_ways_at_once_arrives_as_it_was_sent() {
    much_both_ways_at_once(&[]);
}

#[test]
fn much_both_ways_at_once_without_splice() {
    much_both_ways_at_once(&["redirect_splice=off"]);
}

#[test]
fn fifty_clients_at_once_each_get_their_own_bytes() {
    const EACH: u64 = 1 << 20;
    let (provider, came) = exchanger(EACH);
    let balancer = Balancer::before(&[provider.address], &[]);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(exchange(&connect(balancer.address()), 1, 2, EACH), EACH));
        }
    });
    assert!(came.iter().take(50).all(|count| count == EACH));
    balancer.settles();
}

#[test]
fn a_reader_that_starts_late_loses_nothing_and_fills_nothing() {
    const COUNT: u64 = 64 << 20;
    let (provider, came) = exchanger(COUNT);
    let balancer = Balancer::before(&[provider.address], &[]);
    let client = connect(balancer.address());
    // The provider writes to a client that does not read yet.
    pour(&client, 1, COUNT);
    assert!(balancer.redirect.memory() < 64 * 1024, "{} KiB", balancer.redirect.memory());
    assert_eq!(check(&client, 2), COUNT);
    assert_eq!(came.recv().unwrap(), COUNT);
}

/// Replies when the client has closed its side, and not before.
fn counter() -> Provider {
    Provider::start(|mut stream| {
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_ok() {
            let _ = stream.write_all(format!("{} bytes\n", bytes.len()).as_bytes());
        }
    })
}

#[test]
fn a_client_that_ends_first_gets_its_whole_answer() {
    let provider = counter();
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    client.write_all(&vec![b'x'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"100000 bytes\n".to_vec(), End::Fin));
    balancer.redirect.closed(&["outcome=complete", "sent=13 ", "received=100000 "]);
    balancer.settles();
}

#[test]
fn netcat_gets_its_whole_answer() {
    let provider = counter();
    let balancer = Balancer::before(&[provider.address], &[]);
    let mut nc = tool("nc");
    nc.args(["-N", "127.0.0.1", &balancer.address().port().to_string()]);
    assert_eq!(run(&mut nc, b"x"), (0, "1 bytes\n".into(), String::new()));
}

#[test]
fn a_client_that_ends_at_once_is_served_all_the_same() {
    let provider = counter();
    let balancer = Balancer::before(&[provider.address], &[]);
    for _ in 0..50 {
        let mut client = connect(balancer.address());
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (b"0 bytes\n".to_vec(), End::Fin));
    }
    balancer.settles();
}

#[test]
fn a_provider_that_ends_first_still_gets_what_the_client_says() {
    let (sender, heard) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |mut stream| {
        stream.write_all(b"all I have to say").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        sender.lock().unwrap().send(bytes).unwrap();
    });
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    assert_eq!(drain(&mut client), (b"all I have to say".to_vec(), End::Fin));
    client.write_all(b"later ").unwrap();
    client.write_all(&vec![b'y'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv().unwrap().len(), 100_006);
    balancer.redirect.closed(&["outcome=complete"]);
}

#[test]
fn a_server_may_speak_first() {
    let provider = Provider::start(|mut stream| {
        stream.write_all(b"220 who are you?\n").unwrap();
        let mut name = [0; 4];
        stream.read_exact(&mut name).unwrap();
        stream.write_all(b"250 hello ").unwrap();
        stream.write_all(&name).unwrap();
    });
    let balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    let mut greeting = [0; 17];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 who are you?\n");
    client.write_all(b"bob\n").unwrap();
    assert_eq!(drain(&mut client), (b"250 hello bob\n".to_vec(), End::Fin));
}

#[test]
fn a_reset_of_the_client_becomes_one_to_the_provider() {
    let (sender, ends) = mpsc::channel();
    let sender = Mutex::new(sender);
    let provider = Provider::start(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        let (_, end) = drain(&mut stream);
        sender.lock().unwrap().send(end).unwrap();
    });
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    client.read_exact(&mut [0; 5]).unwrap();
    reset(client);
    assert_eq!(ends.recv().unwrap(), End::Reset);
    balancer.redirect.closed(&["outcome=client-reset"]);
    balancer.settles();
}

#[test]
fn a_reset_of_the_provider_becomes_one_to_the_client() {
    let provider = Provider::start(|mut stream| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"first").unwrap();
        // The client has it, and reports that, before it resets.
        stream.read_exact(&mut [0; 4]).unwrap();
        reset(stream);
    });
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    client.write_all(b"more").unwrap();
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    balancer.redirect.closed(&["outcome=provider-reset"]);
    balancer.settles();
}

/// Many bytes, all right as far as they arrived, and a reset instead of an end.
#[track_caller]
fn breaks_off(stream: &mut TcpStream) {
    let (bytes, end) = drain(stream);
    assert!(Stream::new(2).continues(&bytes), "wrong within {} bytes", bytes.len());
    assert_eq!(end, End::Reset, "after {} bytes: it must not look complete", bytes.len());
}

#[test]
fn a_long_answer_that_breaks_off_does_not_look_complete() {
    const BEFORE: usize = 8 << 20;
    for splice in ["redirect_splice=auto", "redirect_splice=off"] {
        let provider = Provider::start(|mut stream| {
            let mut bytes = Stream::new(2);
            for _ in 0..BEFORE / 4096 {
                stream.write_all(bytes.next(4096)).unwrap();
            }
            reset(stream);
        });
        let mut balancer = Balancer::before(&[provider.address], &[splice]);
        breaks_off(&mut connect(balancer.address()));
        balancer.redirect.closed(&["outcome=provider-reset"]);
        balancer.settles();
    }
}

#[test]
fn a_long_request_that_breaks_off_does_not_look_complete() {
    for splice in ["redirect_splice=auto", "redirect_splice=off"] {
        let (sender, done) = mpsc::channel();
        let sender = Mutex::new(sender);
        let provider = Provider::start(move |mut stream| {
            breaks_off(&mut stream);
            sender.lock().unwrap().send(()).unwrap();
        });
        let mut balancer = Balancer::before(&[provider.address], &[splice]);
        let mut client = connect(balancer.address());
        let mut bytes = Stream::new(2);
        for _ in 0..2000 {
            client.write_all(bytes.next(4096)).unwrap();
        }
        reset(client);
        done.recv().expect("the provider saw a reset");
        balancer.redirect.closed(&["outcome=client-reset"]);
        balancer.settles();
    }
}

#[test]
fn what_came_before_a_reset_reaches_the_client() {
    // The provider replies without reading all of a request, and closes: the system then
    // resets the connection.
    let provider = Provider::start(|mut stream| {
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.write_all(b"413 too much\n").unwrap();
    });
    let balancer = Balancer::before(&[provider.address], &[]);
    let mut client = connect(balancer.address());
    client.write_all(&[b'x'; 20_000]).unwrap();
    let (answer, _) = drain(&mut client);
    assert_eq!(answer, b"413 too much\n");
    balancer.settles();
}

#[test]
fn who_connects_and_leaves_leaves_nothing_behind() {
    let provider = Provider::echo();
    let balancer = Balancer::before(&[provider.address], &[]);
    let before = balancer.redirect.descriptors();
    for number in 0..200 {
        let client = connect(balancer.address());
        if number % 2 == 0 {
            reset(client);
        }
    }
    balancer.settles();
    crate::support::until("all descriptors are closed", || {
        balancer.redirect.descriptors() <= before + 2
    });
}
