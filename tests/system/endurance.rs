//! Peers that misbehave within what the queue lets them do: they delay, crowd out and
//! impersonate nobody.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::Queue;
use crate::support::socket::connect_from;
use crate::support::until;
use std::net::{Ipv4Addr, SocketAddr};

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
