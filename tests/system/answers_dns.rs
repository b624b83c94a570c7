//! Questions for names (DNS), asked by dig, dnspython, unbound and dnsperf.

use super::upgrade::Successors;
use crate::support::pegasus::{closed_address, command, monitor_of, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::random::Random;
use crate::support::{free_port, output, tool, until, Directory, PATIENCE};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

const NAMES: &str = "service_web_dns=web.example _http._tcp.web.example \
    this-is-a-name.with-labels-that-are-quite-long.and-there-are-several-of-them.\
    so-that-eight-hosts-below-it-fit-into-no-datagram.but-into-a-stream.test";
const LONG: &str = "this-is-a-name.with-labels-that-are-quite-long.and-there-are-several-of-them.\
    so-that-eight-hosts-below-it-fit-into-no-datagram.but-into-a-stream.test SRV";

/// A queue, and a redirector that answers questions on this port.
struct Names {
    queue: Queue,
    redirect: Redirect,
    port: u16,
}

impl Names {
    #[track_caller]
    fn start(providers: &[&str], settings: &[&str]) -> Names {
        let queue = Queue::start(&["queue_scheduler=fifo"]);
        providers.iter().for_each(|provider| queue.offer(provider, 10_000));
        let (redirect, port) = redirect(queue.address, settings);
        Names { queue, redirect, port }
    }

    /// What dig prints of its own accord.
    #[track_caller]
    fn dig(&self, words: &str) -> String {
        dig(self.port, words)
    }

    /// The records of an answer, one a line.
    #[track_caller]
    fn short(&self, words: &str) -> Vec<String> {
        self.dig(&format!("+short {words}")).lines().map(str::to_string).collect()
    }

    #[track_caller]
    fn status(&self, words: &str) -> String {
        let text = self.dig(words);
        let status = text.split("status: ").nth(1).unwrap_or_else(|| panic!("{text}"));
        status.split(',').next().unwrap().to_string()
    }

    fn granted(&self) -> u64 {
        self.queue.status().service("web").unwrap().number("granted")
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

fn redirect(queue: SocketAddr, settings: &[&str]) -> (Redirect, u16) {
    let port = free_port();
    let dns = format!("redirect_dns=127.0.0.1:{port}");
    let settings: Vec<&str> = [dns.as_str(), NAMES].into_iter().chain(settings.to_vec()).collect();
    (Redirect::start(queue, &settings), port)
}

#[track_caller]
fn dig(port: u16, words: &str) -> String {
    let port = port.to_string();
    let mut dig = tool("dig");
    dig.args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=20", "+nocookie"]);
    output(dig.args(words.split(' ')))
}

/// Runs a program of Python with dnspython; it prints `done` at its end.
#[track_caller]
fn python(program: &str, port: u16) {
    let mut python = std::process::Command::new("/usr/bin/python3");
    let (status, printed, errors) = run(python.args(["-c", program, &port.to_string()]), b"");
    assert!(status == 0 && printed.ends_with("done\n"), "{printed}\n{errors}");
}

const THREE: [&str; 3] = ["127.0.0.2:80", "127.0.0.3:80", "127.0.0.4"];

#[test]
fn an_answer_has_all_providers_the_chosen_one_first_and_costs_one_ticket() {
    let names = Names::start(&THREE, &["service_web_dns_ttl=7"]);
    assert_eq!(names.short("web.example A"), ["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    assert_eq!(names.granted(), 1);
    assert_eq!(names.short("+tcp web.example ANY").len(), 3);
    assert_eq!(names.granted(), 2);
    // The letters come back as they were sent, and the time that it may be kept.
    let text = names.dig("wEb.eXAMPLE A");
    let records = text.lines().filter(|line| line.starts_with("wEb.eXAMPLE.\t"));
    let records: Vec<&str> = records.collect();
    assert!(records.len() == 3 && records.iter().all(|line| line.contains("7\tIN\tA\t")), "{text}");
    assert!(text.contains(" aa ") && text.contains("udp: 1232"), "{text}");
    // A provider without a port has that of its service's address.
    let port = names.redirect.address.port();
    let served = names.short("_http._tcp.web.example SRV");
    assert_eq!(served.len(), if port > 0 { 2 } else { 0 }, "the address was given as port 0");
    assert_eq!(served[0], "0 0 80 7f000002.web.example.");
    assert_eq!(names.short("7f000002.web.example A"), ["127.0.0.2"]);
    assert_eq!(names.granted(), 4, "a host costs no ticket");
    // What a name does not have, and names that are none.
    for (words, status, has_soa) in [
        ("web.example AAAA", "NOERROR", true),
        ("web.example HTTPS", "NOERROR", true),
        ("web.example TYPE9999", "NOERROR", true),
        ("_tcp.web.example A", "NOERROR", true),
        ("7f000002.web.example AAAA", "NOERROR", true),
        ("7f000009.web.example A", "NXDOMAIN", true),
        ("deep.er.web.example A", "NXDOMAIN", true),
        ("example A", "REFUSED", false),
        ("web.example.org A", "REFUSED", false),
        (". NS", "REFUSED", false),
        ("web.example CH A", "REFUSED", false),
        ("+opcode=4 web.example A", "NOTIMP", false),
    ] {
        assert_eq!(names.status(words), status, "{words}");
        assert_eq!(names.dig(words).contains("IN\tSOA\t"), has_soa, "{words}");
    }
    assert_eq!(names.granted(), 4);
    let line = names.redirect.log_with(&["closed service=web", "provider=127.0.0.2:80"]);
    assert!(line[0].contains("outcome=complete"), "{line:?}");
}

#[test]
fn both_families_are_answered_and_a_name_may_have_eight() {
    let many: Vec<String> = (1..=12).map(|n| format!("127.0.1.{n}:80")).collect();
    let mut providers: Vec<&str> = many.iter().map(String::as_str).collect();
    providers.push("[::1]:80");
    let names = Names::start(&providers, &[]);
    let distinct: BTreeSet<String> = names.short("web.example A").into_iter().collect();
    assert_eq!(distinct.len(), 8);
    assert_eq!(names.short("web.example AAAA"), ["::1"]);
    let whole = names.dig("_http._tcp.web.example SRV");
    assert!(whole.contains("ANSWER: 8, AUTHORITY: 0, ADDITIONAL: 9"), "{whole}");
    let short = names.dig("+noedns _http._tcp.web.example SRV");
    assert!(short.contains("ANSWER: 8, AUTHORITY: 0, ADDITIONAL: 0"), "{short}");
    let truncated = names.dig(&format!("+ignore {LONG}"));
    assert!(truncated.contains(" tc ") && truncated.contains("ANSWER: 0"), "{truncated}");
    assert_eq!(names.short(LONG).len(), 8, "over TCP");
}

#[test]
fn a_provider_that_withdraws_or_is_drained_or_dies_is_in_no_answer() {
    let names = Names::start(&["127.0.0.2:80", "127.0.0.3:80"], &[]);
    let gone = |ip: &str| {
        until(&format!("{ip} is gone"), || !names.short("web.example A").contains(&ip.into()));
        (0..20).for_each(|_| assert!(!names.short("web.example A").contains(&ip.into())));
    };
    names.queue.ask("withdraw?service=web&provider=127.0.0.3:80");
    gone("127.0.0.3");
    names.queue.offer("127.0.0.4:80", 100);
    until("127.0.0.4 is there", || names.short("web.example A").len() == 2);
    names.queue.ask("drain?service=web&provider=127.0.0.2:80");
    gone("127.0.0.2");
    // A service that ends, as its monitor sees.
    let mut server = Process::start(
        "server",
        std::process::Command::new("/usr/bin/python3").args([
            "-c",
            "import socket\ns = socket.create_server(('127.0.0.9', 0))\n\
             import sys\nprint('port', s.getsockname()[1], file=sys.stderr, flush=True)\n\
             while True: s.accept()",
        ]),
    );
    let line = server.says(&["port "]);
    let port = line.rsplit(' ').next().unwrap();
    let settings = ["monitor_interval=200ms"];
    let place = format!("127.0.0.9:{port}");
    let _monitor = monitor_of("web", names.queue.address, place, &settings);
    until("127.0.0.9 is there", || names.short("web.example A").contains(&"127.0.0.9".into()));
    server.kill();
    gone("127.0.0.9");
}

#[test]
fn without_a_ticket_or_a_queue_a_question_fails_in_time_or_has_the_fallback() {
    let names = Names::start(&["127.0.0.2:80"], &["redirect_wait=300ms"]);
    names.queue.ask("withdraw?service=web&provider=127.0.0.2:80");
    assert_eq!(names.status("web.example A"), "SERVFAIL");
    // A ticket that comes while the question waits.
    let late = Names::start(&[], &["redirect_wait=2s"]);
    let asking = std::thread::scope(|scope| {
        let asking = scope.spawn(|| late.short("web.example A"));
        until("it waits", || late.queue.status().queue().number("asked") > 0);
        late.queue.offer("127.0.0.5:80", 10);
        asking.join().unwrap()
    });
    assert_eq!(asking, ["127.0.0.5"]);
    let (_redirect, port) = redirect(closed_address(), &["redirect_queue_timeout=300ms"]);
    assert!(dig(port, "web.example A").contains("status: SERVFAIL"));
    let fallback = ["service_web_fallback=127.0.0.8:80"];
    let (_redirect, port) = redirect(closed_address(), &fallback);
    assert_eq!(dig(port, "+short web.example A"), "127.0.0.8\n");
}

#[test]
fn one_process_answers_names_alone_and_hands_them_over() {
    let port = free_port();
    let (dns, queue) = (format!("redirect_dns=127.0.0.1:{port}"), free_port());
    let queue_listen = format!("queue_listen=127.0.0.1:{queue}");
    let settings = [dns.as_str(), queue_listen.as_str(), NAMES];
    let mut process = Process::start("redirect", &mut command("redirect", &settings));
    process.says(&["[redirect] ready redirect_dns="]);
    let offer = "ticket?service=web&provider=127.0.0.2:80&tickets=9&capacity=9&lease=10m";
    let queue = SocketAddr::from((Ipv4Addr::LOCALHOST, queue));
    crate::support::control_connection::ControlConnection::to(queue).ask(offer);
    assert_eq!(dig(port, "+short web.example A"), "127.0.0.2\n");
    let mut successors = Successors::default();
    successors.upgrade(&process);
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(dig(port, &format!("+short {transport} web.example A")), "127.0.0.2\n");
    }
    process.signal(libc::SIGTERM);
    assert_eq!(process.ends(), 0);
}

#[test]
fn a_library_of_others_pipelines_questions_over_tcp() {
    let names = Names::start(&THREE, &[]);
    let program = r"
import sys, socket, struct, dns.message, dns.query, dns.flags, dns.rcode
port = int(sys.argv[1])
sock = socket.create_connection(('127.0.0.1', port))
wanted = {}
for n in range(200):
    kind = ['A', 'AAAA', 'SRV', 'TXT'][n % 4]
    q = dns.message.make_query('web.example', kind, use_edns=n % 3 == 0)
    q.id = n + 1
    wanted[q.id] = q
    wire = q.to_wire()
    packet = struct.pack('>H', len(wire)) + wire
    for part in (packet[:1], packet[1:7], packet[7:]):
        sock.sendall(part)
stream = sock.makefile('rb')
while wanted:
    length, = struct.unpack('>H', stream.read(2))
    r = dns.message.from_wire(stream.read(length))
    q = wanted.pop(r.id)
    assert q.is_response(r) and r.rcode() == dns.rcode.NOERROR and r.flags & dns.flags.AA, r
    assert (r.edns >= 0) == (q.edns >= 0), r
sock.shutdown(socket.SHUT_WR)
assert stream.read() == b''
q = dns.message.make_query('web.example', 'A', want_dnssec=True, use_edns=0)
r = dns.query.udp(q, '127.0.0.1', port=port, timeout=20)
assert len(r.answer[0]) == 3 and r.edns == 0, r
q = dns.message.make_query('web.example', 'A')
q.use_edns(1)
r = dns.query.udp(q, '127.0.0.1', port=port, timeout=20)
assert r.rcode() == dns.rcode.BADVERS, r
print('done')
";
    python(program, names.port);
}

#[test]
fn a_resolver_in_front_that_mixes_letters_gets_its_answers() {
    let names = Names::start(&["127.0.0.2:80", "127.0.0.3:80"], &[]);
    let directory = Directory::new();
    let port = free_port();
    let config = directory.write(
        "unbound.conf",
        &format!(
            "server:\n do-daemonize: no\n use-syslog: no\n username: \"\"\n chroot: \"\"\n \
             directory: \"{directory}\"\n pidfile: \"\"\n interface: 127.0.0.1\n port: {port}\n \
             do-not-query-localhost: no\n use-caps-for-id: yes\n qname-minimisation: yes\n \
             num-threads: 1\n module-config: \"iterator\"\n verbosity: 1\n\
             remote-control:\n control-enable: no\n\
             stub-zone:\n name: \"web.example\"\n stub-addr: 127.0.0.1@{dns}\n",
            directory = directory.path().display(),
            dns = names.port
        ),
    );
    let mut unbound = Process::start("unbound", tool("unbound").args(["-d", "-c", &config]));
    unbound.says(&["start of service"]);
    let found: BTreeSet<String> =
        dig(port, "+short web.example A").lines().map(str::to_string).collect();
    assert_eq!(found, ["127.0.0.2", "127.0.0.3"].map(String::from).into());
    assert_eq!(dig(port, "+short _http._tcp.web.example SRV").lines().count(), 2);
    assert!(dig(port, "nobody.web.example A").contains("status: NXDOMAIN"));
    names.queue.ask("withdraw?service=web&provider=127.0.0.3:80");
    until("it is gone there too", || dig(port, "+short web.example A") == "127.0.0.2\n");
}

#[test]
fn strangers_are_not_sent_much_more_than_they_send() {
    let many: Vec<String> = (1..=8).map(|n| format!("127.0.1.{n}:80")).collect();
    let providers: Vec<&str> = many.iter().map(String::as_str).collect();
    let names = Names::start(&providers, &[]);
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x03web\x07example\0\0\x01\0\x01");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(names.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let started = Instant::now();
    let (mut sent, mut received, mut truncated) = (0, 0, 0);
    let mut buffer = [0; 4096];
    for _ in 0..3000 {
        sent += socket.send(&question).unwrap();
        let count = socket.recv(&mut buffer).unwrap();
        received += count;
        if buffer[2] & 2 != 0 {
            truncated += 1;
            assert!(count <= question.len());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let more = received.saturating_sub(sent) as f64;
    assert!(more <= 16_000.0 * (seconds + 1.0) + 200.0, "{more} bytes more in {seconds} s");
    // Unless the machine was very slow.
    assert!(truncated > 0 || seconds > 20.0);
    assert_eq!(names.short("+tcp web.example A").len(), 8, "who proves its address has all");
    let granted = names.granted();
    assert!(granted <= 3000 - truncated + 1, "{granted}: a truncated answer costs no ticket");
}

#[test]
fn garbage_and_silent_connections_disturb_nobody() {
    let mut names = Names::start(&["127.0.0.2:80"], &[]);
    let mut random = Random::told();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut silent: Vec<TcpStream> = Vec::new();
    for round in 0..2000 {
        let mut bytes: Vec<u8> = (0..random.below(80)).map(|_| random.next() as u8).collect();
        if bytes.len() > 12 && round % 2 == 0 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        }
        socket.send_to(&bytes, names.address()).unwrap();
        if round % 10 == 0 {
            let mut stream = TcpStream::connect(names.address()).unwrap();
            let _ = stream.write_all(&bytes);
            silent.push(stream);
        }
    }
    assert_eq!(names.short("+tcp web.example A"), ["127.0.0.2"]);
    assert_eq!(names.short("+notcp web.example A"), ["127.0.0.2"]);
    // None stays for ever, and there are never more than the bound.
    let connections = || names.redirect.descriptors();
    assert!(connections() < 200 + 64, "{}", connections());
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    names.redirect.idles();
    assert!(names.redirect.runs());
}

#[test]
fn a_load_of_questions_is_answered() {
    let names = Names::start(&["127.0.0.2:80"], &[]);
    let directory = Directory::new();
    let questions = directory.write("questions", "web.example A\nweb.example AAAA\n");
    let port = names.port.to_string();
    let mut dnsperf = tool("dnsperf");
    let arguments = ["-s", "127.0.0.1", "-p", &port, "-d", &questions, "-n", "500", "-t", "20"];
    let text = output(dnsperf.args(arguments).args(["-q", "20"]));
    assert!(text.contains("Queries completed:    1000 (100.00%)"), "{text}");
}
