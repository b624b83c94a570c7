//! UDP: flows to providers, and the replies.

use crate::support::control_connection::Row;
use crate::support::datagram::{ask, client, hear, Flows, Sink};
use crate::support::inetd::Inetd;
use crate::support::pegasus::{closed_address, command, path, Queue, Redirect};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::socket::RawSocket;
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
fn a_broadcast_is_one_request_and_its_answer_comes_back() {
    let provider = Sink::echo();
    let flows = Flows::at("*:0", "fifo", &[provider.address], &["redirect_threads=3"]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.set_broadcast(true).unwrap();
    sender.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = flows.redirect.address.port();
    sender.send_to(b"who is there?", ("127.255.255.255", port)).unwrap();
    let (count, from) = sender.recv_from(&mut [0; 100]).unwrap();
    assert_eq!((count, from), (13, SocketAddr::from(([127, 0, 0, 1], port))));
    // What follows it through every thread finds no second copy.
    for _ in 0..20 {
        let other = client(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(ask(&other, b"next"), b"next");
    }
    let copies = provider.taken().iter().filter(|bytes| *bytes == b"who is there?").count();
    assert_eq!(copies, 1);
}

/// Starts a flow to a provider whose answers a test sends itself. Returns the provider's
/// socket, the address that the flow's datagrams come from, and the client.
fn flow_to_test(settings: &[&str]) -> (Flows, UdpSocket, SocketAddr, UdpSocket) {
    let provider = UdpSocket::bind("127.0.0.1:0").unwrap();
    provider.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let flows = Flows::before(&[provider.local_addr().unwrap()], settings);
    let client = flows.client();
    client.send(b"question").unwrap();
    let (_, upstream) = provider.recv_from(&mut [0; 100]).unwrap();
    (flows, provider, upstream, client)
}

#[test]
fn only_the_port_that_was_asked_answers_a_flow() {
    let (_flows, provider, upstream, client) = flow_to_test(&[]);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"forged", upstream).unwrap();
    provider.send_to(b"answer", upstream).unwrap();
    assert_eq!(hear(&client), b"answer");
    client.send(b"secret").unwrap();
    let mut buffer = [0; 100];
    let (count, _) = provider.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"secret");
}

#[test]
fn where_any_port_may_answer_the_flow_follows_it() {
    let (_flows, _provider, upstream, client) = flow_to_test(&["service_web_udp_port=any"]);
    let next = UdpSocket::bind("127.0.0.1:0").unwrap();
    next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    next.send_to(b"answer", upstream).unwrap();
    assert_eq!(hear(&client), b"answer");
    client.send(b"more").unwrap();
    let (_, from) = next.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(from, upstream);
}

#[test]
fn a_source_that_cannot_be_answered_reaches_no_provider() {
    let provider = Sink::echo();
    let flows = Flows::at("*:0", "fifo", &[provider.address], &["redirect_threads=2"]);
    let Some(raw) = RawSocket::open(libc::IPPROTO_UDP) else { return };
    let port = flows.redirect.address.port();
    let to = port.to_be_bytes();
    for source in [0, port] {
        let from = source.to_be_bytes();
        raw.send(&[&from[..], &to, &[0, 13, 0, 0], b"lost!"].concat());
    }
    // The threads take datagrams in order, and each gets some of these.
    for _ in 0..20 {
        let client = client(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(ask(&client, b"next"), b"next");
    }
    assert_eq!(provider.taken().iter().filter(|bytes| *bytes == b"lost!").count(), 0);
}

#[test]
fn a_forged_refusal_takes_no_provider_out() {
    let (flows, provider, upstream, client) = flow_to_test(&[]);
    let Some(raw) = RawSocket::open(libc::IPPROTO_ICMP) else { return };
    let address = provider.local_addr().unwrap();
    raw.send(&port_unreachable(upstream.port(), address.port()));
    // It is asked once more, and answers.
    let mut buffer = [0; 100];
    let (count, from) = provider.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], from), (&b"question"[..], upstream));
    provider.send_to(b"alive", upstream).unwrap();
    assert_eq!(hear(&client), b"alive");
    // A refusal of what another provider was sent is none of this one.
    for _ in 0..5 {
        raw.send(&port_unreachable(upstream.port(), 9));
    }
    client.send(b"more").unwrap();
    let (count, from) = provider.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], from), (&b"more"[..], upstream));
    assert!(flows.queue.status().tickets(address) > 0);
    assert!(flows.log_with(&["failure"]).is_empty());
}

/// The message by which this host tells itself that one of its datagrams found no socket.
fn port_unreachable(from: u16, to: u16) -> Vec<u8> {
    const LOCALHOST: [u8; 4] = [127, 0, 0, 1];
    let header = [0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0];
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let quoted = [&header[..], &LOCALHOST, &LOCALHOST, &ports, &[0, 16, 0, 0]].concat();
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
    let words = message.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
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
    for number in 0..200u8 {
        client.send(&[number]).unwrap();
    }
    until("it waits", || flows.queue.status().queue().number("waiting") == 1);
    let provider = Sink::echo();
    flows.queue.offer(provider.address, 10);
    for number in 0..200u8 {
        assert_eq!(hear(&client), [number]);
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
fn more_ports_than_descriptors_is_an_error_with_numbers() {
    let mut shell = tool("sh");
    let script = format!(
        "ulimit -n 300; exec {} redirect -c /dev/null -o redirect_queue=127.0.0.1:1 \
         -o service_rtp_listen=127.0.0.1:20000-20399/udp",
        path()
    );
    let mut redirect =
        Process::start_as_is("redirect", shell.args(["-c", &script]).stderr(Stdio::piped()));
    assert_eq!(redirect.ends(), 71);
    redirect.says(&["ERROR", "400 ports need 816 descriptors", "300"]);
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
