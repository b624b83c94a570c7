//! Encrypted control connections: what a wire shows, what a key allows, and how keys
//! change while the cluster runs.

use crate::support::keyed::{framed, opening, rest, secret_of, KeyedPeer, Keys, Wiretap};
use crate::support::pegasus::{command, monitor, pegasus, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::connect_from;
use crate::support::visits::{visit, Visits};
use crate::support::{until, PATIENCE};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const CLOSED: [&str; 4] =
    ["queue_allow_ticket=", "queue_allow_next=", "queue_allow_status=", "queue_allow_drain="];
const TICKET: &str = "ticket?provider=127.0.0.1:80&service=web&tickets=9&capacity=9&lease=10m";

fn keys() -> Keys {
    Keys::of(&[
        &["provider", "web3", "--addr", "127.0.0.0/29", "-s", "web"],
        &["balancer", "lb1"],
        &["observer", "ops"],
    ])
}

/// A queue that takes no plain word.
#[track_caller]
fn queue(keys: &Keys) -> Queue {
    let file = keys.setting("keys");
    let settings: Vec<&str> = CLOSED.into_iter().chain([file.as_str()]).collect();
    Queue::start(&settings)
}

#[track_caller]
fn connect(queue: SocketAddr, keys: &Keys, name: &str) -> KeyedPeer {
    KeyedPeer::connect(queue, name, &keys.secret(name)).unwrap()
}

#[track_caller]
fn status(queue: SocketAddr, keys: &Keys) -> String {
    let mut peer = connect(queue, keys, "ops");
    let mut text = peer.ask("status").unwrap();
    while !text.ends_with("\n.") {
        text.push('\n');
        text.push_str(&peer.hear().unwrap());
    }
    text
}

fn refusals(queue: SocketAddr, keys: &Keys) -> u64 {
    let text = status(queue, keys);
    let number = text.split([' ', '\n']).find_map(|word| word.strip_prefix("unproved="));
    number.unwrap().parse().unwrap()
}

#[track_caller]
fn reload(process: &Process) {
    let before = process.log_with(&["[config]"]).len();
    process.signal(libc::SIGHUP);
    until("it was read again", || process.log_with(&["[config]"]).len() > before);
}

#[test]
fn each_key_may_do_what_its_role_and_its_networks_say() {
    let keys = keys();
    let queue = queue(&keys);
    let mut web = connect(queue.address, &keys, "web3");
    let mut balancer = connect(queue.address, &keys, "lb1");
    let mut ops = connect(queue.address, &keys, "ops");
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    assert_eq!(balancer.ask("next?service=web").unwrap(), "127.0.0.1:80");
    assert!(ops.ask("status").unwrap().starts_with("queue "));
    for (name, message) in [
        ("web3", "next?service=web"),
        ("web3", "status"),
        ("lb1", TICKET),
        ("lb1", "failure?provider=127.0.0.2:80&service=web"),
    ] {
        let peer = if name == "web3" { &mut web } else { &mut balancer };
        assert!(peer.ask(message).unwrap().starts_with("error denied"), "{message}");
    }
    let outside = TICKET.replace("127.0.0.1:80", "127.0.0.9:80");
    assert!(web.ask(&outside).unwrap().starts_with("error denied outside addr="));
    let other = TICKET.replace("=web", "=mail");
    assert!(web.ask(&other).unwrap().starts_with("error denied outside service="));
    assert!(queue.ask("next?service=web").starts_with("error denied"), "plain");
    let text = status(queue.address, &keys);
    assert!(text.contains("address=127.0.0.1:80") && text.contains(" key=web3 "), "{text}");
    until("it is told", || !queue.log_with(&["key=web3", "role=provider"]).is_empty());
}

/// What a program answers to a GET.
#[track_caller]
fn get(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    String::from_utf8(rest(stream)).unwrap()
}

#[test]
fn whatever_tells_of_a_provider_tells_its_key() {
    let keys = keys();
    let file = keys.setting("keys");
    let admin = "queue_admin=127.0.0.1:0";
    let mut queue = Queue::start(&[&file, admin, "queue_allow_ticket="]);
    let line = queue.says(&["[admin] serves http://"]);
    let admin = line.rsplit('/').find_map(|word| word.parse().ok()).unwrap();
    let mut web = connect(queue.address, &keys, "web3");
    let mut balancer = connect(queue.address, &keys, "lb1");
    let registered = ["registered service=web provider=127.0.0.1:80 key=web3"];
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    queue.says(&registered);
    for (path, told) in [
        ("/", "; by key web3</td>"),
        ("/", "127.0.0.1:80 registered (key web3)"),
        ("/status", " key=web3 "),
        ("/status.json", "\"key\":\"web3\""),
    ] {
        until(told, || get(admin, path).contains(told));
    }
    let (status, table, errors) = pegasus(&["status", &queue.address.to_string()]);
    assert_eq!(status, 0, "{errors}");
    assert!(table.contains("; by key web3"), "{table}");

    assert_eq!(balancer.ask("next?service=web").unwrap(), "127.0.0.1:80");
    let failure = "failure?provider=127.0.0.1:80&service=web";
    assert!(balancer.ask(failure).unwrap().starts_with("ok"));
    queue.says(&["WARN", "failed service=web provider=127.0.0.1:80 key=web3"]);
    let other = TICKET.replace("127.0.0.1:80", "127.0.0.2:80");
    assert!(web.ask(&other).unwrap().starts_with("ok "));
    keys.write("keys", &keys.without("web3"));
    reload(&queue);
    queue.says(&["withdrew service=web provider=127.0.0.2:80 key=web3"]);
}

#[test]
fn a_key_that_is_used_from_two_addresses_is_told_once() {
    let keys = Keys::of(&[&["provider", "web3", "--addr", "127.0.0.0/8"], &["observer", "ops"]]);
    let mut queue = queue(&keys);
    let SocketAddr::V4(to) = queue.address else { unreachable!() };
    let from = |host: u8| {
        let stream = connect_from(Ipv4Addr::new(127, 0, 0, host), to);
        KeyedPeer::over(stream, "web3", &keys.secret("web3")).unwrap()
    };
    // Two connections of one address are usual: a host that upgrades, or has threads.
    let _held = [from(2), from(2), from(3), from(2), from(3), from(4)];
    let told = ["WARN", "key=web3 is used from 127.0.0.2 and from 127.0.0.3"];
    queue.says(&told);
    until("all have come", || queue.log_with(&["connected", "key=web3"]).len() == 6);
    assert_eq!(queue.log_with(&["WARN", "key=web3"]).len(), 1, "{:#?}", queue.log());
}

#[test]
fn an_operator_with_a_key_drains_a_provider_and_an_observer_may_not() {
    let keys = Keys::of(&[
        &["provider", "web3", "--addr", "127.0.0.0/29", "-s", "web"],
        &["balancer", "lb1"],
        &["observer", "ops"],
        &["operator", "chief"],
    ]);
    let queue = queue(&keys);
    let address = queue.address.to_string();
    let mut web = connect(queue.address, &keys, "web3");
    let mut balancer = connect(queue.address, &keys, "lb1");
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    let drain = "drain?provider=127.0.0.1:80";
    let denied = connect(queue.address, &keys, "ops").ask(drain).unwrap();
    assert!(denied.starts_with("error denied"), "{denied}");
    assert!(queue.ask(drain).starts_with("error denied"), "plain");
    let own = keys.client("operator", "chief");
    let operate = |name: &str, words: &[&str]| {
        let mut command = command(name, &[&own]);
        let (status, out, err) = run(command.args(words).arg(&address), b"");
        assert_eq!(status, 0, "{name}: {out}{err}");
        out
    };
    operate("drain", &["127.0.0.1:80"]);
    assert!(balancer.ask("next?service=web").unwrap().starts_with("error no-ticket"));
    assert!(operate("status", &[]).contains("drained"));
    operate("resume", &["127.0.0.1:80"]);
    assert_eq!(balancer.ask("next?service=web").unwrap(), "127.0.0.1:80");
}

#[test]
fn a_wire_shows_the_name_of_the_key_and_nothing_else() {
    let keys = keys();
    let queue = queue(&keys);
    let tap = Wiretap::before(queue.address);
    let provider = Provider::echo();
    let web = keys.client("provider", "web3");
    let _monitor = monitor(tap.address, provider.address, &[&web]);
    let balancer = keys.client("balancer", "lb1");
    let redirect = Redirect::start(tap.address, &[&balancer]);
    for turn in 0..20 {
        visit(redirect.address, &format!("turn {turn}")).unwrap();
    }
    let mut names: Vec<String> = Vec::new();
    for (sent, answered) in tap.passed() {
        let end = sent.iter().position(|byte| *byte == b'\n').unwrap();
        names.push(String::from_utf8_lossy(&sent[..end]).into_owned());
        let shown = [&sent[end..], &answered].concat();
        let port = provider.address.port().to_string();
        for word in ["web", "pegasus", "127.0.0.1", &port, "tickets", "lb1", "error", "next"] {
            let seen = shown.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!seen, "{word} can be read on the wire");
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names, ["secure NNpsk0 lb1", "secure NNpsk0 web3"]);
}

#[test]
fn a_recorded_connection_is_refused_and_counted() {
    let keys = keys();
    let queue = queue(&keys);
    let tap = Wiretap::before(queue.address);
    let mut peer = connect(tap.address, &keys, "web3");
    assert!(peer.ask(TICKET).unwrap().starts_with("ok "));
    let withdraw = "withdraw?provider=127.0.0.1:80&service=web";
    assert!(peer.ask(withdraw).unwrap().starts_with("ok "));
    let (recorded, _) = tap.passed().remove(0);
    assert!(peer.ask(TICKET).unwrap().starts_with("ok "));
    let mut replay = TcpStream::connect(queue.address).unwrap();
    replay.set_read_timeout(Some(PATIENCE)).unwrap();
    replay.write_all(&recorded).unwrap();
    rest(replay);
    until("it is counted", || refusals(queue.address, &keys) == 1);
    assert!(status(queue.address, &keys).contains(" tickets=9 "), "it withdrew nothing");
    let told = ["WARN", "refused, it does not prove a key"];
    until("it is told", || !queue.log_with(&told).is_empty());
    assert!(peer.ask(TICKET).unwrap().starts_with("ok "), "the true one goes on");
}

#[test]
fn a_flipped_bit_ends_its_connection_and_nothing_else() {
    let mut random = Random::told();
    let keys = keys();
    let queue = queue(&keys);
    let mut other = connect(queue.address, &keys, "web3");
    assert!(other.ask(TICKET).unwrap().starts_with("ok "));
    // The line, the handshake, the empty record, and one with a message.
    let message = "next?service=web&wait=0";
    let bytes =
        "secure NNpsk0 lb1\n".len() + 50 + 18 + 2 + "pegasus://b/\n".len() + message.len() + 16;
    let attempts = (0..60).map(|_| {
        let bit = random.below(8 * bytes as u64) as usize;
        let (queue, secret) = (queue.address, keys.secret("lb1"));
        thread::spawn(move || {
            let tap = Wiretap::before(queue);
            tap.flip(bit);
            let stream = TcpStream::connect(tap.address).unwrap();
            // Where the line lost its end the queue waits for it, longer than a handshake takes.
            stream.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
            let asked = KeyedPeer::over(stream, "lb1", &secret).and_then(|mut peer| {
                peer.send(format!("pegasus://b/{message}\n").as_bytes())?;
                // A flipped length makes the queue wait for more than there is.
                peer.end();
                peer.hear()
            });
            // No answer is right, whatever was flipped.
            assert!(asked.is_err(), "bit {bit}: {asked:?}");
        })
    });
    let attempts: Vec<_> = attempts.collect();
    attempts.into_iter().for_each(|attempt| attempt.join().unwrap());
    let text = status(queue.address, &keys);
    assert!(text.contains(" tickets=9 ") && text.contains(" granted=0 "), "{text}");
    assert!(other.ask(TICKET).unwrap().starts_with("ok "));
}

#[test]
fn a_key_that_does_not_exist_looks_like_a_wrong_one() {
    let keys = keys();
    let queue = queue(&keys);
    let mut took: [Vec<Duration>; 2] = Default::default();
    for _ in 0..200 {
        for (name, took) in ["web3", "web4"].into_iter().zip(&mut took) {
            let (line, message, _) = opening(name, &[3; 32]);
            let mut stream = TcpStream::connect(queue.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let bytes = [line.as_bytes(), b"\n", &framed(&message)].concat();
            let start = Instant::now();
            stream.write_all(&bytes).unwrap();
            let answer = rest(stream);
            took.push(start.elapsed());
            assert!(answer.is_empty(), "{name}: {answer:?}");
        }
    }
    took.iter_mut().for_each(|took| took.sort());
    let [wrong, unknown] = took;
    // The middle of each lies well inside of what the other took.
    for (one, other) in [(&wrong, &unknown), (&unknown, &wrong)] {
        let middle = one[one.len() / 2];
        assert!(other[10] <= middle && middle <= other[other.len() - 10], "{middle:?}");
    }
    until("they are counted", || refusals(queue.address, &keys) == 400);
}

#[test]
fn half_handshakes_are_bounded_and_stall_no_honest_peer() {
    // No key is bound to addresses of the test: all its peers are strangers.
    let keys = Keys::of(&[
        &["provider", "web3", "--addr", "10.0.0.0/8"],
        &["balancer", "lb1"],
        &["observer", "ops"],
    ]);
    const TICKET: &str = "ticket?provider=10.0.0.1:80&tickets=9&capacity=9&lease=10m";
    let queue = queue(&keys);
    let mut old = connect(queue.address, &keys, "web3");
    let opened = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let flood = || {
        let (opened, over, secret) = (opened.clone(), over.clone(), keys.secret("lb1"));
        let queue = queue.address;
        thread::spawn(move || {
            let mut held = Vec::new();
            while opened.fetch_add(1, Ordering::SeqCst) < 10_000 && !over.load(Ordering::SeqCst) {
                let Ok(mut stream) = TcpStream::connect(queue) else { continue };
                let (line, message, _) = opening("lb1", &secret);
                // Half of them cost the queue a whole answer.
                let bytes = [line.as_bytes(), b"\n", &framed(&message)].concat();
                let length = if held.len() % 2 == 0 { bytes.len() } else { bytes.len() - 9 };
                let _ = stream.write_all(&bytes[..length]);
                held.push(stream);
                if held.len() > 400 {
                    held.drain(..200);
                }
            }
        })
    };
    let threads: Vec<_> = (0..2).map(|_| flood()).collect();
    let mut newcomers = 0;
    while opened.load(Ordering::SeqCst) < 10_000 {
        assert!(old.ask(TICKET).unwrap().starts_with("ok "));
        // From another host than the flood.
        let SocketAddr::V4(to) = queue.address else { unreachable!() };
        let stream = connect_from(Ipv4Addr::new(127, 0, 0, 2), to);
        let fresh = KeyedPeer::over(stream, "web3", &keys.secret("web3"));
        let answer = fresh.and_then(|mut fresh| fresh.ask(TICKET));
        assert!(answer.is_ok_and(|answer| answer.starts_with("ok ")), "newcomer {newcomers}");
        newcomers += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(newcomers > 3, "{newcomers} honest newcomers during 10,000 half handshakes");
    let text = status(queue.address, &keys);
    let connections = text.split(' ').find_map(|word| word.strip_prefix("connections="));
    let connections: usize = connections.unwrap().parse().unwrap();
    assert!(connections <= 64 + 4, "{connections}");
}

#[test]
fn a_removed_key_ends_its_sessions_and_a_bad_file_changes_nothing() {
    let keys = keys();
    let queue = queue(&keys);
    let mut web = connect(queue.address, &keys, "web3");
    let mut balancer = connect(queue.address, &keys, "lb1");
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    keys.write("keys", &format!("{}lb1=\"balancer 12\"\n", keys.without("lb1")));
    reload(&queue);
    let complaint = "keys:3: lb1: the secret has 2 characters instead of 64 digits";
    until("it is logged", || !queue.log_with(&["ERROR", complaint]).is_empty());
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    assert_eq!(balancer.ask("next?service=web").unwrap(), "127.0.0.1:80");
    keys.write("keys", &keys.without("web3"));
    reload(&queue);
    assert!(web.hear().is_err(), "its session ends");
    assert!(balancer.ask("next?service=web").unwrap().starts_with("error no-ticket"));
    assert!(KeyedPeer::connect(queue.address, "web3", &keys.secret("web3")).is_err());
    assert!(!status(queue.address, &keys).contains("127.0.0.1:80"), "and its tickets go");
}

#[test]
fn a_file_that_others_can_read_is_refused_with_what_to_type() {
    use std::os::unix::fs::PermissionsExt;
    let keys = keys();
    let path = keys.directory.file("keys");
    let file = keys.setting("keys");
    for (mode, good) in
        [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false)]
    {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (status, _, errors) = run(command("queue", &[&file]).arg("-t"), b"");
        assert_eq!(status, if good { 0 } else { 78 }, "{mode:o}: {errors}");
        assert!(good || errors.contains(&format!("chmod 0640 {path}")), "{errors}");
    }
}

#[test]
fn a_client_with_a_key_never_speaks_plain() {
    let keys = keys();
    let queue = Queue::start(&[]);
    let tap = Wiretap::before(queue.address);
    let web = keys.client("provider", "web3");
    let url = format!("pegasus://{}/{TICKET}", tap.address);
    let (status, out, errors) = pegasus(&["send", "-c", "/dev/null", "-o", &web, &url]);
    assert_eq!((status, out.as_str()), (69, ""), "{errors}");
    let settings = [web.as_str()];
    let provider = format!("service_web_provider={}", Provider::echo().address);
    let balancers = format!("monitor_balancers={}", tap.address);
    let settings: Vec<&str> = settings.into_iter().chain([provider.as_str(), &balancers]).collect();
    let mut monitor = Process::start("monitor", &mut command("monitor", &settings));
    monitor.says(&["WARN", "in the handshake with key web3"]);
    until("it tries again", || tap.passed().len() > 2);
    let line = b"secure NNpsk0 web3\n";
    for (sent, _) in tap.passed() {
        // The newest one may be on its way.
        let shown = sent.len().min(line.len());
        assert_eq!(sent[..shown], line[..shown]);
        assert!(sent.len() <= line.len() + 50, "nothing follows the handshake");
    }
}

#[test]
fn plain_peers_are_those_of_the_lists_beside_the_keys() {
    let keys = keys();
    let file = keys.setting("keys");
    let queue = Queue::start(&[&file, "queue_allow_ticket=", "queue_allow_next=127.0.0.1/32"]);
    assert!(queue.ask(TICKET).starts_with("error denied"));
    let mut web = connect(queue.address, &keys, "web3");
    assert!(web.ask(TICKET).unwrap().starts_with("ok "));
    assert_eq!(queue.ask("next?service=web"), "127.0.0.1:80");
    // A key says what its peer may, the lists no more.
    assert!(web.ask("next?service=web").unwrap().starts_with("error denied"));
}

/// Whether each thread of a process can gain no privileges by running a program.
fn is_restricted(process: &Process) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let statuses = threads
        .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    statuses.fold(true, |all, status| all & status.contains("NoNewPrivs:\t1\n"))
}

#[test]
fn a_daemon_gives_up_what_it_never_needs_unless_a_command_is_configured() {
    let queue = Queue::start(&[]);
    assert!(is_restricted(&queue));
    let redirect = Redirect::start(queue.address, &["redirect_threads=2"]);
    assert!(is_restricted(&redirect));
    let commands = Queue::start(&["queue_scheduler=exec:/bin/cat"]);
    assert!(!is_restricted(&commands));
}

/// A cluster whose queue, monitor and redirector have a configuration file each.
struct Cluster {
    keys: Keys,
    queue: Queue,
    monitor: Process,
    redirect: Redirect,
    /// What the files say besides their keys.
    plain: [String; 3],
}

/// Of the redirector; each has a connection to the queue.
const THREADS: usize = 2;
const NAMES: [&str; 3] = ["queue.conf", "monitor.conf", "redirect.conf"];

impl Cluster {
    #[track_caller]
    fn start(provider: SocketAddr, with_keys: bool) -> Cluster {
        let keys = keys();
        let lists = CLOSED.join("\n") + "\n";
        let plain = [
            "queue_listen=127.0.0.1:0\n".to_string(),
            format!("service_web_provider={provider}\nmonitor_interval=100ms\n"),
            format!("service_web_listen=127.0.0.1:0\nredirect_threads={THREADS}\n"),
        ];
        let own =
            [keys.setting("keys"), keys.client("provider", "web3"), keys.client("balancer", "lb1")];
        let path = |index: usize| keys.directory.file(NAMES[index]);
        let text = |index: usize, more: &str| {
            let keyed = if with_keys { own[index].as_str() } else { "" };
            let lists = if with_keys && index == 0 { lists.as_str() } else { "" };
            keys.write(NAMES[index], &format!("{}{more}{keyed}\n{lists}", plain[index]));
        };
        let program = |name: &str, index: usize| {
            let mut command = crate::support::pegasus::program();
            command.args([name, "-c", &path(index)]);
            command
        };
        text(0, "");
        let queue = Queue::of(&mut program("queue", 0));
        text(1, &format!("monitor_balancers={}\n", queue.address));
        text(2, &format!("redirect_queue={}\n", queue.address));
        let mut monitor = Process::start("monitor", &mut program("monitor", 1));
        monitor.says(&["[monitor] ready "]);
        let redirect = Redirect::of(&mut program("redirect", 2));
        let plain = [
            plain[0].clone(),
            format!("{}monitor_balancers={}\n", plain[1], queue.address),
            format!("{}redirect_queue={}\n", plain[2], queue.address),
        ];
        Cluster { keys, queue, monitor, redirect, plain }
    }

    /// Writes what a file says besides the usual.
    fn write(&self, index: usize, more: &str) {
        self.keys.write(NAMES[index], &format!("{}{more}\n", self.plain[index]));
    }
}

/// The order of steps that `pegasus help security` gives.
#[test]
fn a_secret_is_rotated_under_load_without_a_refusal() {
    let provider = Provider::echo();
    let cluster = Cluster::start(provider.address, true);
    let Cluster { keys, queue, monitor, redirect, .. } = &cluster;
    let visits = Visits::start(redirect.address, 4);
    until("some visits", || visits.count() > 50);
    for name in ["web3", "lb1"] {
        let (role, process): (_, &Process) =
            if name == "web3" { ("provider", monitor) } else { ("balancer", redirect) };
        let old = std::fs::read_to_string(keys.directory.file("keys")).unwrap();
        let (status, line, errors) =
            pegasus(&["key", "--rotate", name, "-o", &keys.setting("keys")]);
        assert_eq!(status, 0, "{errors}");
        assert_ne!(secret_of(&line), keys.secret(name));
        // 1. The queue knows both, 2. the client uses the new one, 3. the old one goes.
        keys.write("keys", &format!("{old}{line}"));
        reload(queue);
        keys.client(role, name);
        let sessions = queue.log_with(&["connected", &format!("key={name} ")]).len();
        reload(process);
        until("it came with the new secret", || {
            // Each thread of the client has a connection.
            queue.log_with(&["connected", &format!("key={name} ")]).len() >= 2 * sessions
        });
        let without: String = old
            .lines()
            .filter(|old| !old.starts_with(&format!("{name}=")))
            .map(|line| format!("{line}\n"))
            .collect();
        keys.write("keys", &format!("{without}{line}"));
        let before = visits.count();
        reload(queue);
        until("more visits", || visits.count() > before + 100);
        assert!(KeyedPeer::connect(queue.address, name, &keys.secret(name)).is_err());
    }
    assert_eq!(visits.end(), Vec::<String>::new());
    let text = status(queue.address, keys);
    assert!(text.contains(" refused=0 "), "{text}");
    assert!(queue.log_with(&["lease-ended"]).is_empty(), "no ticket was missed");
    assert!(queue.log_with(&["session ends"]).is_empty(), "no session was cut");
}

/// The order of steps that `pegasus help security` gives.
#[test]
fn a_plain_cluster_gets_keys_without_a_gap() {
    let provider = Provider::echo();
    let cluster = Cluster::start(provider.address, false);
    let Cluster { keys, queue, monitor, redirect, .. } = &cluster;
    let visits = Visits::start(redirect.address, 4);
    until("some visits", || visits.count() > 50);
    cluster.write(0, &keys.setting("keys"));
    reload(queue);
    cluster.write(1, &keys.setting("web3.key"));
    reload(monitor);
    cluster.write(2, &keys.setting("lb1.key"));
    reload(redirect);
    until("all came with their keys", || {
        let sessions = |key: &str| queue.log_with(&["connected", key]).len();
        sessions("key=web3 ") == 1 && sessions("key=lb1 ") == THREADS
    });
    cluster.write(0, &format!("{}\n{}", keys.setting("keys"), CLOSED.join("\n")));
    reload(queue);
    let before = visits.count();
    until("more visits", || visits.count() > before + 200);
    assert_eq!(visits.end(), Vec::<String>::new());
    assert!(queue.ask("next?service=web").starts_with("error denied"));
    let text = status(queue.address, keys);
    assert!(text.contains(" refused=0 ") && text.contains(" key=web3 "), "{text}");
    assert!(queue.log_with(&["lease-ended"]).is_empty(), "no ticket was missed");
}
