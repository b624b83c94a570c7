//! Daemons that drain: connections go on, and no new ones are accepted.

use crate::support::pegasus::{monitor_of, Balancer, Queue};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::{until, until_some, Directory};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// Returns a client whose connection works.
#[track_caller]
fn running(balancer: &Balancer) -> TcpStream {
    let mut client = connect(balancer.address());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    client
}

#[test]
fn a_redirector_lets_connections_end_and_takes_no_new_ones() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let mut client = running(&balancer);
    balancer.redirect.signal(libc::SIGTERM);
    until("new clients are refused", || TcpStream::connect(balancer.address()).is_err());
    client.write_all(b"goes on").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"goes on".to_vec(), End::Fin));
    assert_eq!(balancer.redirect.ends(), 0);
    balancer.redirect.closed(&["outcome=complete", "sent=8 ", "received=8 "]);
}

#[test]
fn a_grace_lets_new_clients_come_until_it_is_over() {
    let provider = Provider::echo();
    let settings = ["redirect_accept_grace=1s", "redirect_threads=4", "drain_timeout=10m"];
    let mut balancer = Balancer::before(&[provider.address], &settings);
    let mut early = running(&balancer);
    balancer.redirect.signal(libc::SIGTERM);
    balancer.redirect.says(&["accepting for another 1s, then draining"]);
    let mut late = running(&balancer);
    until("new clients are refused", || TcpStream::connect(balancer.address()).is_err());
    for client in [&mut early, &mut late] {
        client.write_all(b"goes on").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(client), (b"goes on".to_vec(), End::Fin));
    }
    assert_eq!(balancer.redirect.ends(), 0);
}

#[test]
fn a_second_signal_ends_a_grace_at_once() {
    let provider = Provider::echo();
    let settings = ["redirect_accept_grace=10m", "redirect_threads=4"];
    let mut balancer = Balancer::before(&[provider.address], &settings);
    let mut client = running(&balancer);
    balancer.redirect.signal(libc::SIGTERM);
    balancer.redirect.says(&["accepting for another 10m"]);
    balancer.redirect.signal(libc::SIGTERM);
    drain(&mut client);
    assert_eq!(balancer.redirect.ends(), 0);
}

#[test]
fn int_is_as_good_as_term() {
    let mut balancer = Balancer::before(&[], &[]);
    balancer.redirect.signal(libc::SIGINT);
    assert_eq!(balancer.redirect.ends(), 0);
    balancer.queue.signal(libc::SIGINT);
    assert_eq!(balancer.queue.ends(), 0);
}

#[test]
fn draining_has_an_end() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &["drain_timeout=200ms"]);
    let mut client = running(&balancer);
    balancer.redirect.signal(libc::SIGTERM);
    drain(&mut client);
    assert_eq!(balancer.redirect.ends(), 0);
    balancer.redirect.closed(&["outcome=drained"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let provider = Provider::echo();
    // Most threads have no client, and end earlier than the one that has; which one that
    // is, is chance.
    for _ in 0..4 {
        let mut balancer =
            Balancer::before(&[provider.address], &["drain_timeout=10m", "redirect_threads=8"]);
        let mut client = running(&balancer);
        balancer.redirect.signal(libc::SIGTERM);
        balancer.redirect.says(&["draining"]);
        until("new clients are refused", || TcpStream::connect(balancer.address()).is_err());
        balancer.redirect.signal(libc::SIGTERM);
        drain(&mut client);
        assert_eq!(balancer.redirect.ends(), 0);
    }
}

#[test]
fn what_the_redirector_had_in_progress_is_free_when_it_is_gone() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &[]);
    let _client = running(&balancer);
    until("one is in progress", || balancer.queue.status().active(provider.address) == 1);
    balancer.redirect.kill();
    until("it is free", || balancer.queue.status().active(provider.address) == 0);
}

#[test]
fn a_queue_that_ends_says_so_to_who_waits() {
    let mut queue = Queue::start(&[]);
    let mut line = queue.connect();
    line.say("next?wait=30s&id=1");
    until("it waits", || queue.status().queue().number("waiting") == 1);
    queue.signal(libc::SIGTERM);
    assert_eq!(line.hear(), "error draining id=1");
    assert_eq!(line.hear(), "");
    assert_eq!(queue.ends(), 0);
    assert!(TcpStream::connect(queue.address).is_err());
}

#[test]
fn clients_wait_for_the_queue_that_follows_one_that_ended() {
    let port = crate::support::free_port();
    let mut queue = Queue::at(port, &[]);
    let provider = Provider::named("served");
    let settings = ["redirect_wait=20s", "redirect_queue_timeout=20s"];
    let redirect = crate::support::pegasus::Redirect::start(queue.address, &settings);
    let mut client = connect(redirect.address);
    until("it waits", || queue.status().queue().number("waiting") == 1);
    queue.signal(libc::SIGTERM);
    assert_eq!(queue.ends(), 0);
    let queue = Queue::at(port, &[]);
    queue.offer(provider.address, 1);
    assert_eq!(drain(&mut client), (b"served".to_vec(), End::Fin));
}

#[test]
fn a_check_under_way_ends_with_its_monitor() {
    let directory = Directory::new();
    let queue = Queue::start(&[]);
    let file = directory.file("id");
    // The shell and a child of it; the deadline of a check is two seconds.
    let check =
        format!("service_web_check=exec:echo $$ >{file}.part; mv {file}.part {file}; sleep 600; :");
    let settings = ["monitor_interval=2s", &check];
    let provider = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut monitor = monitor_of("web", queue.address, provider, &settings);
    let id: i32 =
        until_some("it checks", || std::fs::read_to_string(&file).ok()?.trim().parse().ok());
    monitor.signal(libc::SIGTERM);
    assert_eq!(monitor.ends(), 0);
    // SAFETY: plain numbers; no signal is sent to the group.
    until("nothing of it is left", || unsafe { libc::kill(-id, 0) } == -1);
}
