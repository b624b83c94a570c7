//! Very many connections.

use crate::support::control_connection::ControlConnection;
use crate::support::pegasus::{path, Balancer, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, raise_descriptors, End};
use crate::support::{tool, until};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// What an idle connection may cost the queue, in bytes.
const BYTES_EACH: u64 = 4096;

#[test]
fn thousands_of_idle_connections_stop_nobody() {
    let count = 5000.min(raise_descriptors().saturating_sub(500)) as u64;
    let queue = Queue::start(&["queue_connections_max=6000"]);
    let descriptors = queue.descriptors();
    let memory = queue.memory();
    queue.ask("ticket?provider=10.0.0.7&tickets=1000&capacity=1000");
    until("the first is gone", || queue.status().queue().number("connections") == 1);
    let idle: Vec<TcpStream> =
        (0..count).map(|_| TcpStream::connect(queue.address).unwrap()).collect();
    let mut line = queue.connect();
    until("all are counted", || line.status().queue().number("connections") == count + 1);
    for _ in 0..100 {
        assert_eq!(line.ask("next"), "10.0.0.7");
    }
    let grown = (queue.memory().saturating_sub(memory)) * 1024;
    assert!(grown < 1024 * 1024 + count * BYTES_EACH, "{grown} bytes for {count} connections");
    drop((idle, line));
    until("all descriptors are closed", || queue.descriptors() == descriptors);
}

fn crowd(queue: &Queue, count: usize) -> Vec<ControlConnection> {
    let mut lines: Vec<ControlConnection> = (0..count).map(|_| queue.connect()).collect();
    for line in &mut lines {
        assert_eq!(line.ask("next"), "error no-ticket");
    }
    lines
}

#[test]
fn one_beyond_the_limit_is_told_so_and_closed() {
    let queue = Queue::start(&["queue_connections_max=100"]);
    let mut lines = crowd(&queue, 100);
    let mut late = queue.connect();
    assert!(late.hear().starts_with("error busy"));
    assert_eq!(late.hear(), "");
    assert_eq!(lines[0].ask("next"), "error no-ticket", "those who came earlier stay");
    drop(lines.pop());
    until("there is room again", || !queue.ask("next").starts_with("error busy"));
}

#[test]
fn whoever_never_asked_anything_makes_room() {
    let queue = Queue::start(&["queue_connections_max=100"]);
    let mut silent = queue.connect();
    let mut lines = crowd(&queue, 99);
    until("a newcomer is served", || queue.ask("next") == "error no-ticket");
    assert!(silent.hear().starts_with("error busy"));
    assert_eq!(silent.hear(), "");
    assert!(lines.iter_mut().all(|line| line.ask("next") == "error no-ticket"));
}

#[test]
fn ten_thousand_connections_one_after_the_other_leave_nothing_behind() {
    let queue = Queue::start(&[]);
    let before = queue.descriptors();
    queue.ask("ticket?provider=10.0.0.7&tickets=1000000&capacity=1000000&lease=10m");
    for _ in 0..10_000 {
        assert_eq!(queue.ask("next"), "10.0.0.7");
    }
    until("all descriptors are closed", || queue.descriptors() == before);
    assert!(queue.memory() < 64 * 1024, "{} KiB", queue.memory());
}

/// Many clients at once, few of which fit: each is served in its turn.
#[track_caller]
fn all_are_served(redirect: &Redirect, count: usize) {
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(redirect.address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("I am {number}").as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        assert_eq!(drain(&mut client), (format!("I am {number}").into_bytes(), End::Fin));
    }
}

#[test]
fn clients_beyond_the_limit_wait_to_be_accepted() {
    let provider = Provider::echo();
    let balancer = Balancer::before(
        &[provider.address],
        &["redirect_connections_max=2", "redirect_threads=1"],
    );
    let mut first: Vec<TcpStream> = (0..2).map(|_| connect(balancer.address())).collect();
    for client in &mut first {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    let mut third = connect(balancer.address());
    third.write_all(b"third").unwrap();
    third.shutdown(Shutdown::Write).unwrap();
    balancer.redirect.idles();
    assert_eq!(provider.clients(), 2);
    drop(first.pop());
    assert_eq!(drain(&mut third).0, b"third");
    drop(first);
    all_are_served(&balancer.redirect, 50);
}

#[test]
fn few_descriptors_make_clients_wait_and_break_nothing() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1000);
    let mut limited = tool("prlimit");
    limited.args([
        "--nofile=48:48",
        path(),
        "redirect",
        "-c",
        "/dev/null",
        "-o",
        "service_web_listen=127.0.0.1:0",
    ]);
    let redirect = Redirect::of(limited.args(["-o", &format!("redirect_queue={}", queue.address)]));
    all_are_served(&redirect, 200);
    until("nothing in progress", || queue.status().active(provider.address) == 0);
    assert!(
        redirect.log_with(&["accepting pauses"]).len() <= 2,
        "{:#?}",
        redirect.log_with(&["pauses"])
    );
}
