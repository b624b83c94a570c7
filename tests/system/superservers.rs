//! Inherited sockets: one process for many clients of inetd, sockets that systemd passes,
//! and tcpserver.

use crate::support::inetd::{entry, Inetd};
use crate::support::pegasus::{command, Balancer, Queue};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, pair, End};
use crate::support::visits::Visits;
use crate::support::{free_port, tool, until, until_some};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

const LINGER: &str = "redirect_linger=300ms";

/// Sends and receives a byte, so that the client is certainly connected to an echo.
#[track_caller]
fn begin(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
}

/// Closes an echo cleanly.
#[track_caller]
fn finish(mut client: TcpStream, word: &str) {
    client.write_all(word.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&mut client), (word.as_bytes().to_vec(), End::Fin));
}

#[test]
fn one_process_of_inetd_serves_many_and_the_next_one_comes_after_some_idleness() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1000);
    let inetd = Inetd::redirect_all(queue.address, &[LINGER]);
    for round in 1..=3 {
        assert!(inetd.listener_blocks(), "inetd gets back what it lent");
        // While one is connected, the process is not idle.
        let mut first = connect(inetd.address);
        begin(&mut first);
        let clients: Vec<TcpStream> = (0..30).map(|_| connect(inetd.address)).collect();
        for (number, client) in clients.into_iter().enumerate() {
            finish(client, &format!("client {number}"));
        }
        finish(first, "the first");
        until("inetd said what it started", || inetd.started().len() >= round);
        assert_eq!(inetd.started().len(), round);
        until("it leaves", || inetd.ended() == round);
    }
    assert_eq!(inetd.log().matches("outcome=complete").count(), 3 * 31, "{}", inetd.log());
    until("nothing in progress", || queue.status().active(provider.address) == 0);
}

#[test]
fn one_that_is_told_to_end_or_killed_leaves_the_socket_to_the_next() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1000);
    let inetd = Inetd::redirect_all(queue.address, &[LINGER]);
    for (round, signal) in [libc::SIGTERM, libc::SIGKILL, libc::SIGTERM].into_iter().enumerate() {
        let mut client = connect(inetd.address);
        begin(&mut client);
        let process =
            until_some("inetd said what it started", || inetd.started().get(round).copied());
        // SAFETY: plain numbers; inetd has not reaped it, because it has a client.
        unsafe { libc::kill(process, signal) };
        if signal == libc::SIGKILL {
            drain(&mut client);
        } else {
            until("it drains", || inetd.log().matches("draining").count() > round / 2);
            finish(client, "goes on");
        }
        until("it is gone", || inetd.ended() == round + 1);
        assert!(signal == libc::SIGKILL || inetd.listener_blocks());
    }
    let mut first = connect(inetd.address);
    begin(&mut first);
    let process = until_some("inetd said what it started", || inetd.started().get(3).copied());
    // SAFETY: as above.
    unsafe { libc::kill(process, libc::SIGTERM) };
    until("it drains", || inetd.log().matches("draining").count() == 3);
    let second = connect(inetd.address);
    finish(first, "goes on");
    finish(second, "served by the next one");
}

/// A client that was left there would start the next process at once, for ever.
#[test]
fn one_that_cannot_serve_or_does_not_linger_takes_the_client_it_was_started_for() {
    let queue = Queue::start(&[]);
    let provider = Provider::named("served");
    queue.offer(provider.address, 1000);
    for (setting, word) in [("nonsense=1", ""), ("redirect_linger=0", "served")] {
        let inetd = Inetd::redirect_all(queue.address, &[setting]);
        for round in 1..=2 {
            assert_eq!(drain(&mut connect(inetd.address)).0, word.as_bytes(), "{setting}");
            until("it left", || inetd.ended() == round);
            assert_eq!(inetd.started().len(), round, "{setting}: one start for one client");
            assert!(inetd.listener_blocks());
        }
    }
}

/// The redirector with these sockets on descriptors 3 and 4, as from systemd.
#[track_caller]
fn passed(sockets: [OwnedFd; 2], variables: &str, redirect: &Command) -> Process {
    let mut shell = Command::new("/bin/sh");
    let script = format!("{variables} exec \"$@\" 3<&0 4<&1 </dev/null >/dev/null");
    shell.args(["-c", &script, "sh"]).arg(redirect.get_program()).args(redirect.get_args());
    let [third, fourth] = sockets;
    shell.stdin(Stdio::from(third)).stdout(Stdio::from(fourth)).stderr(Stdio::piped());
    Process::start_as_is("redirect", &mut shell)
}

const FOR_THIS_PROCESS: &str = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:shop";

/// Listeners that stay open, as in systemd, and copies to pass.
fn kept() -> ([TcpListener; 2], [SocketAddr; 2]) {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let places = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    (listeners, places)
}

fn copies(listeners: &[TcpListener; 2]) -> [OwnedFd; 2] {
    listeners.each_ref().map(|listener| listener.try_clone().unwrap().into())
}

#[test]
fn sockets_of_systemd_serve_by_their_names_and_outlive_a_daemon() {
    let web = Provider::echo();
    let shop = Provider::named("shop");
    let queue = Queue::start(&[]);
    queue.offer(web.address, 1000);
    queue.ask(&format!(
        "ticket?service=shop&provider={}&tickets=1000&capacity=1000&lease=10m",
        shop.address
    ));
    let (listeners, places) = kept();
    let at = format!("redirect_queue={}", queue.address);
    let redirect =
        command("redirect", &[&at, "service_web_scheduler=fifo", "service_shop_scheduler=fifo"]);
    let mut daemon = passed(copies(&listeners), FOR_THIS_PROCESS, &redirect);
    daemon.says(&["ready", &format!("web={}", places[0]), &format!("shop={}", places[1])]);
    let mut client = connect(places[0]);
    begin(&mut client);
    assert_eq!(drain(&mut connect(places[1])), (b"shop".to_vec(), End::Fin));

    daemon.signal(libc::SIGTERM);
    daemon.says(&["draining"]);
    assert!(daemon.runs(), "a client is connected");
    // Until each of its threads heard it, they accept clients.
    for place in places {
        // A table that changes while it is read may lack a line.
        let line = until_some("it is open here", || entry(place.port(), false));
        let socket = format!("socket:[{}]", line[9]);
        until("it does not listen any more", || daemon.open(&socket) == 0);
    }
    // No client is refused while it drains or is gone, and the next daemon serves them.
    let while_draining = connect(places[0]);
    finish(client, "goes on");
    assert_eq!(daemon.ends(), 0);
    let between = [connect(places[0]), connect(places[1])];
    let _next = passed(copies(&listeners), FOR_THIS_PROCESS, &redirect);
    let [waiting, mut other] = between;
    finish(while_draining, "waited for the drain");
    finish(waiting, "waited");
    assert_eq!(drain(&mut other).0, b"shop");
}

#[test]
fn a_restart_on_sockets_that_stay_fails_no_client() {
    let echo = Provider::echo();
    let queue = Queue::start(&[]);
    queue.offer(echo.address, 1000);
    let (listeners, places) = kept();
    let redirect = command("redirect", &[&format!("redirect_queue={}", queue.address)]);
    let start = || {
        let mut daemon = passed(copies(&listeners), FOR_THIS_PROCESS, &redirect);
        daemon.says(&["ready"]);
        daemon
    };
    let mut old = start();
    let visits = Visits::start(places[0], 4);
    let mut client = connect(places[0]);
    begin(&mut client);
    for turn in 0..3 {
        let visited = visits.count();
        until("clients come", || visits.count() > visited + 20);
        old.signal(libc::SIGTERM);
        old.says(&["draining"]);
        // The same listening sockets, while the old daemon still has a client.
        let mut next = start();
        let mut newer = connect(places[0]);
        let visited = visits.count();
        until("the next daemon serves", || visits.count() > visited + 20);
        assert!(old.runs(), "turn {turn}: a client is connected");
        begin(&mut newer);
        finish(std::mem::replace(&mut client, newer), "to its end");
        assert_eq!(old.ends(), 0);
        std::mem::swap(&mut old, &mut next);
    }
    assert_eq!(visits.end(), Vec::<String>::new());
}

#[test]
fn a_connection_of_systemd_is_one_client() {
    let queue = Queue::start(&[]);
    let provider = Provider::echo();
    queue.offer(provider.address, 1);
    let redirect = {
        let mut redirect = command("redirect", &[&format!("redirect_queue={}", queue.address)]);
        redirect.args(["-s", "web"]);
        redirect
    };
    let (client, server) = pair();
    let sockets = [server.into(), OwnedFd::from(std::fs::File::open("/dev/null").unwrap())];
    let mut process =
        passed(sockets, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=connection", &redirect);
    finish(client, "hello");
    assert_eq!(process.ends(), 0);
}

#[test]
fn sockets_for_another_process_are_not_ours() {
    let (listeners, _) = kept();
    let redirect = command("redirect", &[]);
    let mut process = passed(copies(&listeners), "LISTEN_PID=1 LISTEN_FDS=2", &redirect);
    process.says(&["ERROR", "nothing to serve"]);
    assert_eq!(process.ends(), 78);
}

#[test]
fn tcpserver_starts_one_for_each_client_and_keeps_the_log() {
    let provider = Provider::echo();
    let balancer = Balancer::before(&[provider.address], &[]);
    let port = free_port();
    let at = format!("redirect_queue={}", balancer.queue.address);
    let redirect = command("redirect", &[&at, "redirect_wait=0"]);
    let mut tcpserver = tool("tcpserver");
    tcpserver.args(["-H", "-R", "-l", "0", "-c", "100", "127.0.0.1", &port.to_string()]);
    let mut process = Process::start(
        "tcpserver",
        tcpserver.arg(redirect.get_program()).args(redirect.get_args()).args(["-s", "web"]),
    );
    let place: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    until("tcpserver listens", || TcpStream::connect(place).is_ok());
    let clients: Vec<TcpStream> = (0..20).map(|_| connect(place)).collect();
    for (number, client) in clients.into_iter().enumerate() {
        finish(client, &format!("client {number}"));
    }
    until("all are told", || {
        process.log_with(&["closed service=web", "outcome=complete"]).len() >= 20
    });
    balancer.queue.ask(&format!("withdraw?service=web&provider={}", provider.address));
    assert_eq!(
        drain(&mut connect(place)),
        (Vec::new(), End::Reset),
        "a client hears its provider, or nothing"
    );
    process.says(&["WARN", "closed service=web", "outcome=no-ticket"]);
    balancer.settles();
}
