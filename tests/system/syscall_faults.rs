//! Systems that lack a system call, or refuse it now and then: clients notice nothing.
//!
//! `strace` makes the redirector's calls fail. Where it may not trace, these tests print
//! SKIPPED.

use crate::support::datagram::{ask, client, hear, Sink};
use crate::support::pegasus::{closed_address, command, Queue, Redirect, SERVICE};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, drain, End};
use crate::support::{tool, until};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;

/// Bytes in each direction: enough to be spliced.
const MUCH: usize = 1 << 20;
const CLIENTS: usize = 6;

/// Whether processes may be traced here.
fn can_trace() -> bool {
    let (status, _, errors) =
        run(tool("strace").args(["-e", "inject=getppid:error=EPERM", "true"]), b"");
    if status != 0 {
        crate::support::skip(&format!("strace cannot trace here: {errors}"));
    }
    status == 0
}

/// Returns the same command with calls that fail as `faults` say.
fn traced(command: &Command, faults: &[&str]) -> Command {
    let mut strace = tool("strace");
    // strace -D: the test's child is the program itself.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    for fault in faults {
        strace.args(["-e", &format!("inject={fault}")]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    strace
}

/// A redirector at this address with this queue, and calls that fail as `faults` say.
#[track_caller]
fn redirect_although(queue: &Queue, place: &str, faults: &[&str]) -> Redirect {
    let asks = format!("redirect_queue={}", queue.address);
    let listen = format!("service_{SERVICE}_listen={place}");
    Redirect::of(&mut traced(&command("redirect", &["redirect_threads=1", &asks, &listen]), faults))
}

/// Sends this many bytes and receives them back.
#[track_caller]
fn echoes(mut client: TcpStream, bytes: &[u8], why: &[&str]) {
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            sender.write_all(bytes).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let (answer, end) = drain(&mut client);
        assert!(answer == bytes && end == End::Fin, "{} bytes, {end:?}, {why:?}", answer.len());
    });
}

/// Exercises all that a relay does, with calls that fail as `faults` say. Returns the
/// number of pipes in the end, beyond those of the start.
#[track_caller]
fn relays_although(faults: &[&str]) -> usize {
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    let echo = Provider::echo();
    let dead = closed_address();
    queue.offer(dead, 1);
    queue.offer(echo.address, 1000);
    let redirect = redirect_although(&queue, "127.0.0.1:0", faults);
    let pipes = redirect.open("pipe:");
    let bytes = Random::new(1).bytes(MUCH);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| echoes(connect(redirect.address), &bytes, faults));
        }
    });
    until("all are complete", || redirect.log_with(&["outcome=complete"]).len() == CLIENTS);
    until("nothing in progress", || queue.status().active(echo.address) == 0);
    assert_eq!(
        redirect.log_with(&["failure service=", "why=refused"]).len(),
        1,
        "{:#?}",
        redirect.log()
    );
    redirect.open("pipe:") - pipes
}

#[test]
fn without_a_fault_it_splices() {
    if can_trace() {
        assert!(relays_although(&[]) > 0);
    }
}

#[test]
fn a_system_that_does_not_splice_copies() {
    if can_trace() {
        for error in ["ENOSYS", "EINVAL", "EPERM"] {
            assert_eq!(relays_although(&[&format!("splice:error={error}")]), 0, "{error}");
        }
        // The first pipe is that of the signals.
        assert_eq!(relays_although(&["pipe2:error=EMFILE:when=2+"]), 0);
    }
}

#[test]
fn a_system_with_small_pipes_splices_all_the_same() {
    if can_trace() {
        // The first ones are of the start, and duplicate descriptors.
        assert!(relays_although(&["fcntl:error=EPERM:when=3+"]) > 0);
    }
}

/// A redirector that tries two providers, in their order. The first `connect` is for the
/// queue.
fn calling_although(fault: &str) -> (Queue, Provider, Provider, Redirect) {
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    let first = Provider::named("first");
    let second = Provider::named("second");
    queue.offer(first.address, 1);
    queue.offer(second.address, 1);
    let redirect = redirect_although(&queue, "127.0.0.1:0", &[fault]);
    (queue, first, second, redirect)
}

#[test]
fn a_provider_that_this_host_has_no_address_to_call_from_is_passed_over() {
    if can_trace() {
        let (_queue, first, _second, mut redirect) =
            calling_although("connect:error=EADDRNOTAVAIL:when=2..3");
        assert_eq!(drain(&mut connect(redirect.address)), (b"second".to_vec(), End::Fin));
        redirect.closed(&["outcome=complete"]);
        assert_eq!(redirect.log_with(&["failure service=", &first.address.to_string()]).len(), 1);
    }
}

/// Returns an address of this host other than loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // It sends nothing.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn a_system_that_tells_no_addresses_of_datagrams_has_a_socket_for_each() {
    if !can_trace() {
        return;
    }
    let own = own_address();
    if own.is_none() {
        crate::support::skip("this host has no address but those of loopback");
    }
    for place in ["*", "0.0.0.0"] {
        let queue = Queue::start(&[]);
        let echo = Sink::echo();
        queue.offer(echo.address, 10);
        // The first two ask for the address of each datagram.
        let faults = ["setsockopt:error=ENOPROTOOPT:when=1..2"];
        let mut redirect = redirect_although(&queue, &format!("{place}:0/udp"), &faults);
        redirect.says(&["addresses have a socket each"]);
        let port = redirect.address.port();
        let asked = [
            Some("127.0.0.1".parse().unwrap()),
            own,
            (place == "*").then_some("::1".parse().unwrap()),
        ];
        for address in asked.into_iter().flatten() {
            // A connected socket receives nothing from another address.
            let client = client(SocketAddr::new(address, port));
            assert_eq!(ask(&client, b"one"), b"one", "{place} {address}");
            assert_eq!(ask(&client, b"two"), b"two", "{place} {address}");
        }
        // Loopback's other addresses are in no list: these go to the first socket.
        client(SocketAddr::new("127.0.0.5".parse().unwrap(), port)).send(b"three").unwrap();
        until("it is led, too", || echo.taken().contains(&b"three".to_vec()));
    }
}

#[test]
fn a_system_that_tells_only_connected_sockets_that_nobody_is_there() {
    if !can_trace() {
        return;
    }
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    let echo = Sink::echo();
    let dead = closed_address();
    queue.offer(dead, 1);
    queue.offer(echo.address, 1);
    let redirect = redirect_although(&queue, "127.0.0.1:0/udp", &["setsockopt:error=ENOPROTOOPT"]);
    assert_eq!(ask(&client(redirect.address), b"hello"), b"hello", "in spite of the dead one");
    // A TFTP transfer: all replies come from a port of its own.
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    queue.offer(server.local_addr().unwrap(), 1);
    let client = client(redirect.address);
    let request = b"\0\x01file\0octet\0";
    client.send(request).unwrap();
    let mut buffer = [0; 100];
    let (count, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], request);
    let transfer = UdpSocket::bind("127.0.0.1:0").unwrap();
    transfer.connect(from).unwrap();
    transfer.send(b"data").unwrap();
    assert_eq!(hear(&client), b"data");
    client.send(b"ack").unwrap();
    assert_eq!(hear(&transfer), b"ack");
}

#[test]
fn ports_that_are_used_up_and_firewalls_are_no_provider_s_fault() {
    for error in ["EADDRNOTAVAIL", "EPERM", "EACCES"] {
        if !can_trace() {
            return;
        }
        let (queue, first, second, mut redirect) =
            calling_although(&format!("connect:error={error}:when=2"));
        assert_eq!(drain(&mut connect(redirect.address)), (b"second".to_vec(), End::Fin));
        let to = first.address.to_string();
        redirect.says(&["ERROR", &to, "cannot be reached from this host"]);
        redirect.closed(&["outcome=complete", &format!("provider={}", second.address)]);
        assert!(redirect.log_with(&["failure service="]).is_empty());
        until("the first one's place is free", || queue.status().active(first.address) == 0);
        assert_eq!(queue.status().tickets(first.address), 1);
    }
}

#[test]
fn a_firewall_that_forbids_one_provider_leaves_datagrams_to_the_next() {
    if !can_trace() {
        return;
    }
    let (first, second) = (Sink::echo(), Sink::echo());
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    queue.offer(first.address, 1);
    queue.offer(second.address, 1);
    // The first `sendto` is the question to the queue.
    let fault = "sendto:error=EPERM:when=2..3";
    let mut redirect = redirect_although(&queue, "127.0.0.1:0/udp", &[fault]);
    let client = client(redirect.address);
    client.send(b"query").unwrap();
    assert_eq!(hear(&client), b"query");
    assert_eq!(second.taken(), [b"query"], "the next provider has the datagram");
    redirect.says(&["ERROR", &first.address.to_string(), "cannot be reached from this host"]);
    assert!(redirect.log_with(&["failure service="]).is_empty());
}

#[test]
fn calls_that_are_interrupted_or_fail_now_and_then() {
    if can_trace() {
        let calls = ["recvfrom", "sendto", "splice", "epoll_wait", "accept4"];
        let faults = calls.map(|call| format!("{call}:error=EINTR:when=2+3"));
        relays_although(&faults.each_ref().map(String::as_str));
        relays_although(&["accept4:error=ECONNABORTED:when=1+2"]);
        relays_although(&["accept4:error=EMFILE:when=1+3"]);
    }
}

/// A queue, a monitor whose check is a command, a redirector for TCP and UDP, and one
/// under inetd: all with calls that fail as `faults` say.
#[track_caller]
fn all_serve_although(faults: &[&str]) {
    let echo = Provider::echo();
    let sink = Sink::echo();
    let queue = Queue::of(&mut traced(&command("queue", &["queue_listen=127.0.0.1:0"]), faults));
    let asks = format!("redirect_queue={}", queue.address);

    let balancer = format!("monitor_balancers={}", queue.address);
    let streams = format!("service_{SERVICE}_provider={}", echo.address);
    let datagrams = format!("service_dns_provider={}", sink.address);
    let settings = [
        "monitor_interval=200ms",
        "drain_timeout=5s",
        "service_dns_check=exec:true",
        &balancer,
        &streams,
        &datagrams,
    ];
    let monitor = Process::start("monitor", &mut traced(&command("monitor", &settings), faults));
    queue.has(&[echo.address, sink.address]);

    let listen = format!("service_{SERVICE}_listen=127.0.0.1:0");
    let settings = [asks.as_str(), &listen, "service_dns_listen=*:0/udp"];
    let mut redirect =
        Process::start("redirect", &mut traced(&command("redirect", &settings), faults));
    let line = redirect.says(&["] ready "]);
    let port = |service: &str| -> u16 {
        let place = line.split_whitespace().find_map(|word| word.strip_prefix(service)).unwrap();
        place.trim_end_matches("/udp").rsplit(':').next().unwrap().parse().unwrap()
    };
    let bytes = Random::new(1).bytes(MUCH / 4);
    echoes(connect((Ipv4Addr::LOCALHOST, port("web=")).into()), &bytes, faults);
    let client = client((Ipv4Addr::LOCALHOST, port("dns=")).into());
    for question in [&b""[..], b"?", &bytes[..9000]] {
        assert!(ask(&client, question) == question, "{faults:?}");
    }

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let caller = connect(listener.local_addr().unwrap());
    let socket: OwnedFd = listener.accept().unwrap().0.into();
    let mut start = traced(&command("redirect", &[&asks]), faults);
    start.args(["-s", SERVICE]).stdin(socket).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut inetd = Process::start_as_is("inetd", &mut start);
    // It keeps a copy of the socket.
    drop(start);
    echoes(caller, &bytes, faults);
    assert_eq!(inetd.ends(), 0, "{faults:?}");

    monitor.signal(libc::SIGTERM);
    until("it withdrew", || queue.status().tickets(sink.address) == 0);
}

/// System calls that Linux has had only since version 3.2, by number: those from before
/// 2019 have other numbers on other processors.
fn newer() -> Vec<String> {
    let own = if cfg!(target_arch = "x86_64") { 312..=334 } else { 272..=294 };
    own.chain(424..=450).map(|number| number.to_string()).collect()
}

/// Calls that are tried, and replaced where they fail.
const OURS: [&str; 5] = ["accept4", "splice", "close_range", "recvmmsg", "sendmmsg"];
/// Calls that the program can do without.
const ASKED: [&str; 6] =
    ["getrandom", "prlimit64", "sched_getaffinity", "sysinfo", "prctl", "madvise"];

#[test]
fn calls_that_the_system_lacks_or_forbids() {
    if can_trace() {
        let all = newer()
            .iter()
            .map(String::as_str)
            .chain(OURS)
            .chain(ASKED)
            .collect::<Vec<_>>()
            .join(",");
        for error in ["ENOSYS", "EPERM"] {
            // The C library starts threads without clone3 where that is unknown,
            // not where it is forbidden.
            all_serve_although(&[&format!("{all}:error={error}"), "clone3:error=ENOSYS"]);
            for call in OURS {
                all_serve_although(&[&format!("{call}:error={error}")]);
            }
        }
        // The first call is the standard library's: without it nothing listens.
        all_serve_although(&["setsockopt:error=ENOPROTOOPT:when=2+"]);
    }
}
