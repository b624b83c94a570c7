//! The ticket law over real sockets: no client is refused where there is room,
//! nothing is exceeded that was promised, failing fast attracts no client, and
//! monitors come, go and change without a client noticing.

use crate::support::nginx::Nginx;
use crate::support::pegasus::{closed_address, monitor, Balancer, Queue, Redirect, SERVICE};
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, reset, End};
use crate::support::{until, Directory};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Greets, and then keeps its client as long as that wants to stay.
fn holding() -> Provider {
    Provider::start(|mut stream| {
        let _ = stream.set_read_timeout(None);
        if stream.write_all(b"!").is_ok() {
            let _ = stream.read(&mut [0; 16]);
        }
    })
}

/// A client that was greeted.
#[track_caller]
fn held(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    client.read_exact(&mut [0; 1]).expect("a client that is served");
    client
}

/// Thirty clients that come at once. See [`held`].
fn thirty_clients(address: SocketAddr) -> Vec<JoinHandle<TcpStream>> {
    (0..30).map(|_| thread::spawn(move || held(address))).collect()
}

/// All of them, when each is served.
fn all(clients: Vec<JoinHandle<TcpStream>>) -> Vec<TcpStream> {
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

/// Whether a client is greeted, without any retry.
fn served(address: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(address) else { return false };
    client.read_exact(&mut [0; 1]).is_ok()
}

/// Processes that use a CPU each until they are dropped.
struct Hogs(Vec<Process>);

impl Hogs {
    fn start(count: usize, nice: &str) -> Hogs {
        let hog = |_| {
            let mut command = Command::new("nice");
            command.args(["-n", nice, "sh", "-c", "while :; do :; done"]);
            Process::start("hog", &mut command)
        };
        Hogs((0..count).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Process::kill);
    }
}

#[test]
fn connections_that_merely_stay_are_never_refused() {
    let provider = holding();
    let queue = Queue::start(&[]);
    let _monitor = monitor(queue.address, provider.address, &[]);
    queue.has(&[provider.address]);
    let redirect = Redirect::start(queue.address, &[]);
    let clients: Vec<TcpStream> = (0..600).map(|_| held(redirect.address)).collect();
    until("they are counted", || queue.status().active(provider.address) == clients.len() as u64);
}

/// Asks a web server, and keeps the connection.
#[track_caller]
fn ask(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("a connection");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nweb\n") {
        let mut piece = [0; 512];
        let count = client.read(&mut piece).expect("an answer");
        assert!(count > 0, "cut off after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// A client of a web server that has its answer and stays.
#[track_caller]
fn kept(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    ask(&mut client);
    client
}

#[test]
fn web_clients_that_keep_their_connections_are_never_refused() {
    let servers = [(); 3].map(|()| Nginx::start("web"));
    let queue = Queue::start(&[]);
    let addresses = servers.each_ref().map(|server| server.address);
    let _monitors = addresses.map(|address| monitor(queue.address, address, &[]));
    queue.has(&addresses);
    let redirect = Redirect::start(queue.address, &[]);
    for (count, nice) in [(900u64, None), (300, Some("19")), (300, Some("0"))] {
        let _hogs = nice.map(|nice| Hogs::start(4, nice));
        let mut clients: Vec<TcpStream> = (0..count).map(|_| kept(redirect.address)).collect();
        let active = || addresses.map(|address| queue.status().active(address)).iter().sum::<u64>();
        until("they are counted", || count == active());
        clients.iter_mut().for_each(ask);
        drop(clients);
        until("they are gone", || active() == 0);
    }
}

/// One redirector may have ten thousand clients, but half of the file limit here.
#[test]
#[ignore = "10,000 connections: cargo test --test main ten_thousand -- --ignored"]
fn ten_thousand_connections_to_one_idle_provider_are_never_refused() {
    let server = Nginx::serving(
        "web",
        Directory::new(),
        "backlog=1024",
        "keepalive_timeout 10m; location = / { return 200 'web\n'; }",
    );
    let queue = Queue::start(&[]);
    let _monitor = monitor(queue.address, server.address, &[]);
    queue.has(&[server.address]);
    let redirects = [Redirect::start(queue.address, &[]), Redirect::start(queue.address, &[])];
    let mut clients: Vec<TcpStream> =
        (0..10_000).map(|number| kept(redirects[number % 2].address)).collect();
    until("they are counted", || queue.status().active(server.address) == 10_000);
    clients.iter_mut().step_by(100).for_each(ask);
}

#[test]
fn the_jobs_of_others_are_no_reason_to_refuse() {
    let provider = holding();
    let queue = Queue::start(&[]);
    let _monitor = monitor(queue.address, provider.address, &[]);
    queue.has(&[provider.address]);
    let redirect = Redirect::start(queue.address, &[]);
    for nice in ["19", "0"] {
        let _hogs = Hogs::start(4, nice);
        let clients: Vec<TcpStream> = (0..100).map(|_| held(redirect.address)).collect();
        drop(clients);
    }
}

#[test]
fn a_strict_capacity_is_kept_over_all_balancers() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (now.clone(), most.clone());
    let provider = Provider::start(move |mut stream| {
        let mut request = [0; 16];
        // Checks say nothing.
        if !matches!(stream.read(&mut request), Ok(1..)) {
            return;
        }
        highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        counted.fetch_sub(1, Ordering::SeqCst);
        let _ = stream.write_all(b"!");
    });
    let queues = [Queue::start(&[]), Queue::start(&[]), Queue::start(&[])];
    let addresses = queues.each_ref().map(|queue| queue.address.to_string()).join(" ");
    let balancers = format!("monitor_balancers={addresses}");
    let place = format!("service_{SERVICE}_provider={}", provider.address);
    let settings = [
        balancers.as_str(),
        place.as_str(),
        "monitor_interval=200ms",
        "service_web_capacity=2",
        "service_web_check=off",
    ];
    let mut monitor =
        Process::start("monitor", &mut crate::support::pegasus::command("monitor", &settings));
    monitor.says(&["[monitor] ready "]);
    let redirects =
        queues.each_ref().map(|queue| Redirect::start(queue.address, &["redirect_wait=20s"]));
    let threads: Vec<_> = redirects
        .iter()
        .flat_map(|redirect| [redirect.address; 3])
        .map(|address| {
            thread::spawn(move || {
                for _ in 0..20 {
                    let mut client = connect(address);
                    client.write_all(b"x").unwrap();
                    client.read_exact(&mut [0; 1]).expect("served, in the end");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(most.load(Ordering::SeqCst) <= 2, "{} at once", most.load(Ordering::SeqCst));
    let sum: u64 = queues
        .iter()
        .map(|queue| queue.status().provider(provider.address).unwrap().number("capacity"))
        .sum();
    assert!(sum <= 2, "{sum} places are offered");
}

#[test]
fn a_provider_that_ends_at_once_gets_hardly_any_clients() {
    type Serve = fn(TcpStream);
    let at_once: Serve = drop;
    let when_asked: Serve = |mut stream| drop(stream.read(&mut [0; 16]));
    for bad in [at_once, when_asked] {
        let good = || {
            Provider::start(|mut stream| {
                let _ = stream.read(&mut [0; 16]);
                thread::sleep(Duration::from_millis(10));
                let _ = stream.write_all(b"ok");
            })
        };
        let (bad, goods) = (Provider::start(bad), [good(), good()]);
        let mut queue = Queue::start(&[]);
        for provider in [bad.address, goods[0].address, goods[1].address] {
            queue.offer(provider, 25);
        }
        let redirect = Redirect::start(queue.address, &[]);
        let mut served = 0;
        for _ in 0..60 {
            let mut client = connect(redirect.address);
            let _ = client.write_all(b"x");
            served += usize::from(drain(&mut client).0 == b"ok");
        }
        queue.says(&["failed service=web", &format!("provider={}", bad.address)]);
        assert!(served >= 50, "{served} of 60 were served");
        assert!(bad.clients() <= 12, "{} came to it", bad.clients());
    }
}

#[test]
fn a_logger_that_only_speaks_and_ends_is_no_failure() {
    let sink = Provider::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let queue = Queue::start(&[]);
    queue.offer(sink.address, 25);
    let redirect = Redirect::start(queue.address, &[]);
    for _ in 0..10 {
        let mut client = connect(redirect.address);
        client.write_all(b"a line\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(drain(&mut client), (Vec::new(), End::Fin));
    }
    assert_eq!(queue.status().provider(sink.address).unwrap().number("failures"), 0);
}

#[test]
fn living_on_ends_a_probation() {
    let provider = holding();
    let queue = Queue::start(&[]);
    queue.offer(provider.address, 1000);
    queue.ask(&format!("failure?provider={}&service={SERVICE}", provider.address));
    let redirect = Redirect::start(queue.address, &["redirect_wait=25s"]);
    // After the hold its next offer lets it in on probation.
    let clients = thirty_clients(redirect.address);
    until("it is back", || {
        queue.offer(provider.address, 1000);
        queue.status().active(provider.address) > 0
    });
    let clients = all(clients);
    assert_eq!(queue.status().active(provider.address), clients.len() as u64);
}

#[test]
fn one_askers_trouble_is_its_own() {
    let queue = Queue::start(&[]);
    let provider = closed_address();
    queue.offer(provider, 10);
    let mut here = queue.connect();
    let grant = format!("{provider} id=");
    assert!(here.ask("next?service=web&id=1").starts_with(&grant));
    assert_eq!(here.ask("done?id=1"), "ok");
    // Another host, which cannot reach the provider.
    let elsewhere = |message: &str| {
        let mut nc = Command::new("nc");
        nc.args(["-N", "-s", "127.0.0.2", "127.0.0.1", &queue.address.port().to_string()]);
        let line = format!("pegasus://b/{message}\n");
        crate::support::process::run(&mut nc, line.as_bytes()).1.trim_end().to_string()
    };
    let failure = format!("failure?provider={provider}&service=web");
    assert!(elsewhere(&failure).starts_with("ok "));
    let row = queue.status();
    assert_eq!(row.provider(provider).unwrap().number("avoided_by"), 1);
    assert_eq!(elsewhere("next?service=web"), "error no-ticket");
    assert!(here.ask("next?service=web&id=2").starts_with(&grant), "for others it is there");
    // A second one that says so is believed.
    assert!(here.ask(&format!("{failure}&id=2")).starts_with("ok "));
    assert_eq!(here.ask("next?service=web&id=3"), "error no-ticket id=3");
}

#[test]
fn the_first_provider_to_come_does_not_get_everybody_who_waits() {
    let providers = [holding(), holding(), holding()];
    let queue = Queue::start(&[]);
    let redirect = Redirect::start(queue.address, &["redirect_wait=20s"]);
    let clients = thirty_clients(redirect.address);
    until("all wait", || queue.status().queue().number("waiting") == 30);
    let offer = |provider: &Provider| {
        let address = provider.address;
        let message = "tickets=2&capacity=1000000&weight=2&lease=10m";
        queue.ask(&format!("ticket?provider={address}&service={SERVICE}&{message}"));
    };
    providers.iter().for_each(offer);
    let _clients = all(clients);
    let status = queue.status();
    for provider in &providers {
        let active = status.active(provider.address);
        assert!((5..=15).contains(&active), "{active} of 30");
    }
}

#[test]
fn a_monitor_that_is_replaced_is_not_noticed() {
    let provider = holding();
    let mut queue = Queue::start(&[]);
    let redirect = Redirect::start(queue.address, &["redirect_wait=0"]);
    let settings = ["drain_timeout=25s"];
    let mut old = monitor(queue.address, provider.address, &settings);
    queue.has(&[provider.address]);
    let _stays = held(redirect.address);
    let mut new = monitor(queue.address, provider.address, &settings);
    new.says(&["another monitor offers this provider"]);
    queue.says(&["contested"]);
    let over = Arc::new(AtomicBool::new(false));
    let clients = thread::spawn({
        let (over, address) = (over.clone(), redirect.address);
        move || {
            let (mut all, mut good) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                all += 1;
                good += usize::from(served(address));
                thread::sleep(Duration::from_millis(5));
            }
            (all, good)
        }
    });
    old.signal(libc::SIGTERM);
    assert_eq!(old.ends(), 0, "the new one serves, so the old one need not wait");
    thread::sleep(Duration::from_millis(600));
    over.store(true, Ordering::SeqCst);
    let (all, good) = clients.join().unwrap();
    assert!(all > 20 && good == all, "{good} of {all} were served");
    assert_eq!(queue.log_with(&["contested"]).len(), 1, "said once");
}

#[test]
fn a_monitor_that_drains_only_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let provider = closed_address();
    let old = monitor(listener.local_addr().unwrap(), provider, &["service_web_check=off"]);
    let (stream, _) = listener.accept().unwrap();
    let (mut lines, mut answers) = (BufReader::new(stream.try_clone().unwrap()).lines(), stream);
    let mut next = move || lines.next().unwrap().unwrap();
    assert!(next().contains("/ticket?"));
    old.signal(libc::SIGTERM);
    let mut last = String::new();
    while !last.contains("/withdraw?") {
        let _ = answers
            .write_all(b"ok active=1.000 granted=1 waiting=0 mode=slots now=1 ended=0 held=0ms\n");
        last = next();
    }
    let _ = answers.write_all(b"ok discarded=1\n");
    for _ in 0..4 {
        let question = next();
        assert!(question.ends_with("/status?service=web"), "{question}");
        let row = format!("provider service=web address={provider} capacity=0 active=1");
        let _ = answers.write_all(format!("queue waiting=0\n{row}\n.\n").as_bytes());
    }
}

#[test]
fn a_killed_monitor_is_not_missed_before_the_next_one_is_there() {
    let provider = holding();
    let queue = Queue::start(&[]);
    let redirect = Redirect::start(queue.address, &["redirect_wait=0"]);
    let mut old = monitor(queue.address, provider.address, &[]);
    queue.has(&[provider.address]);
    let _stays = held(redirect.address);
    old.kill();
    assert!(served(redirect.address));
    let _new = monitor(queue.address, provider.address, &[]);
    until("the new one is its owner", || {
        queue.ask(&format!("withdraw?provider={}&service={SERVICE}", provider.address))
            == "ok discarded=0"
    });
    assert!(served(redirect.address), "what has an owner, nobody else withdraws");
}

#[test]
fn a_queue_that_falls_silent_is_called_again_well_before_its_lease_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _monitor =
        monitor(listener.local_addr().unwrap(), closed_address(), &["service_web_check=off"]);
    let start = Instant::now();
    let (silent, _) = listener.accept().unwrap();
    let (_again, _) = listener.accept().unwrap();
    // The lease of what it says is 5 s.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn a_reload_forgets_nothing() {
    let directory = Directory::new();
    // Written in one piece, so that no reading finds half of it.
    let write = || {
        let whole = directory.write("whole", "u=0.1 q=0 c=2\n");
        std::fs::rename(whole, directory.file("load")).unwrap();
        directory.file("load")
    };
    let load = write();
    let queue = Queue::start(&[]);
    let provider = closed_address();
    let mut held = queue.connect();
    let source = format!("monitor_load=file:{load}");
    let monitor = monitor(queue.address, provider, &["service_web_check=off", &source]);
    queue.has(&[provider]);
    for id in 1..=10 {
        assert!(!held.ask(&format!("next?service=web&id={id}")).starts_with("error"));
    }
    // Ten requests that use a tenth of the CPUs: a hundred fit.
    until("it has learned", || {
        write();
        queue.status().tickets(provider) > 60
    });
    monitor.signal(libc::SIGHUP);
    for _ in 0..40 {
        write();
        let tickets = queue.status().tickets(provider);
        assert!(tickets > 40, "{tickets} tickets after a reload");
        thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn resets_without_a_byte_count_as_failures_and_no_client_is_retried_twice() {
    let rude = Provider::start(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        reset(stream);
    });
    let mut balancer = Balancer::before(&[rude.address], &["redirect_wait=0"]);
    for _ in 0..3 {
        let mut client = connect(balancer.address());
        client.write_all(b"x").unwrap();
        assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    }
    balancer.queue.says(&["failed service=web", &format!("provider={}", rude.address)]);
    assert_eq!(drain(&mut connect(balancer.address())), (Vec::new(), End::Reset));
    assert_eq!(rude.clients(), 3);
}
