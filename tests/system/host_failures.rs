//! Parts of a cluster that die, hang and come back, while clients go on.

use super::cluster::{Cluster, PATIENT};
use crate::support::control_connection::Row;
use crate::support::http::{fetch, get};
use crate::support::pegasus::{monitor, Queue, Redirect};
use crate::support::provider::Provider;
use crate::support::socket::{connect, drain, End};
use crate::support::{free_port, until, until_some};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Mutex};
use std::thread;

/// Of a server with capacity 4: requests that run and queue there at once.
const IN_PROGRESS_MAX: usize = 16;

#[test]
fn a_server_that_is_killed_takes_only_its_own_requests_with_it() {
    let mut cluster = Cluster::start();
    let redirect = Redirect::start(cluster.queue.address, &[PATIENT]);
    let victim = cluster.servers[0].address;
    let done = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let visit = get(redirect.address, "/slow").unwrap();
                    if let Err(error) = visit.body {
                        failed.lock().unwrap().push((visit.port, error));
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        until("requests flow", || done.load(Ordering::SeqCst) >= 100);
        cluster.servers[0].kill();
        until("its tickets are gone", || cluster.queue.status().tickets(victim) == 0);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.len() <= IN_PROGRESS_MAX, "{failed:?}");
    for (port, error) in &failed {
        let line = until_some("its line in the log", || {
            redirect.log_with(&["closed service=web", &format!("client=127.0.0.1:{port} ")]).pop()
        });
        // Its request had been sent there already, and is not sent again.
        let row = Row::read(&line);
        assert_eq!(row.text("provider"), victim.to_string(), "{error}: {line}");
        assert_ne!(row.number("received"), 0, "{line}");
    }
    assert!(get(redirect.address, "/").unwrap().body.is_ok());

    cluster.servers[0].start_again();
    cluster.registers();
    let before = cluster.servers[0].answered();
    until("it is used again", || {
        get(redirect.address, "/").unwrap().body.unwrap();
        cluster.servers[0].answered() > before
    });
}

#[test]
fn a_server_without_its_monitor_keeps_its_tickets_for_a_lease() {
    let cluster = Cluster::start();
    let stopped = cluster.servers[1].address;
    cluster.monitors[1].signal(libc::SIGSTOP);
    until("the lease ends", || cluster.queue.status().tickets(stopped) == 0);
    let others = [cluster.servers[0].address, cluster.servers[2].address];
    assert!(others.iter().all(|server| cluster.queue.status().tickets(server) > 0));
    cluster.monitors[1].signal(libc::SIGCONT);
    cluster.registers();
}

#[test]
fn a_monitor_that_is_told_to_end_withdraws() {
    let mut cluster = Cluster::start();
    let left = cluster.servers[2].address;
    cluster.monitors[2].signal(libc::SIGTERM);
    assert_eq!(cluster.monitors[2].ends(), 0);
    assert_eq!(cluster.queue.status().tickets(left), 0, "it leaves after its tickets, not before");
    cluster.queue.says(&["withdrew", &left.to_string()]);
}

#[test]
fn a_monitor_that_ends_waits_for_what_is_in_progress() {
    let (go, provider) = held();
    let queue = Queue::start(&[]);
    let mut monitor = monitor(queue.address, provider.address, &["service_web_check=off"]);
    queue.has(&[provider.address]);
    let redirect = Redirect::start(queue.address, &[]);
    let mut client = connect(redirect.address);
    client.read_exact(&mut [0; FIRST.len()]).unwrap();
    monitor.signal(libc::SIGTERM);
    until("its tickets are gone", || queue.status().tickets(provider.address) == 0);
    assert!(monitor.runs());
    go.send(()).unwrap();
    assert_eq!(drain(&mut client), (REST.to_vec(), End::Fin));
    assert_eq!(monitor.ends(), 0);
}

#[test]
fn a_monitor_calls_a_dead_server_full_and_a_living_one_well() {
    let mut cluster = Cluster::start();
    cluster.servers[0].kill();
    cluster.monitors[0].says(&["WARN", "service web fails its check"]);
    until("no tickets", || cluster.queue.status().tickets(cluster.servers[0].address) == 0);
    cluster.servers[0].start_again();
    let said = |cluster: &Cluster| cluster.monitors[0].log_with(&["service web is healthy"]).len();
    until("it is well again", || said(&cluster) == 2);
    cluster.registers();
}

const FIRST: &[u8] = b"first half,";
const REST: &[u8] = b" second half";

/// A provider that sends one half, and the rest when it is told to go on.
fn held() -> (mpsc::Sender<()>, Provider) {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let provider = Provider::start(move |mut stream| {
        stream.write_all(FIRST).unwrap();
        if gone.lock().unwrap().recv().is_ok() {
            stream.write_all(REST).unwrap();
        }
    });
    (go, provider)
}

#[test]
fn a_queue_that_is_killed_is_missed_by_newcomers_only() {
    let port = free_port();
    let queue = Queue::at(port, &[]);
    let address = queue.address;
    let (go, held) = held();
    queue.offer(held.address, 1);
    let redirect = Redirect::start(address, &["redirect_queue_timeout=25s", PATIENT]);
    let mut running = connect(redirect.address);
    running.read_exact(&mut [0; FIRST.len()]).unwrap();
    queue.ask(&format!("withdraw?service=web&provider={}", held.address));
    let mut cluster = Cluster::with(queue);

    cluster.queue.kill();
    let place = redirect.address;
    let newcomers: Vec<_> = (0..20).map(|_| connect(place)).collect();
    let clients: Vec<_> = newcomers
        .into_iter()
        .map(|mut stream| thread::spawn(move || fetch(&mut stream, "/")))
        .collect();
    go.send(()).unwrap();
    assert_eq!(
        drain(&mut running),
        (REST.to_vec(), End::Fin),
        "who was joined already is untouched"
    );
    assert!(
        clients.iter().all(|client| !client.is_finished()),
        "without a queue no client is served"
    );

    cluster.queue = Queue::at(port, &[]);
    cluster.registers();
    for client in clients {
        assert!(client.join().unwrap().is_ok());
    }
    assert!(get(place, "/").unwrap().body.is_ok());
}

#[test]
fn without_a_queue_clients_are_turned_away_in_time() {
    let port = free_port();
    let mut queue = Queue::at(port, &[]);
    let mut redirect = Redirect::start(queue.address, &["redirect_queue_timeout=300ms"]);
    assert_eq!(drain(&mut connect(redirect.address)).1, End::Reset);
    queue.kill();
    let mut client = connect(redirect.address);
    assert_eq!(drain(&mut client), (Vec::new(), End::Reset));
    redirect.closed(&["WARN", "outcome=queue-unreachable"]);
    // The client does not give up.
    let queue = Queue::at(port, &[]);
    let provider = Provider::named("back");
    queue.offer(provider.address, 10);
    until("clients are served again", || drain(&mut connect(redirect.address)).0 == b"back");
    redirect.says(&["INFO", "is back"]);
}

#[test]
fn a_queue_that_hangs_is_one_that_is_away() {
    let queue = Queue::start(&[]);
    let provider = Provider::named("served");
    queue.offer(provider.address, 10);
    let mut redirect =
        Redirect::start(queue.address, &["redirect_queue_timeout=300ms", "redirect_wait=300ms"]);
    assert_eq!(drain(&mut connect(redirect.address)).0, b"served");
    queue.signal(libc::SIGSTOP);
    assert_eq!(drain(&mut connect(redirect.address)), (Vec::new(), End::Reset));
    redirect.closed(&["WARN", "outcome=queue-unreachable"]);
    queue.signal(libc::SIGCONT);
    until("clients are served again", || drain(&mut connect(redirect.address)).0 == b"served");
    until("nothing in progress", || queue.status().active(provider.address) == 0);
}
