//! SIGHUP and listen sockets: new ones, removed ones, and those that stay.

use crate::support::datagram::{ask, client as sender, Sink};
use crate::support::pegasus::{monitor, path, program, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::visits::{running, visit, Visits};
use crate::support::{free_ports, until, Directory, PATIENCE};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

/// A redirector whose configuration can be rewritten.
pub struct Configured {
    pub directory: Directory,
    pub redirect: Redirect,
    pub queue: Queue,
}

impl Configured {
    /// Adds `text` to the address of the queue.
    #[track_caller]
    pub fn start(providers: &[SocketAddr], text: &str) -> Configured {
        Configured::by(path(), providers, text)
    }

    /// The same with another program file.
    #[track_caller]
    pub fn by(program: &str, providers: &[SocketAddr], text: &str) -> Configured {
        let queue = Queue::start(&["queue_scheduler=fifo"]);
        for provider in providers {
            queue.offer(provider, 1000);
        }
        let directory = Directory::new();
        let conf = Configured::file(&directory, &queue, text);
        let redirect = Redirect::of(Command::new(program).args(["redirect", "-c", &conf]));
        Configured { directory, redirect, queue }
    }

    fn file(directory: &Directory, queue: &Queue, text: &str) -> String {
        directory.write("pegasus.conf", &format!("redirect_queue={}\n{text}", queue.address))
    }

    /// Rewrites the configuration.
    pub fn write(&self, text: &str) {
        Configured::file(&self.directory, &self.queue, text);
    }

    /// Rewrites the configuration, and waits until it is in force.
    #[track_caller]
    pub fn reload(&self, text: &str) {
        self.write(text);
        let before = self.redirect.log_with(&["[config]"]).len();
        self.redirect.signal(libc::SIGHUP);
        until("it was read again", || self.redirect.log_with(&["[config]"]).len() > before);
    }
}

/// Returns `count` addresses of this host.
fn places(count: u16) -> Vec<SocketAddr> {
    free_ports(count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

fn refused(place: SocketAddr) -> bool {
    TcpStream::connect(place).is_err()
}

#[test]
fn a_hundred_reloads_fail_nobody() {
    let provider = Provider::echo();
    let places = places(2);
    let one = format!("service_web_listen={}\n", places[0]);
    let both = format!("service_web_listen='{} {}'\n", places[0], places[1]);
    let configured = Configured::start(&[provider.address], &one);
    let visits = Visits::start(places[0], 8);
    for round in 1..=50 {
        for (text, word) in [(&both, "added"), (&one, "removed")] {
            configured.write(text);
            configured.redirect.signal(libc::SIGHUP);
            let word = format!("{word} web={}", places[1]);
            until("the places change", || configured.redirect.log_with(&[&word]).len() == round);
        }
        // It cannot be bound again until it is closed.
        until("it is closed", || refused(places[1]));
    }
    until("clients came meanwhile", || visits.count() > 200);
    assert_eq!(visits.end(), Vec::<String>::new());
    assert_eq!(visit(places[0], "still there"), Ok(()));
}

#[test]
fn places_come_and_go_and_connections_stay() {
    let provider = Provider::echo();
    let places = places(4);
    let ports: Vec<u16> = places.iter().map(SocketAddr::port).collect();
    let mut configured =
        Configured::start(&[provider.address], &format!("service_web_listen={}\n", places[0]));
    let mut client = running(places[0]);
    configured.reload(&format!(
        "service_web_listen='localhost:{}-{}'\nservice_shop_listen=*:{}\n",
        ports[1], ports[2], ports[3]
    ));
    configured.queue.ask(&format!(
        "ticket?provider={}&service=shop&tickets=9&capacity=9&lease=10m",
        provider.address
    ));
    for place in &places[1..] {
        assert_eq!(visit(*place, "new place"), Ok(()));
    }
    until("the old one is closed", || refused(places[0]));
    client.write_all(b"goes on").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (b"goes on".to_vec(), End::Fin));
    configured.redirect.says(&["removed", &format!(" web={}", places[0])]);
    // Another service takes over an address, and a range shrinks.
    configured.reload(&format!("service_web_listen='{} *:{}'\n", places[1], ports[3]));
    configured.redirect.says(&["changed web=", &format!(":{}", ports[3])]);
    assert_eq!(visit(places[3], "of the other service"), Ok(()));
    until("the rest of the range is closed", || refused(places[2]));
    assert_eq!(visit(places[1], "stays"), Ok(()));
}

#[test]
fn whoever_waits_at_a_place_that_is_closed_is_served() {
    let provider = Provider::echo();
    let places = places(2);
    let few = "redirect_connections_max=1\nredirect_threads=2\n";
    let both = format!("{few}service_web_listen='{} {}'\n", places[0], places[1]);
    let configured = Configured::start(&[provider.address], &both);
    let first = running(places[0]);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(places[1])).collect();
    configured.reload(&format!("{few}service_web_listen={}\n", places[0]));
    configured.redirect.idles();
    drop(first);
    for client in &mut waiting {
        client.write_all(b"waited").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(client), (b"waited".to_vec(), End::Fin));
    }
    until("no client is accepted there any more", || refused(places[1]));
    assert_eq!(visit(places[0], "the other place"), Ok(()));
}

#[test]
fn whoever_waits_when_it_is_told_to_end_is_served() {
    let provider = Provider::echo();
    let places = places(1);
    let text = format!("redirect_connections_max=1\nservice_web_listen={}\n", places[0]);
    let mut configured = Configured::start(&[provider.address], &text);
    let first = running(places[0]);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(places[0])).collect();
    configured.redirect.signal(libc::SIGTERM);
    configured.redirect.says(&["draining"]);
    drop(first);
    for client in &mut waiting {
        client.write_all(b"waited").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(client), (b"waited".to_vec(), End::Fin));
    }
    assert_eq!(configured.redirect.ends(), 0);
}

#[test]
fn a_place_that_cannot_be_had_changes_nothing() {
    let provider = Provider::echo();
    let places = places(3);
    let mut configured =
        Configured::start(&[provider.address], &format!("service_web_listen={}\n", places[0]));
    let taken = TcpListener::bind(places[2]).unwrap();
    let text = format!(
        "service_web_listen='{} {}'\nredirect_threads=7\nredirect_splice=off\n",
        places[1], places[2]
    );
    configured.reload(&text);
    configured.redirect.says(&["ERROR", &format!("cannot listen on {}: ", places[2])]);
    configured.redirect.says(&["ERROR", "keeping the running configuration"]);
    assert!(
        configured.redirect.log_with(&["redirect_threads"]).is_empty(),
        "nothing of it is taken"
    );
    assert!(refused(places[1]), "what could be opened is closed again");
    assert_eq!(visit(places[0], "the old place"), Ok(()));
    configured.reload("");
    configured.redirect.says(&["ERROR", "nothing to serve"]);
    drop(taken);
    configured.reload(&text);
    configured.redirect.says(&["WARN", "redirect_threads takes effect at the next start"]);
    configured.redirect.says(&["WARN", "redirect_splice takes effect at the next start"]);
    assert_eq!((visit(places[1], "new"), visit(places[2], "new")), (Ok(()), Ok(())));
}

#[test]
fn datagrams_and_streams_may_come_later() {
    let stream = Provider::echo();
    let sink = Sink::echo();
    let places = places(3);
    let mut configured =
        Configured::start(&[stream.address], &format!("service_web_listen={}\n", places[0]));
    configured.queue.ask(&format!(
        "ticket?provider={}&service=dns&tickets=9&capacity=9&lease=10m",
        sink.address
    ));
    let udp =
        |place: SocketAddr| format!("service_dns_listen={place}/udp\nservice_dns_udp_idle=2s\n");
    configured.reload(&format!("service_web_listen={}\n{}", places[0], udp(places[1])));
    let flow = sender(places[1]);
    assert_eq!(ask(&flow, b"first datagram"), b"first datagram");
    // Flows may finish where an address is closed; new ones do not start there.
    configured.reload(&udp(places[2]));
    assert_eq!(ask(&flow, b"goes on"), b"goes on");
    assert_eq!(ask(&sender(places[2]), b"new place"), b"new place");
    until("no more streams", || refused(places[0]));
    configured.redirect.closed(&["service=dns", "outcome=idle", "received=21"]);
    until("its socket is closed", || std::net::UdpSocket::bind(places[1]).is_ok());
    configured.reload(&format!("{}service_web_listen={}\n", udp(places[2]), places[0]));
    assert_eq!(visit(places[0], "back again"), Ok(()));
}

#[test]
fn no_flow_outlasts_the_drain_of_its_place() {
    let sink = Sink::echo();
    let places = places(2);
    let text = |place: SocketAddr| format!("service_web_listen={place}/udp\ndrain_timeout=1s\n");
    let configured = Configured::start(&[sink.address], &text(places[0]));
    let flow = sender(places[0]);
    assert_eq!(ask(&flow, b"first datagram"), b"first datagram");
    configured.reload(&text(places[1]));
    until("it is over although it is never silent", || {
        let _ = flow.send(b"more");
        configured.redirect.log_with(&["closed service=web", "outcome=drained"]).len() == 1
    });
    until("its socket is closed", || std::net::UdpSocket::bind(places[0]).is_ok());
    assert_eq!(ask(&sender(places[1]), b"new place"), b"new place");
}

/// Returns the UDP sockets at a port of this host. The system may list one twice, or omit
/// one, while others open and close.
fn sockets_at(place: SocketAddr) -> usize {
    let end = format!(":{:04X}", place.port());
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&end))
        .map(|row| row[9].to_string())
        .collect::<HashSet<_>>()
        .len()
}

#[test]
fn flows_of_all_threads_go_on_until_the_last_one_of_their_place_has_ended() {
    let sink = Sink::echo();
    let places = places(2);
    let text = |place: SocketAddr| {
        format!("service_web_listen={place}/udp\nredirect_threads=8\nservice_web_udp_idle=1s\n")
    };
    let configured = Configured::start(&[sink.address], &text(places[0]));
    until("it has a socket for each thread", || sockets_at(places[0]) == 8);
    let clients: Vec<_> = (0..40).map(|_| sender(places[0])).collect();
    clients.iter().for_each(|client| assert_eq!(ask(client, b"?"), b"?"));
    let line = configured.redirect.log_with(&["ready"]).concat();
    assert_eq!(line.matches("web=").count(), 1, "a place is told once: {line}");
    // Most threads have soon no flow left.
    configured.reload(&text(places[1]));
    let ended = || configured.redirect.log_with(&["closed service=web", "outcome=idle"]).len();
    until("the others are over", || {
        clients[..2]
            .iter()
            .for_each(|client| assert_eq!(ask(client, b"still here?"), b"still here?"));
        ended() >= 38
    });
    for _ in 0..20 {
        clients[..2]
            .iter()
            .for_each(|client| assert_eq!(ask(client, b"still here?"), b"still here?"));
    }
    until("its sockets are closed", || sockets_at(places[0]) == 0);
    until("each flow is logged", || ended() == 40);
    assert_eq!(ask(&sender(places[1]), b"new place"), b"new place");
}

#[test]
fn a_longer_wait_is_no_reason_to_give_the_queue_up() {
    let provider = Provider::echo();
    let places = places(1);
    let text = format!(
        "service_web_listen={}\nredirect_threads=1\nredirect_queue_timeout=200ms\n",
        places[0]
    );
    let mut configured = Configured::start(&[], &format!("{text}redirect_wait=200ms\n"));
    configured.reload(&format!("{text}redirect_wait=30s\n"));
    let mut client = connect(places[0]);
    client.write_all(b"patience").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until("it waits for a ticket", || configured.queue.status().queue().number("waiting") == 1);
    // Longer than the timeout that was in force at the start.
    configured.redirect.idles();
    configured.queue.offer(provider.address, 1);
    assert_eq!(drain(&mut client), (b"patience".to_vec(), End::Fin));
    configured.redirect.closed(&["outcome=complete"]);
    assert!(configured.redirect.log_with(&["it does not answer"]).is_empty());
}

#[test]
fn a_full_process_that_ends_takes_nobody_in_for_long() {
    let provider = Provider::echo();
    let places = places(2);
    let text = |list: &str| format!("redirect_connections_max=1\nservice_web_listen='{list}'\n");
    let mut configured =
        Configured::start(&[provider.address], &text(&format!("{} {}", places[0], places[1])));
    let mut first = running(places[0]);
    let _waits = connect(places[1]);
    configured.reload(&text(&places[0].to_string()));
    until("the socket is closed although a client waits", || refused(places[1]));
    let _waits = connect(places[0]);
    configured.redirect.signal(libc::SIGTERM);
    until("the other one, too", || refused(places[0]));
    first.write_all(b"goes on").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut first), (b"goes on".to_vec(), End::Fin));
    assert_eq!(configured.redirect.ends(), 0);
}

#[test]
fn more_threads_and_the_first_place_for_streams_may_come_at_once() {
    let provider = Provider::echo();
    let places = places(3);
    let directory = Directory::new();
    let file = |text: String| {
        let first = format!("redirect_queue=embedded\nqueue_listen={}\n", places[0]);
        directory
            .write("pegasus.conf", &format!("{first}service_dns_listen={}/udp\n{text}", places[1]))
    };
    let conf = file("redirect_threads=1\n".into());
    let mut redirect = Redirect::of(program().args(["redirect", "-c", &conf]));
    let _monitor = monitor(places[0], provider.address, &[]);
    file(format!("redirect_threads=4\nservice_web_listen={}\n", places[2]));
    redirect.signal(libc::SIGHUP);
    redirect.says(&["added web="]);
    until("clients are served there", || visit(places[2], "first stream") == Ok(()));
}

#[test]
fn who_is_here_has_the_new_idle_timeout() {
    let provider = Provider::echo();
    let places = places(1);
    let text = format!("service_web_listen={}\n", places[0]);
    let mut configured = Configured::start(&[provider.address], &text);
    let mut silent = running(places[0]);
    configured.reload(&format!("{text}redirect_idle_timeout=100ms\n"));
    // It would be examined only after half a minute.
    silent.set_read_timeout(Some(PATIENCE / 3)).unwrap();
    let ended = silent.read(&mut [0]);
    assert!(!ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{ended:?}");
    configured.redirect.closed(&["outcome=idle"]);
}
