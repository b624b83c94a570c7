//! `pegasus demo`: a whole cluster on loopback, in one process.
//!
//! Owns three small HTTP providers, the table, and the clients of a timed run.
//! Queue, redirector and monitors are the real ones, over real sockets.

use super::admin::{self, Admin, Metrics, Subject};
use super::exit;
use super::monitor;
use super::queue::Embedded;
use super::redirect::{local_handles_max, RedirectDaemon};
use super::send::ControlConnection;
use super::terminal::{print_error, print_line};
use crate::config::settings::Settings;
use getopts::Matches;
use log::{error, LevelFilter};
use pegasus_core::base::endpoint::{HostPort, ListenAddr};
use pegasus_core::base::key_value;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Name and time for one request, in milliseconds.
const PROVIDERS: [(&str, u64); 3] = [("quick-1", 20), ("quick-2", 20), ("slow", 80)];
/// Requests that each provider runs at once.
const WORKERS: usize = 4;
/// Clients of a timed run: more than the quick two can run at once.
const CLIENTS: usize = 10;
/// Connections that wait for a worker of one provider.
const JOBS_MAX: usize = 1024;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
const STARTUP_MAX: Duration = Duration::from_secs(10);

/// A tiny HTTP server that answers its own name, after a while.
struct Provider {
    name: &'static str,
    address: SocketAddr,
    alive: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    jobs: SyncSender<TcpStream>,
}

impl Provider {
    fn start(name: &'static str, millis: u64) -> io::Result<Provider> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let served = Arc::new(AtomicUsize::new(0));
        for _ in 0..WORKERS {
            let waiting = waiting.clone();
            let served = served.clone();
            thread::spawn(move || work(&waiting, name, Duration::from_millis(millis), &served));
        }
        let provider = Provider { name, address, alive: Arc::default(), served, jobs };
        provider.listen(listener);
        Ok(provider)
    }

    fn listen(&self, listener: TcpListener) {
        self.alive.store(true, Ordering::SeqCst);
        let alive = self.alive.clone();
        let jobs = self.jobs.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if !alive.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    let _ = jobs.send(stream);
                }
            }
        });
    }

    /// Kills it, or brings it back.
    fn toggle(&self) {
        if self.alive.swap(false, Ordering::SeqCst) {
            // The accepting thread finds out by a last connection, and closes the port.
            let _ = TcpStream::connect(self.address);
        } else if let Ok(listener) = TcpListener::bind(self.address) {
            self.listen(listener);
        }
    }
}

fn work(waiting: &Mutex<Receiver<TcpStream>>, name: &str, time: Duration, served: &AtomicUsize) {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(stream) = next() {
        if answer(&stream, name, time).is_ok_and(|answered| answered) {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns whether there was a request.
fn answer(stream: &TcpStream, name: &str, time: Duration) -> io::Result<bool> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        // A request of this size is no request.
        if reader.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Ok(false);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    thread::sleep(time);
    let body = format!("{name}\n");
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    (&mut &*stream).write_all((head + &body).as_bytes())?;
    Ok(true)
}

/// What the clients of a timed run saw.
#[derive(Default)]
struct RequestCounts {
    answered: AtomicUsize,
    failed: AtomicUsize,
}

fn client(address: SocketAddr, until: Instant, counts: &RequestCounts) {
    while Instant::now() < until {
        let good = request(address).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
        let count = if good { &counts.answered } else { &counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        if !good {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn request(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Everything that runs.
struct Cluster {
    providers: Vec<Provider>,
    queue: SocketAddr,
    address: SocketAddr,
    /// Where the live page is, if this program has one.
    page: Option<SocketAddr>,
}

/// Starts the live page of the cluster.
fn start_page(metrics: Metrics) -> io::Result<Option<SocketAddr>> {
    let any: ListenAddr = "127.0.0.1:0".parse().map_err(io::Error::other)?;
    let listeners = admin::bind(&[any], Vec::new())?;
    let subject = Subject { role: "redirect", metrics, flows: Arc::default(), per_provider: true };
    Admin::start(subject, &listeners, || ())?;
    listeners.first().map(|(_, socket)| socket.local_addr()).transpose()
}

impl Cluster {
    fn start() -> io::Result<Cluster> {
        let configured = |assignments: &[String]| {
            Settings::load(None, assignments)
                .map_err(|errors| io::Error::other(errors[0].to_string()))
        };
        let settings = configured(&["queue_listen=127.0.0.1:0".into()])?;
        let metrics = Metrics::default();
        let Embedded { addresses, queue: shared_queue, .. } =
            Embedded::start(&settings, local_handles_max(&settings), Vec::new(), &[], &metrics)?;
        let queue = addresses[0];
        let mut providers = Vec::new();
        for (name, millis) in PROVIDERS {
            let provider = Provider::start(name, millis)?;
            let monitor_daemon = monitor::MonitorDaemon::new(configured(&[
                format!("service_web_provider={}", provider.address),
                format!("service_web_capacity={WORKERS}"),
                format!("monitor_balancers={queue}"),
            ])?)?;
            thread::spawn(move || monitor_daemon.serve());
            providers.push(provider);
        }
        let listen = |port: u16| {
            configured(&[format!("service_web_listen=127.0.0.1:{port}")]).and_then(|settings| {
                RedirectDaemon::standalone(settings, shared_queue.clone(), metrics.clone())
            })
        };
        let redirect_daemon: RedirectDaemon = listen(8080).or_else(|_| listen(0))?;
        let address = redirect_daemon.addresses[0].1;
        thread::spawn(move || redirect_daemon.serve());
        let page = start_page(metrics)?;
        Ok(Cluster { providers, queue, address, page })
    }

    fn status(&self) -> io::Result<Vec<String>> {
        let target = HostPort { host: self.queue.ip().to_string(), port: self.queue.port() };
        ControlConnection::connect(target)?
            .ask(&format!("pegasus://{}/status?service=web", self.queue))
    }

    /// Waits until all providers have offered tickets.
    fn wait(&self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < STARTUP_MAX {
            let offers = |line: &String| {
                line.starts_with("provider ") && key_value::find(line, "tickets") != Some("0")
            };
            if self.status()?.iter().filter(|line| offers(line)).count() == self.providers.len() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the providers did not register"))
    }

    fn table(&self) -> io::Result<Vec<String>> {
        let status = self.status()?;
        let row = |provider: &Provider| {
            let address = provider.address.to_string();
            let line =
                status.iter().find(|line| key_value::find(line, "address") == Some(&address));
            let number = |key| {
                line.and_then(|line| key_value::find(line, key)?.parse().ok()).unwrap_or(0u64)
            };
            (number("tickets"), number("active"), provider.served.load(Ordering::Relaxed) as u64)
        };
        let rows: Vec<_> = self.providers.iter().map(row).collect();
        let total: u64 = rows.iter().map(|(_, _, served)| served).sum();
        let mut table = vec![format!(
            "{:<26}{:>9}{:>9}{:>10}{:>8}",
            "provider", "tickets", "active", "requests", "share"
        )];
        for (provider, (tickets, active, served)) in self.providers.iter().zip(rows) {
            let share = (served * 1000 + total / 2) / total.max(1);
            let name = format!("{} {}", provider.name, provider.address);
            let dead = if provider.alive.load(Ordering::SeqCst) { "" } else { "  dead" };
            table.push(format!(
                "{name:<26}{tickets:>9}{active:>9}{served:>10}{:>5}.{}%{dead}",
                share / 10,
                share % 10
            ));
        }
        Ok(table)
    }
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    if let Some(extra) = matches.free.first() {
        print_error(format_args!("pegasus: demo: what is `{extra}`? (--seconds N)"));
        return exit::USAGE;
    }
    // People watch the table: the log shows only what is wrong.
    log::set_max_level(LevelFilter::Error);
    let seconds = match matches.opt_str("seconds").map(|text| text.parse::<u64>()) {
        None => None,
        Some(Ok(seconds)) if (1..=86_400).contains(&seconds) => Some(seconds),
        Some(_) => {
            print_error("pegasus: demo: --seconds takes a number from 1 to 86400");
            return exit::USAGE;
        }
    };
    let shown = Cluster::start().and_then(|cluster| {
        cluster.wait()?;
        match seconds {
            Some(seconds) => timed(&cluster, seconds),
            None => live(cluster),
        }
    });
    shown.unwrap_or_else(|error| {
        error!(target: "demo", "{error}");
        exit::of(&error)
    })
}

/// Own clients for a while, then the table.
fn timed(cluster: &Cluster, seconds: u64) -> io::Result<i32> {
    print_line(format_args!(
        "clients come to {}; three providers compete for them",
        cluster.address
    ));
    let counts = Arc::new(RequestCounts::default());
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = cluster.address;
            let counts = counts.clone();
            thread::spawn(move || client(address, until, &counts))
        })
        .collect();
    let mut screen = Screen::default();
    while Instant::now() < until {
        thread::sleep((until - Instant::now()).min(screen.interval()));
        screen.show(&cluster.table()?);
    }
    for client in clients {
        let _ = client.join();
    }
    screen.show(&cluster.table()?);
    let answered = counts.answered.load(Ordering::Relaxed);
    let failed = counts.failed.load(Ordering::Relaxed);
    print_line(format_args!("{answered} requests answered, {failed} failed"));
    Ok(if failed == 0 && answered > 0 { exit::OK } else { exit::ANSWER })
}

/// A table that stays until the user has enough.
fn live(cluster: Cluster) -> io::Result<i32> {
    let address = cluster.address;
    let queue = cluster.queue;
    // As it was typed, so that what is printed can be typed.
    let program = std::env::args().next().unwrap_or_else(|| "pegasus".into());
    print_line(format_args!("Three providers compete for the clients of http://{address}/"));
    print_line("\nIn another terminal:");
    print_line(format_args!("  while sleep 0.1; do curl -s http://{address}/; done"));
    print_line(format_args!("  {program} top {queue}"));
    if let Some(page) = cluster.page {
        print_line(format_args!("In a browser, live:\n  http://{page}/"));
    }
    print_line("\nHere, with Enter: 1, 2 or 3 kills a provider or brings it back;");
    print_line("c starts or stops clients; q ends.\n");
    let cluster = Arc::new(cluster);
    let typed = Arc::new(Typed::default());
    let keys = (cluster.clone(), typed.clone());
    thread::spawn(move || read_keys(&keys.0, &keys.1));
    let mut screen = Screen::default();
    while !typed.over.load(Ordering::SeqCst) {
        // Each Enter moved the cursor down a line.
        screen.lines += typed.lines.swap(0, Ordering::SeqCst);
        screen.show(&cluster.table()?);
        thread::sleep(screen.interval());
    }
    Ok(exit::OK)
}

/// What the user typed, for the table.
#[derive(Default)]
struct Typed {
    lines: AtomicUsize,
    over: AtomicBool,
}

fn read_keys(cluster: &Cluster, typed: &Typed) {
    let mut clients: Option<Arc<AtomicBool>> = None;
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        typed.lines.fetch_add(1, Ordering::SeqCst);
        match line.trim() {
            "q" => return typed.over.store(true, Ordering::SeqCst),
            "c" => match clients.take() {
                Some(running) => running.store(false, Ordering::SeqCst),
                None => clients = Some(run_clients(cluster.address)),
            },
            number => {
                if let Some(provider) = number
                    .parse::<usize>()
                    .ok()
                    .and_then(|n| cluster.providers.get(n.wrapping_sub(1)))
                {
                    provider.toggle();
                }
            }
        }
    }
    // Standard input is over, as in a script: the table goes on.
}

fn run_clients(address: SocketAddr) -> Arc<AtomicBool> {
    let running = Arc::new(AtomicBool::new(true));
    for _ in 0..CLIENTS {
        let running = running.clone();
        thread::spawn(move || {
            while running.load(Ordering::SeqCst) {
                client(
                    address,
                    Instant::now() + Duration::from_millis(200),
                    &RequestCounts::default(),
                );
            }
        });
    }
    running
}

/// Where the table goes: in place on a terminal, else line after line.
#[derive(Default)]
struct Screen {
    lines: usize,
}

impl Screen {
    fn interval(&self) -> Duration {
        Duration::from_millis(if io::stdout().is_terminal() { 500 } else { 1000 })
    }

    fn show(&mut self, table: &[String]) {
        let mut text = String::new();
        if io::stdout().is_terminal() && self.lines > 0 {
            // Up to where it stood, and away with all that is below.
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines));
        }
        text.push_str(&table.join("\n"));
        print_line(text);
        self.lines = table.len();
    }
}
