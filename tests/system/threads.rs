//! Each daemon has a thread for its loop and one for its log: more is what its user asked for.

use crate::support::pegasus::{monitor, Balancer};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

fn threads(process: &Process) -> usize {
    fs::read_dir(format!("/proc/{}/task", process.id())).map_or(0, Iterator::count)
}

#[test]
fn a_queue_a_redirector_with_one_loop_and_a_monitor_have_two_each() {
    let provider = Provider::start(|mut stream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
    });
    let balancer = Balancer::before(&[provider.address], &["redirect_threads=1"]);
    let monitor = monitor(balancer.queue.address, provider.address, &[]);
    let clients: Vec<TcpStream> = (0..20).map(|_| connect(balancer.address())).collect();
    for mut client in &clients {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(
        [threads(&balancer.queue), threads(&balancer.redirect), threads(&monitor)],
        [2, 2, 2]
    );
}

#[test]
fn a_redirector_has_as_many_as_loops_are_asked_for() {
    let balancer = Balancer::before(&[], &["redirect_threads=3"]);
    assert_eq!(threads(&balancer.redirect), 3 + 1);
}

#[test]
fn a_client_wakes_one_of_many_threads_and_all_have_their_turn() {
    const CLIENTS: u64 = 320;
    let provider = Provider::named("served");
    let balancer = Balancer::before(&[provider.address], &["redirect_threads=16"]);
    let before = balancer.redirect.wake_ups();
    for _ in 0..CLIENTS {
        assert_eq!(drain(&mut connect(balancer.address())).0, b"served");
    }
    let after = balancer.redirect.wake_ups();
    let woken: Vec<u64> =
        std::iter::zip(&after, before).map(|(after, before)| after - before).collect();
    // About four for one client, and eighteen if it wakes all threads.
    assert!(woken.iter().sum::<u64>() < 9 * CLIENTS, "{woken:?}");
    let least = CLIENTS / 16 / 4;
    assert!(woken.iter().all(|count| *count >= least), "each has some of the clients: {woken:?}");
}
