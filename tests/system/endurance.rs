//! Peers that misbehave within what the queue lets them do: they delay, crowd out and
//! impersonate nobody.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{pegasus, Queue, Redirect};
use crate::support::process::run;
use crate::support::socket::connect_from;
use crate::support::{tool, until, PATIENCE};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::thread;

/// The only host that the lists of [`closed_queue`] name.
const KNOWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A queue to which all hosts but one are strangers.
fn closed_queue(settings: &[&str]) -> Queue {
    let lists =
        ["ticket", "next", "status", "drain"].map(|list| format!("queue_allow_{list}={KNOWN}/32"));
    let settings: Vec<&str> =
        lists.iter().map(String::as_str).chain(settings.iter().copied()).collect();
    Queue::start(&settings)
}

fn from(source: Ipv4Addr, queue: &Queue) -> ControlConnection {
    let SocketAddr::V4(to) = queue.address else { unreachable!() };
    ControlConnection::over(connect_from(source, to))
}

#[test]
fn strangers_are_denied_and_closed_and_keep_nobody_out() {
    let queue = closed_queue(&["queue_connections_max=100"]);
    let mut denied = queue.connect();
    assert!(denied.ask("status").starts_with("error denied"));
    assert_eq!(denied.hear(), "", "it is closed");
    let mut old = from(KNOWN, &queue);
    // Silent ones, ones that begin a line, and ones that are denied; of five hosts.
    let mut strangers = Vec::new();
    for number in 0..250 {
        let mut stranger = from(Ipv4Addr::new(127, 0, 1, number % 5), &queue);
        match number % 3 {
            0 => {}
            1 => drop(stranger.write(b"pegasus://b/ne")),
            _ => drop(stranger.write(b"pegasus://b/next\n")),
        }
        strangers.push(stranger);
    }
    let mut known: Vec<ControlConnection> = (0..98).map(|_| from(KNOWN, &queue)).collect();
    for line in &mut known {
        assert_eq!(line.ask("next"), "error no-ticket", "a stranger made room");
    }
    until("the strangers are gone", || old.status().queue().number("connections") <= 99);
}

#[test]
fn what_a_browser_sends_is_not_obeyed() {
    let queue = Queue::start(&[]);
    queue.offer("10.0.0.7:80", 5);
    let mut browser = queue.connect();
    let body = "pegasus://b/withdraw?provider=10.0.0.7:80&service=web\n";
    let head = "POST / HTTP/1.1\r\nHost: 127.0.0.1:7347\r\n\r\n";
    let _ = browser.write(format!("{head}{body}").as_bytes());
    assert!(browser.hear().starts_with("error bad-url"));
    assert_eq!(browser.hear(), "", "it is closed");
    assert_eq!(queue.status().tickets("10.0.0.7:80"), 5);
}

#[test]
fn a_peer_that_asks_without_end_delays_nobody_to_its_end() {
    const FLOOD: usize = 100_000;
    let queue = Queue::start(&[]);
    let providers: Vec<String> = (1..=16).map(|number| format!("10.0.0.{number}")).collect();
    for provider in &providers {
        queue.offer(provider, 1000);
    }
    let mut honest = queue.connect();
    let [mut picky, mut curious] = [queue.connect(), queue.connect()];
    let avoiding = providers.join(",");
    let flood = thread::scope(|scope| {
        let flood = scope.spawn(move || {
            let line = format!("pegasus://b/next?service=web&wait=1ms&avoid={avoiding}\n");
            picky.write(line.repeat(1000).as_bytes()).unwrap();
            let line = "pegasus://b/status\n".repeat(FLOOD / 100);
            curious.write(line.as_bytes()).unwrap();
            for _ in 0..1000 {
                assert_eq!(picky.hear(), "error no-ticket");
            }
            (0..).map(|_| curious.hear()).filter(|line| line == ".").take(FLOOD / 100).count()
        });
        let mut answered = 0;
        while !flood.is_finished() {
            assert!(honest.ask("next?service=web&id=1").ends_with(" id=1"));
            assert_eq!(honest.ask("done?id=1"), "ok");
            answered += 1;
        }
        assert!(answered > 20, "{answered} requests were answered meanwhile");
        flood.join().unwrap()
    });
    assert_eq!(flood, FLOOD / 100);
}

#[test]
fn the_source_with_by_far_the_most_connections_makes_room() {
    let mut queue = Queue::start(&["queue_connections_max=60"]);
    let mut greedy: Vec<ControlConnection> = (0..60).map(|_| queue.connect()).collect();
    for line in &mut greedy {
        assert_eq!(line.ask("next"), "error no-ticket");
    }
    for number in 0..10 {
        let mut newcomer = from(KNOWN, &queue);
        assert_eq!(newcomer.ask("next"), "error no-ticket", "newcomer {number}");
    }
    assert_eq!(greedy[0].ask("next"), "error no-ticket", "its older ones stay");
    queue.says(&["bounds connections=60", "MiB"]);
}

#[test]
fn one_program_schedules_for_all_services_of_its_command_and_for_none_that_nobody_offers() {
    let program =
        format!("queue_scheduler=exec:'{}/conf/plugins/first.sh'", env!("CARGO_MANIFEST_DIR"));
    let queue = Queue::start(&[&program, "queue_plugin_timeout=10m", "queue_services_max=2"]);
    let children = || run(tool("pgrep").args(["-P", &queue.id().to_string()]), b"").1;
    let mut waiting = queue.connect();
    for number in 0..50 {
        waiting.say(&format!("next?service=s{number}&wait=30s&id={}", number + 1));
    }
    until("all wait", || queue.status().queue().number("waiting") == 50);
    assert_eq!(children(), "");
    for service in ["a", "b"] {
        for provider in ["10.0.0.2", "10.0.0.1"] {
            let offer =
                format!("ticket?service={service}&provider={provider}&tickets=9&capacity=9");
            assert!(queue.ask(&offer).starts_with("ok "));
        }
    }
    for service in ["a", "b", "a", "b"] {
        let next = format!("next?service={service}");
        until("the program chooses", || queue.ask(&next) == "10.0.0.1");
    }
    assert_eq!(children().lines().count(), 1);
    assert!(queue.ask("ticket?service=c&tickets=1&capacity=1").starts_with("error busy"));
}

/// A queue of the test's own, which answers the first line of each connection with these
/// bytes and closes it; the receiver hears of each connection.
fn fake_queue(
    greeting: &'static [u8],
    answer: &'static [u8],
) -> (SocketAddr, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (came, connections) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let _ = stream.write_all(greeting);
            if !answer.is_empty() {
                let mut line = String::new();
                let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
                let _ = stream.write_all(answer);
            }
            if came.send(()).is_err() {
                break;
            }
        }
    });
    (address, connections)
}

#[test]
fn a_queue_that_is_full_is_not_hammered_and_its_reason_is_logged_once() {
    let (full, connections) = fake_queue(b"error busy too many connections\n", b"");
    let mut redirect = Redirect::start(full, &["redirect_threads=1"]);
    redirect.says(&["WARN", "too many connections", "trying again"]);
    for _ in 0..5 {
        connections.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(redirect.log_with(&["is back"]).len(), 0, "{:?}", redirect.log());
    assert_eq!(redirect.log_with(&["WARN"]).len(), 1, "{:?}", redirect.log());
}

#[test]
fn what_another_queue_answers_reaches_a_terminal_as_printable_ascii() {
    let (other, _connections) = fake_queue(b"", b"ok \x1b[2Jx\x9b\xc3\xa9\n");
    let (status, out, _) = pegasus(&["send", &format!("pegasus://{other}/next")]);
    assert_eq!((status, out.as_str()), (0, "ok ?[2Jx??\n"));
}
