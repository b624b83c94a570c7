//! Providers that fail: the client loses only time.

use crate::support::control_connection::Row;
use crate::support::pegasus::{closed_address, Balancer, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::random::Random;
use crate::support::socket::{connect, drain, reset, End};
use crate::support::until;
use std::io::{Read, Write};
use std::net::Shutdown;

#[test]
fn a_provider_that_refuses_is_reported_and_the_next_one_serves() {
    let dead = closed_address();
    let alive = Provider::named("alive");
    let mut balancer = Balancer::before(&[dead, alive.address], &[]);
    let mut client = connect(balancer.address());
    assert_eq!(drain(&mut client), (b"alive".to_vec(), End::Fin));
    balancer.redirect.says(&["failure service=web", &format!("provider={dead}"), "why=refused"]);
    until("its tickets are gone", || balancer.queue.status().tickets(dead) == 0);
    assert_eq!(balancer.queue.status().provider(dead).map_or(1, |row| row.number("failures")), 1);
    for _ in 0..10 {
        assert_eq!(drain(&mut connect(balancer.address())).0, b"alive");
    }
    assert_eq!(
        balancer.redirect.log_with(&["failure service="]).len(),
        1,
        "no further client goes there"
    );
}

#[test]
fn what_the_client_said_before_is_not_lost() {
    let dead = closed_address();
    let alive = Provider::echo();
    let balancer = Balancer::before(&[dead, alive.address], &[]);
    let request = Random::told().bytes(1 << 20);
    let mut client = connect(balancer.address());
    let sent = request.clone();
    let mut sender = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let (answer, end) = drain(&mut client);
    writer.join().unwrap();
    assert!(answer == request && end == End::Fin, "{} bytes, {end:?}", answer.len());
}

#[test]
fn a_client_that_ended_its_side_already_is_served_by_the_next_one() {
    let dead = closed_address();
    let alive = Provider::echo();
    let queue = Queue::start(&["queue_scheduler=fifo"]);
    let redirect = Redirect::start(queue.address, &["redirect_wait=20s"]);
    // It has sent everything and closed its side before there is a provider to connect
    // to.
    let mut client = connect(redirect.address);
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until("it waits", || queue.status().queue().number("waiting") == 1);
    queue.offer(dead, 1000);
    until("the dead one failed", || queue.status().tickets(dead) == 0);
    queue.offer(alive.address, 1000);
    assert_eq!(drain(&mut client), (b"all of it".to_vec(), End::Fin));
}

#[test]
fn a_provider_that_resets_before_a_byte_is_one_that_failed() {
    let rude = Provider::start(reset);
    let kind = Provider::echo();
    let mut balancer = Balancer::before(&[rude.address, kind.address], &[]);
    let mut client = connect(balancer.address());
    balancer.redirect.says(&[
        "failure service=web",
        &format!("provider={}", rude.address),
        "why=re",
    ]);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"hello".to_vec(), End::Fin));
    assert_eq!((rude.clients(), kind.clients()), (1, 1));
    balancer.settles();
}

#[test]
fn a_provider_that_resets_after_a_byte_is_never_replaced() {
    let rude = Provider::start(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        reset(stream);
    });
    let other = Provider::echo();
    let mut balancer = Balancer::before(&[rude.address, other.address], &[]);
    let mut client = connect(balancer.address());
    client.write_all(b"pay 100 to bob").unwrap();
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    balancer.redirect.closed(&["outcome=provider-reset"]);
    assert_eq!(other.clients(), 0, "no provider may get a request that another one received");
}

#[test]
fn so_many_tries_and_no_more() {
    let dead: Vec<_> = (0..5).map(|_| closed_address()).collect();
    let mut balancer = Balancer::before(&dead, &["redirect_tries=3"]);
    assert_eq!(drain(&mut connect(balancer.address())), (Vec::new(), End::Reset));
    balancer.redirect.closed(&["outcome=nobody-left"]);
    assert_eq!(balancer.redirect.log_with(&["failure service="]).len(), 3);
    balancer.settles();
}

#[test]
fn when_all_are_dead_the_client_is_turned_away() {
    let dead = [closed_address(), closed_address()];
    let mut balancer = Balancer::before(&dead, &["redirect_wait=100ms"]);
    assert_eq!(drain(&mut connect(balancer.address())), (Vec::new(), End::Reset));
    balancer.redirect.closed(&["WARN", "outcome=nobody-left"]);
}

#[test]
fn no_ticket_in_time_is_a_reset_and_one_line() {
    for wait in ["0", "150ms"] {
        let mut balancer = Balancer::before(&[], &[&format!("redirect_wait={wait}")]);
        let mut client = connect(balancer.address());
        let port = client.local_addr().unwrap().port();
        if wait != "0" {
            // Otherwise it is turned away before it can send anything.
            client.write_all(b"hello").unwrap();
        }
        assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
        let line = balancer.redirect.closed(&[
            "WARN",
            "outcome=no-ticket",
            &format!("client=127.0.0.1:{port} "),
        ]);
        assert_eq!(Row::read(&line).text("provider"), "-");
        assert_eq!(
            balancer.redirect.log_with(&["[redirect]"]).len(),
            2,
            "the ready line and this one"
        );
    }
}

#[test]
fn who_waits_is_served_when_a_ticket_comes() {
    let provider = Provider::named("late");
    let balancer = Balancer::before(&[], &["redirect_wait=20s"]);
    let mut client = connect(balancer.address());
    until("it waits", || balancer.queue.status().queue().number("waiting") == 1);
    balancer.queue.offer(provider.address, 1);
    assert_eq!(drain(&mut client), (b"late".to_vec(), End::Fin));
}

#[test]
fn who_waits_and_breaks_off_gives_its_place_back() {
    let provider = Provider::named("late");
    let mut balancer = Balancer::before(&[], &["redirect_wait=20s"]);
    let client = connect(balancer.address());
    until("it waits", || balancer.queue.status().queue().number("waiting") == 1);
    reset(client);
    balancer.redirect.closed(&["outcome=gave-up"]);
    until("no request waits", || balancer.queue.status().queue().number("waiting") == 0);
    balancer.queue.offer(provider.address, 1);
    assert_eq!(drain(&mut connect(balancer.address())).0, b"late");
    balancer.settles();
}

#[test]
fn static_providers_serve_when_the_queue_is_away() {
    let provider = Provider::named("static");
    let fallback = format!("service_web_fallback={} {}", closed_address(), provider.address);
    let mut redirect = Redirect::start(
        closed_address(),
        &[&fallback, "redirect_queue_timeout=20s", "redirect_threads=1"],
    );
    redirect.says(&["WARN", "queue 127.0.0.1:", "trying again"]);
    for _ in 0..10 {
        assert_eq!(drain(&mut connect(redirect.address)), (b"static".to_vec(), End::Fin));
    }
    assert_eq!(redirect.log_with(&["trying again"]).len(), 1, "said once");
}

#[test]
fn static_providers_serve_when_there_is_no_ticket() {
    let provider = Provider::named("static");
    let fallback = format!("service_web_fallback={}", provider.address);
    let queue = Queue::start(&[]);
    let redirect = Redirect::start(queue.address, &[&fallback, "redirect_wait=0"]);
    until("the static one is known", || drain(&mut connect(redirect.address)).0 == b"static");
    let other = Provider::named("competing");
    queue.offer(other.address, 10);
    assert_eq!(drain(&mut connect(redirect.address)).0, b"competing");
}
