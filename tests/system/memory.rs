//! What clients and flows take of a redirector's memory, beside what it said at start.

use crate::support::pegasus::{Queue, Redirect};
use crate::support::process::Process;
use crate::support::socket::{connect, raise_descriptors};
use crate::support::{free_port, until, until_some, PATIENCE};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What an idle client may take, in bytes, and an idle flow. Without optimisation it is more
/// than in a release.
const CLIENT_BYTES: u64 = 512;
const FLOW_BYTES: u64 = 1024;

/// A provider that accepts connections and holds them.
struct Holder {
    address: SocketAddr,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Holder {
    fn start() -> Holder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(Mutex::new(Vec::new()));
        let all = held.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nonblocking(true).unwrap();
                all.lock().unwrap().push(stream);
            }
        });
        Holder { address, held }
    }

    fn count(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// Leads clients here, a few at a time: more at once than a listener queues are lost.
    #[track_caller]
    fn clients(&self, door: SocketAddr, count: usize) -> Vec<TcpStream> {
        let mut clients = Vec::new();
        while clients.len() < count {
            clients.extend((0..100.min(count - clients.len())).map(|_| connect(door)));
            until("all have a provider", || self.count() == clients.len());
        }
        clients
    }
}

/// Writes until the socket takes no more. Returns whether it took anything.
fn fill(mut stream: &TcpStream) -> bool {
    let mut took = false;
    loop {
        match stream.write(&[7; 64 * 1024]) {
            Ok(_) => took = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return took,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a daemon said at start of which it takes at most so many.
#[track_caller]
fn said(process: &Process, key: &str) -> u64 {
    let line = || process.log_with(&["bounds ", "memory="]).pop();
    let line = until_some("it says its bounds", line);
    let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|pair| pair.0 == key).expect("no such bound");
    value.trim_end_matches("MiB").parse().unwrap()
}

/// A redirector of the services web, by TCP, and dns, by UDP, and the address of dns.
#[track_caller]
fn redirector(queue: &Queue, settings: &[&str]) -> (Redirect, SocketAddr) {
    let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let listen = format!("service_dns_listen={dns}/udp");
    let settings: Vec<&str> = settings.iter().copied().chain([listen.as_str()]).collect();
    (Redirect::start(queue.address, &settings), dns)
}

/// Offers a holder of connections as web, and a socket that takes datagrams as dns.
fn offer(queue: &Queue) -> (Holder, UdpSocket) {
    let (holder, sink) = (Holder::start(), UdpSocket::bind("127.0.0.1:0").unwrap());
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    for (service, provider) in [("web", holder.address), ("dns", sink.local_addr().unwrap())] {
        let ticket = format!("ticket?service={service}&provider={provider}");
        queue.ask(&format!("{ticket}&tickets=20000&capacity=20000&lease=10m"));
    }
    (holder, sink)
}

/// Opens flows, each from an address of its own.
fn open_flows(queue: &Queue, dns: SocketAddr, sink: &UdpSocket, count: u32) {
    let provider = sink.local_addr().unwrap();
    for number in 0..count {
        let [_, second, third, fourth] = (number + 256).to_be_bytes();
        let client = UdpSocket::bind((Ipv4Addr::new(127, second, third, fourth), 0)).unwrap();
        client.send_to(b"?", dns).unwrap();
        // One by one, so that no datagram is lost.
        sink.recv(&mut [0; 8]).unwrap_or_else(|error| panic!("flow {number}: {error}"));
    }
    until("all are flows", || queue.status().active(provider) == u64::from(count));
}

#[test]
fn stuck_clients_and_many_flows_stay_below_the_memory_that_was_said() {
    const CLIENTS: usize = 200;
    const FLOWS: u32 = 1000;
    raise_descriptors();
    let queue = Queue::start(&[]);
    let (holder, sink) = offer(&queue);
    // What is spliced is in pipes, which are the system's memory.
    let settings = [
        "redirect_splice=off",
        "redirect_threads=1",
        "redirect_connections_max=200",
        "redirect_flows_max=1000",
    ];
    let (redirect, dns) = redirector(&queue, &settings);
    let most = said(&redirect, "memory");
    let clients = holder.clients(redirect.address, CLIENTS);
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    open_flows(&queue, dns, &sink, FLOWS);
    let buffers = (CLIENTS * 2 * 64 / 1024) as u64;
    until("its buffers are full, and nothing more fits", || {
        let held = holder.held.lock().unwrap();
        let takes = clients.iter().chain(held.iter()).filter(|stream| fill(stream)).count();
        takes == 0 && redirect.memory() / 1024 > buffers / 2
    });
    let used = redirect.memory() / 1024;
    assert!(used <= most, "{used} MiB, and at most {most} were said");
}

/// Asserts that so many of something grew by at most `bytes` each, and that it was said.
#[track_caller]
fn few_bytes_each(redirect: &Redirect, before: u64, count: u64, bytes: u64) {
    let now = redirect.memory();
    let each = now.saturating_sub(before) * 1024 / count;
    println!("{each} bytes for each of {count}");
    assert!(each < bytes, "{each} bytes for each of {count}");
    let most = said(redirect, "memory");
    assert!(now / 1024 <= most, "{now} KiB, and at most {most} MiB were said");
}

/// Up to 10,000: this process has both ends of each, and other tests go on beside this one.
#[test]
fn idle_clients_take_few_bytes_each() {
    let descriptors = raise_descriptors() as u64;
    let queue = Queue::start(&[]);
    let (holder, _sink) = offer(&queue);
    let redirect = Redirect::start(queue.address, &["redirect_splice=off", "redirect_threads=1"]);
    let count = said(&redirect, "clients").min(descriptors / 4);
    let before = redirect.memory();
    let _clients = holder.clients(redirect.address, count as usize);
    few_bytes_each(&redirect, before, count, CLIENT_BYTES);
}

/// Up to 16,384: as many as this host has descriptors for.
#[test]
fn idle_flows_take_few_bytes_each() {
    raise_descriptors();
    let queue = Queue::start(&[]);
    let (_holder, sink) = offer(&queue);
    let settings =
        ["redirect_connections_max=100", "redirect_threads=1", "service_dns_udp_idle=1h"];
    let (redirect, dns) = redirector(&queue, &settings);
    let count = said(&redirect, "flows");
    let before = redirect.memory();
    open_flows(&queue, dns, &sink, count as u32);
    few_bytes_each(&redirect, before, count, FLOW_BYTES);
}
