//! UDP: flows to providers, and the replies.

use crate::support::control_connection::Row;
use crate::support::datagram::{ask, client, hear, Flows, Sink};
use crate::support::inetd::Inetd;
use crate::support::pegasus::{closed_address, command, path, Queue, Redirect};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::{tool, until};
use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

#[test]
fn a_flow_keeps_its_provider_and_each_client_has_its_own() {
    let providers = [Sink::named("a"), Sink::named("b"), Sink::named("c")];
    let mut flows =
        Flows::before(&providers.each_ref().map(|sink| sink.address), &["service_web_udp_idle=1s"]);
    let clients: Vec<UdpSocket> = (0..6).map(|_| flows.client()).collect();
    let first: Vec<Vec<u8>> = clients.iter().map(|client| ask(client, b"?")).collect();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 3, "all are used: {first:?}");
    for _ in 0..10 {
        for (client, first) in clients.iter().zip(&first) {
            assert_eq!(&ask(client, b"again"), first);
        }
    }
    flows.has_flows(6);
    let line = flows.redirect.closed(&["INFO", "outcome=idle"]);
    let row = Row::read(line.split_once("] ").unwrap().1);
    assert_eq!((row.number("sent"), row.number("received")), (11, 51), "{line}");
    flows.has_flows(0);
}

#[test]
fn every_length_from_nothing_to_the_longest() {
    let provider = Sink::echo();
    let flows = Flows::before(&[provider.address], &[]);
    let client = flows.client();
    for length in [0, 1, 512, 1472, 9000, 65_506, 65_507] {
        let bytes = Random::new(length as u64).bytes(length);
        assert!(ask(&client, &bytes) == bytes, "{length} bytes");
    }
    assert_eq!(provider.taken()[0], b"");
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let provider = Sink::echo();
    let flows = Flows::at("*:0", "fifo", &[provider.address], &[]);
    let port = flows.redirect.address.port();
    // A connected socket receives nothing from another address.
    for place in ["127.0.0.1", "127.0.0.5", "127.9.8.7", "::1"] {
        let client = client(SocketAddr::new(place.parse().unwrap(), port));
        assert_eq!(ask(&client, place.as_bytes()), place.as_bytes());
    }
    flows.has_flows(4);
}

#[test]
fn over_ipv6_to_a_provider_of_ipv6() {
    let provider = Sink::start("[::1]:0", |bytes| Some(bytes.to_vec()));
    let flows = Flows::at("[::1]:0", "fifo", &[provider.address], &[]);
    let client = flows.client();
    assert_eq!(ask(&client, b"hello"), b"hello");
    let long = Random::new(6).bytes(65_507);
    assert!(ask(&client, &long) == long);
}

#[test]
fn the_first_datagrams_wait_for_a_ticket() {
    let flows = Flows::before(&[], &["redirect_wait=20s"]);
    let client = flows.client();
    for number in 0..20u8 {
        client.send(&[number]).unwrap();
    }
    until("it waits", || flows.queue.status().queue().number("waiting") == 1);
    let provider = Sink::echo();
    flows.queue.offer(provider.address, 10);
    for number in 0..8u8 {
        assert_eq!(hear(&client), [number], "the first eight are kept");
    }
    assert_eq!(ask(&client, b"next"), b"next");
}

#[test]
fn a_dead_provider_costs_no_datagram() {
    let dead = closed_address();
    let alive = Sink::echo();
    let mut flows = Flows::first_of(&[dead, alive.address], &[]);
    let client = flows.client();
    client.send(b"one").unwrap();
    client.send(b"two").unwrap();
    assert_eq!((hear(&client), hear(&client)), (b"one".to_vec(), b"two".to_vec()));
    flows.redirect.says(&["failure service=web", &format!("provider={dead}"), "why=refused"]);
    until("its tickets are gone", || flows.queue.status().tickets(dead) == 0);
    flows.has_flows(1);
}

#[test]
fn a_sender_that_expects_no_answer_moves_when_its_provider_dies() {
    let first = Sink::silent();
    let second = Sink::silent();
    let mut flows = Flows::first_of(&[first.address, second.address], &[]);
    let sender = flows.client();
    // Longer than a datagram is kept.
    for number in 0..30u32 {
        sender.send(format!("<13>line {number}").as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(40));
    }
    let place = first.address;
    let before = first.taken().len();
    assert_eq!(before, 30);
    drop(first);
    for number in 30..40u32 {
        sender.send(format!("<13>line {number}").as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    until("the other has the rest", || second.taken().len() >= 10);
    let lines: HashSet<Vec<u8>> = second.taken().into_iter().collect();
    for number in 30..40u32 {
        assert!(lines.contains(format!("<13>line {number}").as_bytes()), "line {number} is lost");
    }
    flows.redirect.says(&["failure service=web", &format!("provider={place}")]);
    assert_eq!(flows.log_with(&["failure service=web"]).len(), 1);
}

#[test]
fn the_death_of_a_provider_ends_all_flows_to_it_and_is_reported_once_by_a_thread() {
    let first = Sink::named("first");
    let second = Sink::named("second");
    let mut flows = Flows::first_of(&[first.address, second.address], &["redirect_threads=3"]);
    let clients: Vec<UdpSocket> = (0..20).map(|_| flows.client()).collect();
    for client in &clients {
        assert_eq!(ask(client, b"?"), b"first");
    }
    drop(first);
    for client in &clients {
        assert_eq!(ask(client, b"?"), b"second");
    }
    flows.redirect.says(&["failure service=web"]);
    assert!((1..=3).contains(&flows.log_with(&["failure service=web"]).len()));
    flows.has_flows(20);
}

#[test]
fn without_flows_every_datagram_is_led_anew() {
    let providers = [Sink::named("a"), Sink::named("b"), Sink::named("c")];
    let addresses = providers.each_ref().map(|sink| sink.address);
    let flows = Flows::before(&addresses, &["service_web_udp_flow=off"]);
    let client = flows.client();
    let mut answers: Vec<Vec<u8>> = (0..9).map(|_| ask(&client, b"?")).collect();
    answers.sort();
    assert_eq!(answers.concat(), b"aaabbbccc");
    flows.has_flows(0);
}

#[test]
fn more_sources_than_flows() {
    let provider = Sink::echo();
    let mut flows = Flows::before(&[provider.address], &["redirect_flows_max=40"]);
    let descriptors = flows.descriptors();
    let faithful = flows.client();
    assert_eq!(ask(&faithful, b"first"), b"first");
    let clients: Vec<UdpSocket> = (0..400).map(|_| flows.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(ask(client, b"hello"), b"hello");
        if number % 20 == 0 {
            assert_eq!(ask(&faithful, b"still"), b"still");
            assert!(flows.descriptors() <= descriptors + 40, "{} descriptors", flows.descriptors());
        }
    }
    flows.has_flows(40);
    flows.redirect.closed(&["outcome=evicted"]);
    let port = faithful.local_addr().unwrap().port();
    assert!(
        flows.log_with(&["closed", &format!("client=127.0.0.1:{port} ")]).is_empty(),
        "it was never silent"
    );
    flows.idles();
}

#[test]
fn more_flows_than_descriptors() {
    let provider = Sink::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 10_000);
    let mut shell = tool("sh");
    let redirect = format!(
        "ulimit -n 60; exec {} redirect -c /dev/null -o redirect_queue={} \
         -o service_web_listen=127.0.0.1:0/udp -o service_web_udp_idle=2s",
        path(),
        queue.address
    );
    let mut redirect = Redirect::of(shell.args(["-c", &redirect]));
    let clients: Vec<UdpSocket> = (0..200).map(|_| client(redirect.address)).collect();
    clients.iter().for_each(|client| {
        client.send(b"hello").unwrap();
    });
    until("some are answered", || provider.taken().len() > 20);
    redirect.idles();
    // There is room again when the others have been silent for long enough.
    redirect.closed(&["outcome=idle"]);
    let late = client(redirect.address);
    late.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    until("a late one is served", || late.send(b"late").is_ok() && late.recv(&mut [0; 10]).is_ok());
}

#[test]
fn no_ticket_is_one_line_and_the_next_datagram_tries_again() {
    let mut flows = Flows::before(&[], &["redirect_wait=0"]);
    let client = flows.client();
    client.send(b"lost").unwrap();
    flows.redirect.closed(&["WARN", "outcome=no-ticket"]);
    let provider = Sink::echo();
    flows.queue.offer(provider.address, 10);
    assert_eq!(ask(&client, b"hello"), b"hello");
}

#[test]
fn told_to_end_it_lets_flows_end() {
    let provider = Sink::echo();
    let mut flows = Flows::before(&[provider.address], &[]);
    let client = flows.client();
    assert_eq!(ask(&client, b"hello"), b"hello");
    flows.signal(libc::SIGTERM);
    flows.redirect.says(&["draining"]);
    assert_eq!(ask(&client, b"still here"), b"still here");
    assert_eq!(flows.redirect.ends(), 0);
    flows.has_flows(0);
}

#[test]
fn inetd_lends_its_socket_and_gets_it_back() {
    let provider = Sink::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let inetd = Inetd::redirect_datagrams(
        queue.address,
        &["redirect_linger=300ms", "service_web_udp_idle=300ms"],
    );
    for round in 0..3 {
        let clients: Vec<UdpSocket> = (0..20).map(|_| client(inetd.address)).collect();
        for client in &clients {
            assert_eq!(ask(client, b"hello"), b"hello");
        }
        // One process served them all, and ends.
        until("it left", || {
            inetd.log().lines().filter(|line| line.contains("outcome=idle")).count()
                == 20 * (round + 1)
        });
        until("no redirector is connected", || queue.status().queue().number("connections") == 1);
        assert_eq!(inetd.log().lines().filter(|line| line.contains("] ready ")).count(), round + 1);
    }
    inetd.process().idles();
}

#[test]
fn a_refusal_under_inetd_takes_the_datagram() {
    let queue = Queue::start(&[]);
    for settings in [["nonsense=1", "redirect_wait=0"], ["redirect_linger=0", "redirect_wait=0"]] {
        let inetd = Inetd::redirect_datagrams(queue.address, &settings);
        let sender = client(inetd.address);
        sender.send(b"hello").unwrap();
        // A datagram that is left there would start the next process at once, for ever.
        thread::sleep(Duration::from_millis(300));
        inetd.process().idles();
        let starts = inetd.process().log_with(&["someone wants"]).len();
        assert!((1..=2).contains(&starts), "{:#?}", inetd.process().log());
    }
}

/// As udpsvd starts it: the socket is connected to its only client.
#[test]
fn a_connected_socket_has_one_client() {
    let provider = Sink::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client(ours.local_addr().unwrap());
    ours.connect(client.local_addr().unwrap()).unwrap();
    client.send(b"first").unwrap();
    let mut command = command(
        "redirect",
        &[&format!("redirect_queue={}", queue.address), "redirect_linger=200ms"],
    );
    command.args(["-s", "web", "-o", "service_web_udp_idle=200ms"]);
    command.stdin(Stdio::from(OwnedFd::from(ours))).stderr(Stdio::piped());
    let mut redirect = Process::start_as_is("redirect", &mut command);
    assert_eq!(hear(&client), b"first");
    assert_eq!(ask(&client, b"second"), b"second");
    assert_eq!(redirect.ends(), 0);
}

#[test]
fn sockets_that_systemd_passes() {
    let provider = Sink::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client(ours.local_addr().unwrap());
    let mut shell = tool("sh");
    let script = format!(
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web \
         exec {} redirect -c /dev/null -o redirect_queue={} -o service_web_udp_idle=10s",
        path(),
        queue.address
    );
    shell.args(["-c", &script]).stdin(Stdio::from(OwnedFd::from(ours))).stderr(Stdio::piped());
    let mut redirect = Process::start_as_is("redirect", &mut shell);
    redirect.says(&["] ready web="]);
    assert_eq!(ask(&client, b"hello"), b"hello");
    redirect.signal(libc::SIGTERM);
    assert_eq!(redirect.ends(), 0);
}
