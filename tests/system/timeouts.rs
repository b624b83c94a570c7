//! Connections that become idle.

use crate::support::pegasus::Balancer;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, Deaf};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

/// Sends something, and then nothing, whatever the client does.
fn speechless() -> Provider {
    Provider::start(|mut stream| {
        let _ = stream.write_all(b"hello");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        // It keeps the connection open until the other side is gone.
        while stream.write_all(b"").is_ok()
            && stream.take_error().is_ok_and(|error| error.is_none())
        {
            thread::sleep(Duration::from_millis(50));
            if stream.peer_addr().is_err() {
                return;
            }
        }
    })
}

#[test]
fn silence_both_ways_ends_a_connection() {
    let provider = Provider::echo();
    let mut balancer = Balancer::before(&[provider.address], &["redirect_idle_timeout=300ms"]);
    let mut client = connect(balancer.address());
    client.write_all(b"hello").unwrap();
    assert_eq!(drain(&mut client).0, b"hello");
    balancer.redirect.closed(&["outcome=idle", "sent=5 ", "received=5 "]);
    balancer.settles();
}

#[test]
fn a_byte_now_and_then_keeps_it() {
    let provider = Provider::echo();
    // Much longer than between two bytes even on a busy machine.
    let mut balancer = Balancer::before(&[provider.address], &["redirect_idle_timeout=1500ms"]);
    let mut client = connect(balancer.address());
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(300));
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(drain(&mut client).0.is_empty());
    balancer.redirect.closed(&["outcome=complete", "sent=8 ", "received=8 "]);
}

#[test]
fn a_half_closed_connection_ends_sooner() {
    let provider = speechless();
    let settings = ["redirect_half_closed_timeout=300ms", "redirect_idle_timeout=10m"];
    let mut balancer = Balancer::before(&[provider.address], &settings);
    let mut client = connect(balancer.address());
    client.read_exact(&mut [0; 5]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    drain(&mut client);
    balancer.redirect.closed(&["outcome=half-closed", "sent=5 ", "received=0 "]);
    balancer.settles();
}

#[test]
fn an_answer_that_goes_on_is_not_cut_off_by_the_half_closed_timeout() {
    let provider = Provider::start(|mut stream| {
        stream.read_to_end(&mut Vec::new()).unwrap();
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(300));
            stream.write_all(b"y").unwrap();
        }
    });
    let mut balancer =
        Balancer::before(&[provider.address], &["redirect_half_closed_timeout=1500ms"]);
    let mut client = connect(balancer.address());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client).0, b"yyyyyyyy");
    balancer.redirect.closed(&["outcome=complete"]);
}

#[test]
fn a_provider_that_does_not_answer_the_call_is_given_up() {
    let deaf = Deaf::start();
    let alive = Provider::named("alive");
    let mut balancer =
        Balancer::before(&[deaf.address, alive.address], &["redirect_connect_timeout=300ms"]);
    assert_eq!(drain(&mut connect(balancer.address())).0, b"alive");
    balancer.redirect.says(&[
        "failure service=web",
        &format!("provider={}", deaf.address),
        "why=timed-out",
    ]);
    balancer.settles();
}
