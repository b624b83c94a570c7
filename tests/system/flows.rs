//! When flows end and where they go: withdrawals, ages, floods, affinity.

use crate::support::datagram::{ask, client, Flows, Sink};
use crate::support::pegasus::{command, monitor, Queue, Redirect};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::{free_port, output, tool, until};
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[test]
fn a_provider_that_withdraws_loses_its_flows() {
    let first = Sink::named("first");
    let second = Sink::named("second");
    let mut flows = Flows::first_of(&[], &[]);
    let mut monitor = monitor(flows.queue.address, first.address, &["service_web_check=off"]);
    flows.queue.has(&[first.address]);
    let client = flows.client();
    assert_eq!(ask(&client, b"?"), b"first");
    flows.queue.offer(second.address, 1000);
    monitor.signal(libc::SIGTERM);
    let gone = format!("provider={}", first.address);
    flows.redirect.closed(&["outcome=withdrawn", &gone]);
    assert_eq!(ask(&client, b"?"), b"second");
    // The datagram waited for the flow, and not longer.
    assert_eq!(monitor.ends(), 0);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(ask(&client, b"?"), b"second");
    assert_eq!(flows.log_with(&["outcome=withdrawn"]).len(), 1);
    assert!(flows.log_with(&["failure"]).is_empty());
}

#[test]
fn one_way_senders_move_when_they_pause_and_at_the_latest_at_their_age() {
    let providers = [Sink::silent(), Sink::silent()];
    let places = providers.each_ref().map(|sink| sink.address);
    let mut flows =
        Flows::before(&places, &["service_web_udp_idle=300ms", "service_web_udp_age=2s"]);
    let sender = flows.client();
    sender.send(b"one").unwrap();
    flows.redirect.closed(&["outcome=idle"]);
    sender.send(b"two").unwrap();
    until("both have a line", || providers.iter().all(|sink| sink.taken().len() == 1));
    // From now on it never pauses.
    until("the other one has a line again", || {
        sender.send(b"three").unwrap();
        thread::sleep(Duration::from_millis(20));
        providers.iter().all(|sink| sink.taken().len() > 1)
    });
    flows.redirect.closed(&["outcome=aged"]);
}

#[test]
fn a_client_meets_one_provider_by_tcp_and_by_udp() {
    const NAMES: [&str; 3] = ["alpha", "bravo", "carol"];
    let streams = NAMES.map(Provider::named);
    let datagrams = [0, 1, 2]
        .map(|at| Sink::start(&streams[at].address.to_string(), move |_| Some(NAMES[at].into())));
    let places = datagrams.each_ref().map(|sink| sink.address);
    let port = free_port();
    let queue = Queue::start(&["queue_scheduler=round-robin", "service_web_affinity=source"]);
    places.iter().for_each(|place| queue.offer(place, 100));
    let at = format!("redirect_queue={}", queue.address);
    let listen = format!("service_web_listen=127.0.0.1:{port} 127.0.0.1:{port}/udp");
    let _redirect = Redirect::of(&mut command("redirect", &[&at, &listen]));
    let mut met = HashSet::new();
    for last in 10..22 {
        let source = Ipv4Addr::new(127, 0, 0, last);
        let by_tcp = || {
            let mut nc = tool("nc");
            nc.args(["-d", "-w", "20", "-s", &source.to_string(), "127.0.0.1", &port.to_string()]);
            output(&mut nc).into_bytes()
        };
        let by_udp = || {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            ask(&socket, b"?")
        };
        // Whichever comes first.
        let both = if last % 2 == 0 { (by_tcp(), by_udp()) } else { (by_udp(), by_tcp()) };
        assert_eq!(both.0, both.1, "{source}");
        met.insert(both.0);
    }
    assert_eq!(met.len(), 3, "{met:?}");
}

/// Counts the datagrams of strangers, and replies to others with the port of their flow,
/// which differs for each flow.
struct Teller {
    address: SocketAddr,
    strangers: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    fn start() -> Teller {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let (strangers, over): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let count = strangers.clone();
        let ended = over.clone();
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                match socket.recv_from(&mut [0; 100]) {
                    Ok((0, _)) => _ = count.fetch_add(1, Ordering::SeqCst),
                    Ok((_, from)) => _ = socket.send_to(from.port().to_string().as_bytes(), from),
                    Err(_) => {}
                }
            }
        });
        Teller { address, strangers, over, thread: Some(thread) }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Opens `count` flows, each from an address and port of its own, while twenty clients go
/// on sending.
fn flood(count: usize) {
    const FLOWS_MAX: usize = 1000;
    /// Datagrams in flight.
    const WINDOW: usize = 100;
    let teller = Teller::start();
    let queue = Queue::start(&[]);
    queue.offer(teller.address, 100_000);
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let at = format!("redirect_queue={}", queue.address);
    let most = format!("redirect_flows_max={FLOWS_MAX}");
    let listen = format!("service_web_listen={place}/udp");
    // Otherwise the log of a million flows would be what grows.
    let settings = [&at, &most, &listen, "log_level=warn"];
    let redirect = Process::start("redirect", &mut command("redirect", &settings));
    until("it listens", || UdpSocket::bind(place).is_err());
    let faithful: Vec<UdpSocket> = (0..20).map(|_| client(place)).collect();
    let ports: Vec<Vec<u8>> = faithful.iter().map(|client| ask(client, b"which port?")).collect();
    faithful
        .iter()
        .zip(&ports)
        .for_each(|(client, port)| assert_eq!(&ask(client, b"which port?"), port));
    let descriptors = redirect.descriptors() - faithful.len();
    let mut memory = 0;
    for number in 0..count {
        let [_, second, third, fourth] = (number as u32 / 50).to_be_bytes();
        let source = Ipv4Addr::new(127, second.wrapping_add(1), third, fourth);
        let stranger = UdpSocket::bind((source, 0)).unwrap();
        stranger.send_to(b"", place).unwrap();
        let sent = Instant::now();
        // A lost datagram is waited for once.
        while number + 1 - teller.strangers.load(Ordering::SeqCst).min(number + 1) > WINDOW {
            thread::yield_now();
            if sent.elapsed() > Duration::from_millis(100) {
                teller.strangers.fetch_add(1, Ordering::SeqCst);
            }
        }
        if number % 1000 == 999 {
            for (client, port) in faithful.iter().zip(&ports) {
                assert_eq!(&ask(client, b"which port?"), port, "after {number} strangers");
            }
            let open = redirect.descriptors();
            assert!(open <= descriptors + FLOWS_MAX, "{open} descriptors after {number} strangers");
            if number < count / 2 {
                memory = redirect.memory();
            }
        }
    }
    let active = || queue.status().providers().map(|row| row.number("active")).sum::<u64>();
    until("it has as many flows as it may have", || active() == FLOWS_MAX as u64);
    let grown = redirect.memory().saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more than halfway");
}

#[test]
fn a_flood_of_strangers_displaces_itself() {
    flood(10_000);
}

/// `cargo test --release --test main -- --ignored --nocapture a_million_flows`
#[test]
#[ignore = "some minutes"]
fn a_million_flows() {
    flood(1_000_000);
}

#[test]
fn both_families_at_one_door() {
    let v4 = Sink::named("v4");
    let v6 = Sink::start("[::1]:0", |_| Some("v6".into()));
    let flows = Flows::at("*:0", "round-robin", &[v4.address, v6.address], &[]);
    let port = flows.redirect.address.port();
    for ip in ["127.0.0.1", "::1"] {
        let place = SocketAddr::new(ip.parse().unwrap(), port);
        let answers: HashSet<Vec<u8>> = (0..2).map(|_| ask(&client(place), b"")).collect();
        assert_eq!(answers.len(), 2, "{ip} reaches providers of both families: {answers:?}");
    }
}
