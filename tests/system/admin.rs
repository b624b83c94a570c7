//! Admin addresses: what they serve, that it is true, and that nothing that is done to
//! them reaches the clients.

use super::upgrade::Successors;
use crate::support::control_connection::{ControlConnection, Row};
use crate::support::pegasus::{command, monitor_of, path, Queue};
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::visits::{running, visit, Visits};
use crate::support::{free_ports, installed, until, Directory, PATIENCE};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

/// The address that a process serves HTTP on.
#[track_caller]
fn admin_of(process: &mut Process) -> SocketAddr {
    let line = process.says(&["[admin] serves http://"]);
    let url = line.split_whitespace().last().unwrap();
    url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

/// What comes back for these bytes: status, head and body.
fn exchange(admin: SocketAddr, bytes: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, head.to_string(), body.to_string())
}

fn get(admin: SocketAddr, path: &str) -> (u16, String, String) {
    exchange(admin, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

/// Samples by their series, after a strict look at every line.
#[track_caller]
fn samples(text: &str) -> HashMap<String, f64> {
    let (mut found, mut types) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            let (name, kind) = words.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_string(), kind.to_string()).is_none(), "twice: {line}");
            continue;
        }
        if let Some(words) = line.strip_prefix("# HELP ") {
            assert!(words.split_once(' ').is_some_and(|(_, help)| help.ends_with('.')), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|base| types.contains_key(*base)))
            .unwrap_or(name);
        let kind = types.get(family).unwrap_or_else(|| panic!("no TYPE before {line}"));
        assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(found.insert(series.to_string(), value).is_none(), "twice: {line}");
    }
    found
}

/// What Prometheus' own tool thinks of it, where that is installed.
#[track_caller]
fn check_with_promtool(text: &str) {
    let Some(promtool) = installed("promtool") else {
        crate::support::skip("promtool is not installed");
        return;
    };
    let (status, _, errors) =
        run(Command::new(promtool).args(["check", "metrics"]), text.as_bytes());
    assert_eq!((status, errors.as_str()), (0, ""), "{text}");
}

/// A balancer in one process, with its admin address.
struct Watched {
    redirect: Process,
    admin: SocketAddr,
    control: SocketAddr,
    place: SocketAddr,
    conf: String,
    directory: Directory,
}

impl Watched {
    #[track_caller]
    fn start(provider: &Provider, settings: &str) -> Watched {
        let ports: Vec<SocketAddr> =
            free_ports(3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let directory = Directory::new();
        let text = format!(
            "queue_listen={}\nservice_web_listen={}\nredirect_admin={}\n{settings}",
            ports[0], ports[1], ports[2]
        );
        let conf = directory.write("pegasus.conf", &text);
        let mut redirect =
            Process::start("redirect", Command::new(path()).args(["redirect", "-c", &conf]));
        redirect.says(&["[redirect] ready"]);
        let [control, place, admin] = ports[..] else { unreachable!() };
        let watched = Watched { redirect, admin, control, place, conf, directory };
        watched.offer(provider, 1000);
        watched
    }

    #[track_caller]
    fn offer(&self, provider: &Provider, tickets: u32) {
        let offer = format!(
            "ticket?provider={}&service=web&tickets={tickets}&capacity={tickets}&lease=10m",
            provider.address
        );
        assert!(ControlConnection::to(self.control).ask(&offer).starts_with("ok "));
    }

    /// The value of a series; 0 where there is none yet.
    #[track_caller]
    fn metric(&self, series: &str) -> f64 {
        let (status, _, text) = get(self.admin, "/metrics");
        assert_eq!(status, 200, "{text}");
        samples(&text).get(series).copied().unwrap_or(0.0)
    }

    /// Waits until so many connections were counted.
    #[track_caller]
    fn counts(&self, complete: f64) {
        let series = "pegasus_connections_total{service=\"web\",outcome=\"complete\"}";
        until(&format!("{complete} connections"), || self.metric(series) == complete);
    }
}

#[test]
fn metrics_count_what_clients_did() {
    let provider = Provider::echo();
    let watched = Watched::start(&provider, "");
    for _ in 0..3 {
        assert_eq!(visit(watched.place, "twelve bytes"), Ok(()));
    }
    watched.counts(3.0);
    let held = running(watched.place);
    until("one is here", || watched.metric("pegasus_connections{service=\"web\"}") == 1.0);
    let (_, head, text) = get(watched.admin, "/metrics");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    check_with_promtool(&text);
    let all = samples(&text);
    let number = |series: &str| all.get(series).copied().unwrap_or(-1.0);
    let provider = format!("service=\"web\",provider=\"{}\"", provider.address);
    assert_eq!(number("pegasus_granted_total{service=\"web\"}"), 4.0, "{text}");
    assert_eq!(number(&format!("pegasus_tickets{{{provider},state=\"active\"}}")), 1.0, "{text}");
    assert_eq!(number(&format!("pegasus_tickets{{{provider},state=\"free\"}}")), 999.0, "{text}");
    assert_eq!(number(&format!("pegasus_capacity{{{provider}}}")), 1000.0, "{text}");
    assert_eq!(number("pegasus_wait_seconds_count{service=\"web\"}"), 3.0, "{text}");
    assert_eq!(number("pegasus_wait_seconds_bucket{service=\"web\",le=\"+Inf\"}"), 3.0, "{text}");
    assert_eq!(number("pegasus_connect_seconds_count{service=\"web\"}"), 4.0, "{text}");
    assert_eq!(number("pegasus_bytes_total{service=\"web\",direction=\"sent\"}"), 36.0, "{text}");
    assert!(number("process_open_fds") > 5.0 && number("process_resident_memory_bytes") > 1e5);
    drop(held);
}

#[test]
fn refusals_are_counted_by_reason_and_retries_too() {
    let provider = Provider::echo();
    let watched = Watched::start(&provider, "redirect_wait=0\nmetrics_detail=service\n");
    let dead = crate::support::pegasus::closed_address();
    let offer = format!("ticket?provider={dead}&service=web&tickets=9999&capacity=9999&lease=10m");
    assert!(ControlConnection::to(watched.control).ask(&offer).starts_with("ok "));
    until("the dead one was tried", || {
        assert_eq!(visit(watched.place, "all the same"), Ok(()));
        watched.metric("pegasus_retries_total{service=\"web\"}") == 1.0
    });
    until("the failure is counted", || {
        watched.metric("pegasus_failures_total{service=\"web\"}") == 1.0
    });
    ControlConnection::to(watched.control)
        .ask(&format!("withdraw?provider={}&service=web", provider.address));
    assert!(visit(watched.place, "nobody is there").is_err());
    until("it is counted", || {
        watched.metric("pegasus_refused_total{service=\"web\",reason=\"no-ticket\"}") == 1.0
    });
    let (_, _, text) = get(watched.admin, "/metrics");
    assert!(!text.contains("provider=\""), "metrics_detail=service: {text}");
    check_with_promtool(&text);
}

#[test]
fn the_status_the_page_and_json_say_what_the_queue_says() {
    let provider = Provider::echo();
    let watched = Watched::start(&provider, "");
    assert_eq!(visit(watched.place, "once"), Ok(()));
    watched.counts(1.0);
    let status = || {
        let mut rows: Vec<Row> = Vec::new();
        for line in get(watched.admin, "/status").2.lines() {
            rows.push(Row::read(line));
        }
        rows
    };
    until("the status is that of the control connection", || {
        let own = ControlConnection::to(watched.control).status();
        let rows = status();
        let Some(row) = rows.iter().find(|row| row.kind == "provider") else { return false };
        let same = ["address", "tickets", "capacity", "free", "active", "granted", "state"]
            .iter()
            .all(|key| row.text(key) == own.provider(provider.address).unwrap().text(key));
        same && row.number("granted") == 1
    });
    let (_, head, json) = get(watched.admin, "/status.json");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    let words = ["\"granted\":1,", "\"why\":\"1000 of 1000 tickets free\"", "registered\""];
    assert!(words.iter().all(|word| json.contains(word)), "{json}");
    let (code, head, page) = get(watched.admin, "/");
    assert_eq!(code, 200);
    assert!(head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
    assert!(page.contains(&provider.address.to_string()), "{page}");
    assert!(page.contains("1000 of 1000 tickets free"), "{page}");
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for word in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!outside.contains(word), "an outside resource: {word}");
    }
}

#[test]
fn health_is_bad_without_a_provider_and_while_it_drains() {
    let provider = Provider::echo();
    let mut watched = Watched::start(&provider, "");
    until("it is healthy", || get(watched.admin, "/health").0 == 200);
    ControlConnection::to(watched.control)
        .ask(&format!("withdraw?provider={}&service=web", provider.address));
    until("no provider", || get(watched.admin, "/health").0 == 503);
    watched.offer(&provider, 10);
    until("it is healthy again", || get(watched.admin, "/health").0 == 200);
    let held = running(watched.place);
    watched.redirect.signal(libc::SIGTERM);
    until("it drains", || {
        let (status, _, text) = get(watched.admin, "/health");
        (status, text.trim_end()) == (503, "draining")
    });
    drop(held);
    assert_eq!(watched.redirect.ends(), 0);
}

/// Under load: a counter that went back would be seen by one of the looks.
#[test]
fn counters_survive_a_reload_and_upgrades_to_the_last_client() {
    let provider = Provider::echo();
    let watched = Watched::start(&provider, "");
    let complete = "pegasus_connections_total{service=\"web\",outcome=\"complete\"}";
    let (visits, mut last) = (Visits::start(watched.place, 4), 0.0);
    let mut look = |watched: &Watched, more: f64| {
        let wanted = last + more;
        until("more were counted", || {
            let now = watched.metric(complete);
            assert!(now >= last, "from {last} back to {now}");
            last = now;
            now >= wanted
        });
    };
    look(&watched, 20.0);
    watched.redirect.signal(libc::SIGHUP);
    until("it was read again", || {
        !watched.redirect.log_with(&["configuration reloaded"]).is_empty()
    });
    look(&watched, 20.0);
    let mut successors = Successors::default();
    let mut held = running(watched.place);
    for _ in 0..3 {
        successors.upgrade(&watched.redirect);
        look(&watched, 20.0);
    }
    assert_eq!(visits.end(), Vec::<String>::new());
    // The client of the first process is counted by the last one.
    held.shutdown(Shutdown::Write).unwrap();
    let _ = held.read_to_end(&mut Vec::new());
    let closes = || watched.redirect.log_with(&["closed service=web", "outcome=complete"]).len();
    // The log may be a moment behind the counters.
    until("each end in the log is counted", || {
        let closed = closes() as f64;
        closed > last && watched.metric(complete) == closed
    });
    until("the queues counted as many grants", || {
        watched.metric("pegasus_granted_total{service=\"web\"}") == closes() as f64
    });
    drop(watched.directory);
    let _ = watched.conf;
}

#[test]
fn only_get_and_head_of_known_pages_are_answered() {
    let mut queue = Queue::start(&["queue_admin=127.0.0.1:0"]);
    let admin = admin_of(&mut queue);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /metrics?x=y HTTP/1.0\r\n\r\n", 200),
        ("GET http://x/status HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\n", 505),
    ] {
        let (got, head, _) = exchange(admin, request.as_bytes());
        assert_eq!(got, status, "{request:?}: {head}");
    }
    let (status, head, body) = exchange(admin, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status == 200 && body.is_empty(), "{head}");
    assert!(!head.contains("Content-Length: 0"), "the length of what GET would get: {head}");
    let huge = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024));
    assert_eq!(exchange(admin, huge.as_bytes()).0, 431);
}

#[test]
fn queue_and_monitor_have_pages_too() {
    let provider = Provider::echo();
    let mut queue = Queue::start(&["queue_admin=127.0.0.1:0"]);
    let (admin, address) = (admin_of(&mut queue), queue.address);
    let settings = ["monitor_admin=127.0.0.1:0", "monitor_interval=200ms"];
    let mut monitor = monitor_of("web", address, provider.address, &settings);
    let own = admin_of(&mut monitor);
    queue.has(&[provider.address]);
    until("the queue is healthy", || get(admin, "/health").0 == 200);
    until("the monitor is healthy", || get(own, "/health").0 == 200);
    let (_, _, text) = get(own, "/metrics");
    check_with_promtool(&text);
    let labels = format!("{{service=\"web\",balancer=\"{address}\"}}");
    assert!(samples(&text)[&format!("pegasus_monitor_tickets{labels}")] > 0.0, "{text}");
    let up = format!("pegasus_monitor_balancer_up{{balancer=\"{address}\"}}");
    assert_eq!(samples(&text)[&up], 1.0, "{text}");
    assert!(samples(&text)["pegasus_monitor_slots{service=\"web\"}"] >= 1.0, "{text}");
    assert_eq!(samples(&text)["pegasus_monitor_active{service=\"web\"}"], 0.0, "{text}");
    let lease =
        format!("pegasus_lease_seconds{{service=\"web\",provider=\"{}\"}}", provider.address);
    let left = samples(&get(admin, "/metrics").2)[&lease];
    assert!(0.0 < left && left <= 5.0, "{left}");
    let (_, _, page) = get(own, "/");
    assert!(page.contains("Offers") && page.contains(&address.to_string()), "{page}");
    check_with_promtool(&get(admin, "/metrics").2);
    queue.kill();
    until("the balancer is away", || samples(&get(own, "/metrics").2)[&up] == 0.0);
}

/// Slow, huge and senseless peers, more than may be there, and none that leaves.
#[test]
fn abuse_is_bounded_and_clients_do_not_notice() {
    let provider = Provider::echo();
    let watched = Watched::start(&provider, "");
    assert_eq!(visit(watched.place, "before"), Ok(()));
    let before = watched.redirect.descriptors();
    let visits = Visits::start(watched.place, 2);
    let kinds: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"\xff\x00\r\n\r\nGET / GET / GET /\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        &[b'x'; 20_000],
    ];
    let mut held = Vec::new();
    for number in 0..600 {
        let mut stream = TcpStream::connect(watched.admin).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(kinds[number % kinds.len()]);
        held.push(stream);
    }
    // Whatever came before, a request that is whole is answered.
    let (status, _, text) = get(watched.admin, "/metrics");
    assert_eq!(status, 200);
    // The workers may have opened sockets for their own clients meanwhile.
    let now = samples(&text)["process_open_fds"] as usize;
    assert!(now <= before + 128 + 20, "{now} descriptors, {before} before");
    until("clients were served meanwhile", || visits.count() > 100);
    assert_eq!(visits.end(), Vec::<String>::new());
    drop(held);
    until("they are all gone", || watched.redirect.descriptors() <= before + 10);
}

#[test]
fn an_admin_address_in_use_is_named() {
    let taken = Provider::echo();
    for (name, key) in [("queue", "queue_admin"), ("redirect", "redirect_admin")] {
        let setting = format!("{key}={}", taken.address);
        let settings = ["queue_listen=127.0.0.1:0", "service_web_listen=127.0.0.1:0", &setting];
        let (status, _, errors) = run(&mut command(name, &settings), b"");
        assert_eq!(status, 71, "{errors}");
        assert!(errors.contains(&format!("cannot listen on {}", taken.address)), "{errors}");
    }
}
