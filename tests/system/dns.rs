//! Real name servers: a flow for each query, over as soon as it is answered.

use crate::support::datagram::{client, hear, Flows};
use crate::support::process::Process;
use crate::support::{free_port, output, tool, until};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

/// A name server that knows one name, and its own number as the answer.
struct Dnsmasq {
    process: Process,
    address: SocketAddr,
}

impl Dnsmasq {
    fn start(number: u8) -> Dnsmasq {
        let port = free_port();
        let mut command = tool("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--group="]);
        command.arg(format!("--port={port}")).arg(format!("--address=/who.test/10.0.0.{number}"));
        let process = Process::start("dnsmasq", &mut command);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let asker = client(address);
        asker.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        until("dnsmasq answers", || lookup(&asker, 1).is_some());
        Dnsmasq { process, address }
    }
}

/// Asks for the address of `who.test`; the answer is its last number.
fn lookup(asker: &UdpSocket, id: u16) -> Option<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01");
    asker.send(&query).ok()?;
    let mut answer = [0; 512];
    let count = asker.recv(&mut answer).ok()?;
    (answer[..2] == id.to_be_bytes() && answer[7] == 1).then(|| answer[count - 1])
}

/// Threads that ask, each query from a port of its own; who answered how often.
fn crowd(place: SocketAddr, threads: u16, each: u16) -> HashMap<u8, usize> {
    let askers: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                let ask = |id| {
                    let asker = client(place);
                    asker.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                    // As every resolver does: the network may lose a datagram.
                    (0..5).find_map(|_| lookup(&asker, id)).expect("an answer")
                };
                (0..each).map(ask).collect::<Vec<u8>>()
            })
        })
        .collect();
    let mut counts = HashMap::new();
    for asker in askers {
        asker.join().unwrap().into_iter().for_each(|number| *counts.entry(number).or_default() += 1);
    }
    counts
}

#[test]
fn thousands_of_queries_and_a_server_that_dies() {
    let mut servers: Vec<Dnsmasq> = (1..=3).map(Dnsmasq::start).collect();
    let places: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let flows = Flows::before(&places, &["service_web_udp_replies=1"]);
    let (place, descriptors) = (flows.redirect.address, flows.descriptors());

    let counts = crowd(place, 8, 400);
    assert_eq!(counts.values().sum::<usize>(), 3200);
    assert!((1..=3).all(|number| counts.get(&number).is_some_and(|count| *count > 800)), "{counts:?}");
    flows.has_flows(0);
    until("every socket is closed", || flows.descriptors() == descriptors);

    let address = place.port().to_string();
    let dig = output(tool("dig").args(["@127.0.0.1", "-p", &address, "+short", "+tries=1", "who.test"]));
    assert!(dig.starts_with("10.0.0."), "{dig}");

    servers[1].process.kill();
    let counts = crowd(place, 4, 200);
    assert_eq!((counts.values().sum::<usize>(), counts.get(&2)), (800, None), "{counts:?}");
    assert_eq!(flows.log_with(&["failure service=web"]).len(), 1);
    flows.has_flows(0);
    until("every socket is closed", || flows.descriptors() == descriptors);
}

#[test]
fn two_questions_of_one_socket_have_two_answers() {
    let server = Dnsmasq::start(7);
    let flows = Flows::before(&[server.address], &["service_web_udp_replies=1"]);
    // As the C library asks for both families.
    let asker = flows.client();
    let query = |id: u8| {
        [&[0, id][..], b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01"].concat()
    };
    asker.send(&query(1)).unwrap();
    asker.send(&query(2)).unwrap();
    let mut ids = [hear(&asker)[1], hear(&asker)[1]];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    flows.has_flows(0);
}
