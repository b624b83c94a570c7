//! Providers that lead back to the balancer: a client must not come in again and again.

use crate::support::datagram::{ask, client, Sink};
use crate::support::namespace;
use crate::support::pegasus::{command, configuration, pegasus, program, Queue, Redirect, SERVICE};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::{free_port, free_ports, until, Directory};
use std::net::SocketAddr;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A redirector that listens at these ports, on these hosts.
#[track_caller]
fn redirect(queue: &Queue, listens: &[&str]) -> Redirect {
    let asks = format!("redirect_queue={}", queue.address);
    let settings: Vec<&str> =
        ["redirect_wait=200ms", &asks].into_iter().chain(listens.iter().copied()).collect();
    Redirect::of(&mut command("redirect", &settings))
}

/// Waits for the lines about so many clients: there are no others.
#[track_caller]
fn has_closed(redirect: &Redirect, count: usize) {
    until("all clients are closed", || redirect.log_with(&["closed service="]).len() >= count);
    assert_eq!(redirect.log_with(&["closed service="]).len(), count, "no other clients");
}

#[test]
fn a_provider_that_is_the_redirector_s_own_address_is_passed_over() {
    // By the address, by one of all addresses, and as fallback.
    for host in ["127.0.0.1", "*"] {
        let (port, queue) = (free_port(), Queue::start(&["queue_scheduler=fifo"]));
        let real = Provider::named("real");
        queue.offer(local(port), 1000);
        let listen = format!("service_{SERVICE}_listen={host}:{port}");
        let mut redirect = redirect(&queue, &[&listen]);
        let end = drain(&mut connect(local(port)));
        assert_eq!(end, (Vec::new(), End::Reset));
        redirect.says(&["ERROR", &local(port).to_string(), "is a listen address of this process"]);
        redirect.closed(&["outcome=nobody-left"]);
        queue.offer(real.address, 1000);
        for _ in 0..20 {
            assert_eq!(drain(&mut connect(local(port))).0, b"real");
        }
        has_closed(&redirect, 21);
        assert_eq!(redirect.log_with(&["ERROR"]).len(), 1, "one line a minute");
        assert!(redirect.log_with(&["failure service="]).is_empty());
        let status = queue.status();
        assert_eq!(status.provider(local(port)).map_or(1, |row| row.number("failures")), 0);
        assert_eq!(status.tickets(local(port)), 1000);
        until("all tickets are free again", || queue.status().active(local(port)) == 0);
    }
}

#[test]
fn a_fallback_that_is_the_redirector_s_own_address_serves_no_client() {
    let (port, queue) = (free_port(), Queue::start(&[]));
    let real = Provider::named("real");
    let listen = format!("service_{SERVICE}_listen=127.0.0.1:{port}");
    let fallback = format!("service_{SERVICE}_fallback={} {}", local(port), real.address);
    let redirect = redirect(&queue, &["redirect_wait=0", &listen, &fallback]);
    for _ in 0..4 {
        assert_eq!(drain(&mut connect(local(port))).0, b"real");
    }
    has_closed(&redirect, 4);
}

#[test]
fn two_services_that_lead_to_each_other_serve_no_client() {
    let (ports, queue) = (free_ports(2), Queue::start(&[]));
    let (first, second) = (local(ports.start), local(ports.start + 1));
    for (service, provider) in [("one", second), ("two", first)] {
        let offer = format!(
            "ticket?provider={provider}&service={service}&tickets=100&capacity=100&lease=10m"
        );
        assert!(queue.ask(&offer).starts_with("ok "));
    }
    let listens = [format!("service_one_listen={first}"), format!("service_two_listen={second}")];
    let mut redirect = redirect(&queue, &[&listens[0], &listens[1]]);
    assert_eq!(drain(&mut connect(first)), (Vec::new(), End::Reset));
    redirect.closed(&["service=one", "outcome=nobody-left"]);
    assert_eq!(redirect.log_with(&["closed service="]).len(), 1);
}

#[test]
fn a_datagram_does_not_come_back_to_the_redirector() {
    for host in ["127.0.0.1", "*"] {
        let (port, queue) = (free_port(), Queue::start(&["queue_scheduler=fifo"]));
        let real = Sink::named("real");
        queue.offer(local(port), 1000);
        queue.offer(real.address, 1000);
        let listen = format!("service_{SERVICE}_listen={host}:{port}/udp");
        let redirect = redirect(&queue, &[&listen]);
        assert_eq!(ask(&client(local(port)), b"query"), b"real");
        assert_eq!(real.taken(), [b"query"]);
        assert_eq!(redirect.log_with(&["ERROR", "is a listen address"]).len(), 1);
        assert!(redirect.log_with(&["failure service="]).is_empty());
    }
}

#[test]
fn a_connect_that_met_itself_is_a_dead_provider() {
    namespace::alone(|| {
        let queue = Queue::start(&["queue_scheduler=fifo"]);
        let real = Provider::named("real");
        queue.offer(local(50_000), 1000);
        queue.offer(real.address, 1000);
        let mut redirect = Redirect::start(queue.address, &[]);
        // One port for outgoing connections, at which nothing listens.
        namespace::set_local_ports("50000 50000");
        assert_eq!(drain(&mut connect(redirect.address)).0, b"real");
        redirect.says(&["failure service=", &local(50_000).to_string(), "why=refused"]);
    });
}

#[test]
fn a_file_whose_monitor_would_offer_the_redirector_is_warned_about() {
    let directory = Directory::new();
    let port = free_port();
    let listen = format!("service_web_listen=127.0.0.1:{port}");
    let conf = configuration(&directory, &[&listen, &format!("service_web_provider=:{port}")]);
    for name in ["redirect", "monitor"] {
        let (status, _, err) = pegasus(&[name, "-t", "-c", &conf]);
        assert_eq!(status, 0, "{err}");
        assert!(err.contains("would offer service web") && err.contains(&listen), "{err}");
    }
    let queue = Queue::start(&[]);
    let asks = format!("redirect_queue={}", queue.address);
    let mut redirect = Redirect::of(program().args(["redirect", "-c", &conf, "-o", &asks]));
    redirect.says(&["WARN", "would offer service web"]);
}
