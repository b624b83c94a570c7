//! More clients than descriptors, or than one source may have.

use crate::support::pegasus::{command, path, Balancer, Queue, Redirect};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, raise_descriptors, End};
use crate::support::visits::{running, visit};
use crate::support::{output, tool, until};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

#[test]
fn a_thousand_clients_and_256_descriptors() {
    let count = 1000.min(raise_descriptors().saturating_sub(800));
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let held = gate.clone();
    let provider = Provider::start(move |mut stream| {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let open = held.1.wait_while(held.0.lock().unwrap(), |open| !*open).unwrap();
        drop(open);
        let _ = stream.write_all(text.as_bytes());
    });
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let asks = format!("redirect_queue={}", queue.address);
    let mut limited = tool("prlimit");
    limited.args(["--nofile=256:256", path(), "redirect", "-c", "/dev/null", "-o", &asks]);
    // Its threads find all of them in the backlog at the same time.
    let threads = "redirect_threads=4";
    let redirect =
        Redirect::of(limited.args(["-o", threads, "-o", "service_web_listen=127.0.0.1:0"]));
    redirect.signal(libc::SIGSTOP);
    let mut clients: Vec<TcpStream> = (0..count).map(|_| connect(redirect.address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("I am {number}").as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    redirect.signal(libc::SIGCONT);
    until("as many as fit are served", || provider.clients() >= 80);
    redirect.idles();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(drain(client), (format!("I am {number}").into_bytes(), End::Fin));
    }
    until("all are counted", || redirect.log_with(&["outcome=complete"]).len() == count);
    assert_eq!(redirect.log_with(&["closed service="]).len(), count);
    for word in ["descriptor to spare", "accepting pauses"] {
        assert_eq!(redirect.log_with(&[word]), Vec::<String>::new(), "all have what they need");
    }
}

/// Limits a process to the descriptors that it has, or lifts that limit.
#[track_caller]
fn limit(process: &Process, most: Option<usize>) {
    let most = most.map_or("4096".into(), |most| most.to_string());
    output(tool("prlimit").args([
        "--pid",
        &process.id().to_string(),
        &format!("--nofile={most}:"),
    ]));
}

/// A client that was accepted and has no provider yet, for which there will be no
/// descriptor.
#[track_caller]
fn stuck(balancer: &mut Balancer, provider: SocketAddr) -> TcpStream {
    let mut client = connect(balancer.address());
    client.write_all(b"patience").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until("it waits for a ticket", || balancer.queue.status().queue().number("waiting") == 1);
    // The lowest free descriptor is used first: none is free below the highest.
    let highest = std::fs::read_dir(format!("/proc/{}/fd", balancer.redirect.id())).unwrap();
    let names =
        highest.map(|entry| entry.unwrap().file_name().to_string_lossy().parse::<usize>().unwrap());
    let taken: Vec<usize> = names.collect();
    let first_free = (0..).find(|number| !taken.contains(number)).unwrap();
    limit(&balancer.redirect, Some(first_free));
    balancer.queue.offer(provider, 10);
    balancer.redirect.says(&["WARN", "connects deferred since the last report: 1"]);
    client
}

#[test]
fn a_call_waits_for_a_descriptor() {
    let provider = Provider::echo();
    let settings = ["redirect_wait=30s", "redirect_connect_timeout=30s", "redirect_threads=1"];
    let mut balancer = Balancer::before(&[], &settings);
    let mut client = stuck(&mut balancer, provider.address);
    balancer.redirect.idles();
    let mut second = connect(balancer.address());
    second.write_all(b"second").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    limit(&balancer.redirect, None);
    assert_eq!(drain(&mut client), (b"patience".to_vec(), End::Fin));
    assert_eq!(drain(&mut second), (b"second".to_vec(), End::Fin));
}

#[test]
fn a_call_that_waits_too_long_is_nobodys_failure() {
    let provider = Provider::echo();
    let settings = ["redirect_wait=30s", "redirect_connect_timeout=300ms", "redirect_threads=1"];
    let mut balancer = Balancer::before(&[], &settings);
    let mut client = stuck(&mut balancer, provider.address);
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    balancer.redirect.closed(&["outcome=out-of-sockets"]);
    balancer.settles();
    assert_eq!(balancer.queue.status().tickets(provider.address), 10, "its tickets stay");
    limit(&balancer.redirect, None);
    assert_eq!(visit(balancer.address(), "now there is one"), Ok(()));
}

#[test]
fn a_source_has_so_many_clients_and_no_more() {
    let provider = Provider::echo();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    let asks = format!("redirect_queue={}", queue.address);
    let places = "service_web_listen=[::1]:0 127.0.0.1:0";
    let redirect = Redirect::of(&mut command(
        "redirect",
        &["redirect_per_source_max=2", "redirect_threads=4", &asks, places],
    ));
    let ready = redirect.log_with(&["] ready "]).pop().unwrap();
    let of_ipv6 = ready.split("web=").nth(1).unwrap().trim().parse().unwrap();
    let first = [running(redirect.address), running(redirect.address)];
    for _ in 0..50 {
        assert!(visit(redirect.address, "one more").is_err());
    }
    assert_eq!(queue.status().queue().number("asked"), 2, "the queue is not asked for them");
    assert!(
        redirect.log_with(&["WARN", "redirect_per_source_max=2: 127.0.0.1 has that many"]).len()
            <= 4,
        "a line a thread"
    );
    assert_eq!(visit(of_ipv6, "from elsewhere"), Ok(()));
    drop(first);
    until("there is room again", || visit(redirect.address, "later").is_ok());
}
