//! Real name servers: each query is a flow, which ends with its reply.

use crate::support::datagram::{client, hear, Flows};
use crate::support::process::Process;
use crate::support::{free_port, output, tool, until};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

/// A name server that knows one name; the address in its replies is its own number.
struct Dnsmasq {
    process: Process,
    address: SocketAddr,
}

impl Dnsmasq {
    fn start(number: u8) -> Dnsmasq {
        let port = free_port();
        let mut command = tool("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--group="]);
        command.arg(format!("--port={port}")).arg(format!("--address=/who.test/10.0.0.{number}"));
        let process = Process::start("dnsmasq", &mut command);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let asker = client(address);
        asker.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        until("dnsmasq answers", || asker.send(&query(1)).is_ok() && answer(&asker, 1).is_some());
        Dnsmasq { process, address }
    }
}

/// Queries the address of `who.test`.
fn query(id: u16) -> Vec<u8> {
    [
        &id.to_be_bytes()[..],
        b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01",
    ]
    .concat()
}

/// Returns the last number of the address in the reply.
fn answer(socket: &UdpSocket, id: u16) -> Option<u8> {
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).ok()?;
    (answer[..2] == id.to_be_bytes() && answer[7] == 1).then(|| answer[count - 1])
}

/// Clients at once.
const THREADS: usize = 4;
/// Sockets of each, with one query in flight: fewer in all than a name server keeps while
/// it is busy.
const SOCKETS: usize = 24;

/// Sends `count` queries, none of which may be lost; returns how often each server
/// replied.
fn crowd(place: SocketAddr, queries: usize) -> HashMap<u8, usize> {
    let ask = move || {
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| client(place)).collect();
        let mut answers = Vec::new();
        for id in 0..queries.div_ceil(THREADS * SOCKETS) {
            let id = id as u16;
            sockets.iter().for_each(|socket| _ = socket.send(&query(id)).unwrap());
            answers.extend(sockets.iter().map(|socket| answer(socket, id).expect("an answer")));
        }
        answers
    };
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(ask)).collect();
    let mut counts = HashMap::new();
    for thread in threads {
        thread
            .join()
            .unwrap()
            .into_iter()
            .for_each(|number| *counts.entry(number).or_default() += 1);
    }
    counts
}

/// Three servers reply to `count` queries; two of them to as many again after one died.
fn queries(count: usize) {
    let mut servers: Vec<Dnsmasq> = (1..=3).map(Dnsmasq::start).collect();
    let places: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let flows = Flows::before(&places, &["service_web_udp_replies=1", "redirect_threads=2"]);
    let place = flows.redirect.address;
    let descriptors = flows.descriptors();

    let counts = crowd(place, count);
    assert!(counts.values().sum::<usize>() >= count);
    assert!(
        (1..=3).all(|number| counts.get(&number).is_some_and(|share| *share > count / 4)),
        "{counts:?}"
    );
    flows.has_flows(0);
    until("every socket is closed", || flows.descriptors() == descriptors);

    let address = place.port().to_string();
    let dig =
        output(tool("dig").args(["@127.0.0.1", "-p", &address, "+short", "+tries=1", "who.test"]));
    assert!(dig.starts_with("10.0.0."), "{dig}");

    servers[1].process.kill();
    let counts = crowd(place, count);
    assert!(counts.values().sum::<usize>() >= count && !counts.contains_key(&2), "{counts:?}");
    assert!(
        (1..=2).contains(&flows.log_with(&["failure service=web"]).len()),
        "each thread reports it once at most"
    );
    flows.has_flows(0);
    until("every socket is closed", || flows.descriptors() == descriptors);
}

#[test]
fn thousands_of_queries_and_a_server_that_dies() {
    queries(3000);
}

/// `cargo test --release --test main -- --ignored a_hundred_thousand_queries`
#[test]
#[ignore = "half a minute"]
fn a_hundred_thousand_queries() {
    queries(100_000);
}

#[test]
fn two_questions_of_one_socket_have_two_answers() {
    let server = Dnsmasq::start(7);
    let flows = Flows::before(&[server.address], &["service_web_udp_replies=1"]);
    // As the C library asks for both families.
    let asker = flows.client();
    asker.send(&query(1)).unwrap();
    asker.send(&query(2)).unwrap();
    let mut ids = [hear(&asker)[1], hear(&asker)[1]];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    flows.has_flows(0);
}
