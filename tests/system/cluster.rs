//! Whole clusters: web servers, monitors, a queue, and a redirector of each kind.

use crate::support::http::get;
use crate::support::inetd::Inetd;
use crate::support::nginx::Nginx;
use crate::support::pegasus::{monitor, Queue, Redirect};
use crate::support::process::{run, Process};
use crate::support::{tool, until};
use std::net::SocketAddr;

const NAMES: [&str; 3] = ["alpha", "bravo", "carol"];
/// Requests that each server runs at once; the clients are more than two can take.
const CAPACITY: &str = "service_web_capacity=4";
const CLIENTS: usize = 12;
const REQUESTS: usize = 1000;

/// Three web servers that compete.
pub struct Cluster {
    pub queue: Queue,
    pub monitors: Vec<Process>,
    pub servers: Vec<Nginx>,
}

impl Cluster {
    #[track_caller]
    pub fn start() -> Cluster {
        Cluster::with(Queue::start(&[]))
    }

    #[track_caller]
    pub fn with(queue: Queue) -> Cluster {
        let servers: Vec<Nginx> = NAMES.into_iter().map(Nginx::start).collect();
        let monitors = servers
            .iter()
            .map(|server| monitor(queue.address, server.address, &[CAPACITY]))
            .collect();
        let cluster = Cluster { queue, monitors, servers };
        cluster.registers();
        cluster
    }

    /// Waits until all three hold tickets.
    #[track_caller]
    pub fn registers(&self) {
        let addresses: Vec<SocketAddr> = self.servers.iter().map(|server| server.address).collect();
        self.queue.has(&addresses);
    }
}

/// Waits for a ticket as long as a busy machine may need.
pub const PATIENT: &str = "redirect_wait=20s";

/// Asserts that all requests are answered, and each server answers a good part of them.
#[track_caller]
fn bench(cluster: &Cluster, place: SocketAddr, path: &str) {
    // The redirector may not be connected to the queue yet when its first client comes.
    let visit = get(place, "/").unwrap();
    assert!(NAMES.contains(&visit.body.unwrap().trim_end()));
    let before: Vec<usize> = cluster.servers.iter().map(Nginx::answered).collect();
    let requests = REQUESTS.to_string();
    let clients = CLIENTS.to_string();
    let url = format!("http://{place}{path}");
    let (status, out, err) =
        run(tool("ab").args(["-q", "-n", &requests, "-c", &clients, &url]), b"");
    let number = |name: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
    };
    assert_eq!((status, number("Complete requests:")), (0, Some(REQUESTS)), "{out}\n{err}");
    assert_eq!(number("Failed requests:"), Some(0), "{out}");
    assert_eq!(number("Non-2xx responses:"), None, "{out}");
    let mut counts = Vec::new();
    until("all are in the access logs", || {
        counts = cluster
            .servers
            .iter()
            .zip(&before)
            .map(|(server, before)| server.answered() - before)
            .collect();
        counts.iter().sum::<usize>() >= REQUESTS
    });
    assert_eq!(counts.iter().sum::<usize>(), REQUESTS, "{counts:?}");
    assert!(counts.iter().all(|count| *count >= REQUESTS / 20), "all three are used: {counts:?}");
}

#[test]
fn a_thousand_requests_through_a_redirector_of_its_own() {
    let cluster = Cluster::start();
    let redirect = Redirect::start(cluster.queue.address, &[PATIENT]);
    bench(&cluster, redirect.address, "/slow");
    until("nothing in progress", || {
        cluster.queue.status().providers().all(|row| row.number("active") == 0)
    });
    // The benchmark opens some connections that it does not use in the end.
    until("all are in its log", || {
        redirect.log_with(&["closed service=web", "outcome=complete"]).len() > REQUESTS
    });
}

#[test]
fn a_thousand_requests_through_inetd() {
    let cluster = Cluster::start();
    let inetd = Inetd::redirect(cluster.queue.address, &[PATIENT]);
    bench(&cluster, inetd.address, "/slow");
    until("nothing in progress", || {
        cluster.queue.status().providers().all(|row| row.number("active") == 0)
    });
    until("all are gone", || cluster.queue.status().queue().number("connections") == 4);
    until("all are in the log", || inetd.log().matches("outcome=complete").count() > REQUESTS);
}

#[test]
fn a_thousand_requests_through_a_redirector_that_inetd_started_once() {
    let cluster = Cluster::start();
    let inetd = Inetd::redirect_all(cluster.queue.address, &[PATIENT, "redirect_linger=300ms"]);
    bench(&cluster, inetd.address, "/slow");
    // It ends when it is idle, and is started again for the next client.
    until("it has left", || cluster.queue.status().queue().number("connections") == 4);
    assert!(NAMES.contains(&get(inetd.address, "/").unwrap().body.unwrap().trim_end()));
    until("it has left again", || cluster.queue.status().queue().number("connections") == 4);
}

#[test]
fn curl_meets_all_three() {
    let cluster = Cluster::start();
    let redirect = Redirect::start(cluster.queue.address, &[PATIENT]);
    let url = format!("http://{}/#[1-60]", redirect.address);
    let (status, out, err) = run(tool("curl").args(["-sS", "-H", "Connection: close", &url]), b"");
    assert_eq!(status, 0, "{err}");
    let count = |name: &str| out.lines().filter(|line| *line == name).count();
    assert_eq!(NAMES.into_iter().map(count).sum::<usize>(), 60, "{out}");
    assert!(NAMES.into_iter().all(|name| count(name) > 0), "equals take turns: {out}");
}

#[test]
fn one_daemon_may_be_queue_and_redirector() {
    use crate::support::pegasus::command;
    let settings =
        ["redirect_queue=embedded", "queue_listen=127.0.0.1:0", "service_web_listen=127.0.0.1:0"];
    let mut daemon = Process::start("balancer", &mut command("redirect", &settings));
    let address =
        |line: String| -> SocketAddr { line.rsplit([' ', '=']).next().unwrap().parse().unwrap() };
    let queue = address(daemon.says(&["[queue] ready"]));
    let place = address(daemon.says(&["[redirect] ready"]));
    let server = Nginx::start("alpha");
    let _monitor = monitor(queue, server.address, &[CAPACITY]);
    assert_eq!(get(place, "/").unwrap().body.unwrap(), "alpha\n");
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ends(), 0);
}
