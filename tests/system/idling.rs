//! Idle processes use no processor time, in whatever state their sockets are.

use crate::support::pegasus::{closed_address, monitor, Balancer, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::socket::connect;
use crate::support::until;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Waits for the client's end, or longer than a test takes; never replies.
fn silent() -> Provider {
    Provider::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())))
}

#[test]
fn with_clients_who_say_nothing() {
    let provider = silent();
    let balancer = Balancer::before(&[provider.address], &[]);
    let _clients: Vec<TcpStream> = (0..20).map(|_| connect(balancer.address())).collect();
    until("all are joined", || provider.clients() == 20);
    balancer.redirect.idles();
    balancer.queue.idles();
}

#[test]
fn with_clients_who_ended_their_side() {
    let (go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let provider = Provider::start(move |stream| {
        let _ = held.lock().map(|held| held.recv());
        drop(stream);
    });
    let balancer = Balancer::before(&[provider.address], &[]);
    let client = connect(balancer.address());
    client.shutdown(Shutdown::Write).unwrap();
    until("it is joined", || provider.clients() == 1);
    balancer.redirect.idles();
    drop(go);
}

#[test]
fn with_clients_who_wait_for_a_ticket_and_ended_their_side() {
    let balancer = Balancer::before(&[], &["redirect_wait=20s"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(balancer.address())).collect();
    clients[0].shutdown(Shutdown::Write).unwrap();
    clients[1].write_all(b"hello").unwrap();
    until("all wait", || balancer.queue.status().queue().number("waiting") == 3);
    balancer.redirect.idles();
    balancer.queue.idles();
}

#[test]
fn with_a_client_who_does_not_read() {
    for splice in ["redirect_splice=auto", "redirect_splice=off"] {
        let provider =
            Provider::start(|mut stream| while stream.write_all(&[b'x'; 65_536]).is_ok() {});
        let balancer = Balancer::before(&[provider.address], &[splice]);
        let _client = connect(balancer.address());
        until("it is joined", || provider.clients() == 1);
        // The pipes are full when no more processor time is used.
        until("all is full", || {
            let before = balancer.redirect.used();
            std::thread::sleep(Duration::from_millis(200));
            balancer.redirect.used() - before < Duration::from_millis(10)
        });
        balancer.redirect.idles();
    }
}

#[test]
fn with_a_provider_who_does_not_read() {
    for splice in ["redirect_splice=auto", "redirect_splice=off"] {
        let (go, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let provider = Provider::start(move |stream| {
            let _ = held.lock().map(|held| held.recv());
            drop(stream);
        });
        let balancer = Balancer::before(&[provider.address], &[splice]);
        let mut client = connect(balancer.address());
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let full = loop {
            if let Err(error) = client.write_all(&[b'x'; 65_536]) {
                break error.kind();
            }
        };
        assert_eq!(full, ErrorKind::WouldBlock);
        balancer.redirect.idles();
        drop(go);
    }
}

#[test]
fn without_a_queue() {
    let mut redirect = Redirect::start(closed_address(), &["redirect_queue_timeout=20s"]);
    redirect.says(&["trying again"]);
    let _client = connect(redirect.address);
    redirect.idles();
}

#[test]
fn a_queue_with_an_unfinished_line_and_an_unread_answer() {
    let queue = Queue::start(&[]);
    let mut unfinished = queue.connect();
    let mut unread = queue.connect();
    unfinished.write(b"pegasus://b/ne").unwrap();
    let text = "pegasus://b/status\n".repeat(100);
    // As much as fits: the queue stops reading while its replies are not read.
    unread.patience(Duration::from_millis(300));
    while unread.write(text.as_bytes()).is_ok() {}
    queue.idles();
    unfinished.write(b"xt\n").unwrap();
    assert_eq!(unfinished.hear(), "error no-ticket");
}

#[test]
fn a_monitor_between_its_looks() {
    let queue = Queue::start(&[]);
    let provider = silent();
    let monitor = monitor(queue.address, provider.address, &[]);
    queue.has(&[provider.address]);
    monitor.idles();
    queue.idles();
}

#[test]
fn a_monitor_without_a_queue() {
    let provider = silent();
    let queue = closed_address();
    let mut monitor = monitor(queue, provider.address, &[]);
    monitor.says(&["WARN", "trying again"]);
    monitor.idles();
}
