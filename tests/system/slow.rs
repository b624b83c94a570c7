//! Clients and providers that are slow or stopped: they cost the redirector little, and
//! the others nothing.

use crate::support::nginx::Nginx;
use crate::support::pegasus::Balancer;
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, connect_with, drain, furnish, End, Room};
use crate::support::{until, Directory};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const PATHS: [&str; 2] = ["redirect_splice=auto", "redirect_splice=off"];

/// The system gives a little more.
const LEAST: Room = Room { send: 1, receive: 1, segment: 88 };

/// Sends all its bytes and reads to the end at the same time, byte by byte.
fn exchange_bytes(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            bytes.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut one = [0];
        let mut stream = stream;
        std::iter::from_fn(|| (stream.read(&mut one).unwrap() == 1).then(|| one[0])).collect()
    })
}

#[test]
fn byte_by_byte_through_the_smallest_windows() {
    const COUNT: usize = 20_000;
    let mut random = Random::told();
    for path in PATHS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        furnish(&listener, LEAST);
        let mut balancer = Balancer::before(&[listener.local_addr().unwrap()], &[path]);
        let SocketAddr::V4(place) = balancer.address() else { panic!("not IPv4") };
        let up = random.bytes(COUNT);
        let down = random.bytes(COUNT);
        let heard = thread::scope(|scope| {
            let provider = scope.spawn(|| exchange_bytes(&listener.accept().unwrap().0, &down));
            let client = exchange_bytes(&connect_with(place, LEAST), &up);
            (provider.join().unwrap(), client)
        });
        assert!(heard == (up, down), "{} and {} bytes, {path}", heard.0.len(), heard.1.len());
        balancer.redirect.closed(&["outcome=complete"]);
        balancer.settles();
    }
}

/// Sends much to a client that asks for "much", and echoes to the others.
fn well() -> Provider {
    Provider::start(|mut stream| {
        let mut buffer = [0; 4];
        while stream.read_exact(&mut buffer).is_ok() {
            if &buffer == b"much" {
                while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
            }
            let _ = stream.write_all(&buffer);
        }
    })
}

#[test]
fn who_never_reads_an_endless_answer_stops_only_himself() {
    for path in PATHS {
        let provider = well();
        let balancer = Balancer::before(&[provider.address], &[path]);
        let before = balancer.redirect.memory();
        let ask = |word: &[u8]| {
            let mut client = connect(balancer.address());
            client.write_all(word).unwrap();
            client
        };
        let mut deaf: Vec<TcpStream> = (0..50).map(|_| ask(b"much")).collect();
        until("all is full", || {
            let before = balancer.redirect.used();
            thread::sleep(Duration::from_millis(200));
            provider.clients() == deaf.len() && balancer.redirect.used() == before
        });
        let grown = balancer.redirect.memory().saturating_sub(before);
        assert!(grown < 16 * 1024, "{grown} KiB for {} clients, {path}", deaf.len());
        balancer.redirect.idles();
        let mut other = ask(b"ping");
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut other), (b"ping".to_vec(), End::Fin));
        // The stream continues where it stopped.
        deaf[0].read_exact(&mut vec![0; 16 << 20]).unwrap();
        drop(deaf);
        balancer.settles();
    }
}

#[test]
fn two_hundred_who_say_nothing_and_one_who_is_stuck_use_no_processor() {
    let provider = well();
    let balancer = Balancer::before(&[provider.address], &[]);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(balancer.address())).collect();
    for client in &mut clients {
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    balancer.redirect.idles();
    clients[0].write_all(b"much").unwrap();
    clients[0].read_exact(&mut [0; 1 << 10]).unwrap();
    until("all is full", || {
        let before = balancer.redirect.used();
        thread::sleep(Duration::from_millis(200));
        balancer.redirect.used() == before
    });
    balancer.redirect.idles();
}

/// A stopped web server: the system accepts its clients, as long as they fit, and none
/// gets a reply.
fn stopped(backlog: u32) -> Nginx {
    let nginx =
        Nginx::serving("stopped", Directory::new(), &format!("backlog={backlog}"), "return 204;");
    nginx.process().unwrap().signal(libc::SIGSTOP);
    nginx
}

#[test]
fn a_provider_that_stands_still_keeps_its_client_until_the_idle_timeout() {
    let provider = stopped(100);
    let mut balancer = Balancer::before(&[provider.address], &["redirect_idle_timeout=500ms"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(balancer.address())).collect();
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    }
    for mut client in clients {
        assert_eq!(drain(&mut client).0, b"");
    }
    balancer.redirect.closed(&["outcome=idle", "sent=0 ", "received=18 "]);
    balancer.settles();
}

#[test]
fn a_provider_that_stands_still_and_is_full_is_replaced() {
    let full = stopped(1);
    let alive = Provider::named("alive");
    let settings = ["redirect_connect_timeout=300ms", "redirect_idle_timeout=10m"];
    let mut balancer = Balancer::before(&[full.address, alive.address], &settings);
    // The first ones are accepted, and wait; the others go elsewhere.
    let _clients: Vec<TcpStream> = (0..8).map(|_| connect(balancer.address())).collect();
    balancer.redirect.says(&[
        "failure service=web",
        &format!("provider={}", full.address),
        "why=timed-out",
    ]);
    until("some are served by the other", || alive.clients() > 0);
    assert_eq!(drain(&mut connect(balancer.address())).0, b"alive");
}
