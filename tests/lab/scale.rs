//! From ten providers to thousands, with the queue, schedulers and monitors of the program.
//!
//! Owns the sizes, and what a queue needs of memory and time. Prints, and asserts nothing.

use super::figures::Figures;
use super::setting::{speeds, Setting};
use super::world::{run, Policy, DEFAULT};
use super::{seed, Replay};
use crate::bench::json::{append, Line};
use pegasus_core::base::slab::Slab;
use pegasus_core::base::state_machine::StateMachine as _;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::request::{Next, Request, RequestResult};
use pegasus_core::queue::ticket_queue::{self, QueueOptions, TicketQueue};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Instant;

/// A size of the site, and what is simulated of it.
struct Size {
    providers: usize,
    balancers: usize,
    /// One way, in ms.
    way: u64,
    /// Part of the ticket messages that is lost.
    loss: f64,
    /// Seconds in all, and those before the first that counts. Thousands of providers have
    /// enough requests in a few.
    seconds: (u64, u64),
    peers: &'static [(&'static str, Policy)],
}

const fn size(providers: usize, balancers: usize, seconds: (u64, u64)) -> Size {
    Size { providers, balancers, way: 1, loss: 0.0, seconds, peers: &PEERS }
}

const SIZES: [Size; 7] = [
    size(10, 1, (135, 15)),
    size(100, 8, (45, 15)),
    size(1000, 32, (75, 65)),
    Size { way: 20, ..size(1000, 32, (75, 65)) },
    // Peers have no ticket messages that could be lost.
    Size { loss: 0.1, peers: &OURS, ..size(1000, 32, (75, 65)) },
    size(1000, 128, (75, 65)),
    size(10_000, 16, (14, 11)),
];
const OURS: [(&str, Policy); 1] = [("PEGASUS", DEFAULT)];
const PEERS: [(&str, Policy); 8] = [
    ("PEGASUS", DEFAULT),
    ("leastconn", Policy::LeastConn),
    ("P2C", Policy::TwoChoices),
    ("Prequal", Policy::Prequal),
    ("CSWRR", Policy::Reported),
    ("Target Optimizer", Policy::Target),
    ("true weights", Policy::Weighted),
    ("ideal", Policy::Ideal),
];

/// Seconds after which PEGASUS is looked at for ten while it learns the speeds: a thousand
/// providers, and balancers that meet each of them once in four seconds. The size itself is
/// looked at after 65.
const LEARNING: [u64; 2] = [14, 30];

/// How far PEGASUS has come after so many seconds.
fn learning(after: u64) -> Line {
    let size = size(1000, 32, (after + 10, after));
    let setting = size.setting();
    let figures = run(&setting, &setting.arrivals(seed()), DEFAULT, seed());
    let mut line = Line::default();
    line.text("bench", "learning")
        .text("setting", &size.name())
        .number("after", after as f64)
        .number("mean", figures.mean())
        .number("p99", figures.quantile(0.99));
    line
}

impl Size {
    fn name(&self) -> String {
        let Size { providers, balancers, way, loss, .. } = self;
        let mut name = format!("{providers} / {balancers}");
        if *way > 1 {
            name += &format!(", {way} ms");
        }
        if *loss > 0.0 {
            name += &format!(", {} % lost", 100.0 * loss);
        }
        name
    }

    fn setting(&self) -> Setting {
        Setting {
            hosts: speeds(self.providers),
            balancers: self.balancers,
            rho: 0.8,
            mean: 1.0,
            delay: Span::from_millis(self.way),
            loss: self.loss,
            length: Span::from_secs(self.seconds.0),
            warm: Span::from_secs(self.seconds.1),
            ..Setting::usual("scale", "")
        }
    }

    /// A line for each peer, in their order. As many run at once as there are processors.
    fn lines(&self) -> Vec<Line> {
        let setting = self.setting();
        let arrivals = setting.arrivals(seed());
        let line = |(row, policy): (&str, Policy)| {
            let start = Instant::now();
            let figures: Figures = run(&setting, &arrivals, policy, seed());
            let mut line = Line::default();
            line.text("bench", "scale")
                .text("setting", &self.name())
                .text("row", row)
                .number("requests", figures.came as f64)
                .number("mean", figures.mean())
                .number("p99", figures.quantile(0.99))
                .number("failed", figures.failed_percent());
            if policy == DEFAULT {
                line.number("messages", figures.messages as f64 / arrivals.len().max(1) as f64);
            }
            println!("{line}  {:.0?}", start.elapsed());
            line
        };
        let (next, lines) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.peers.len()) {
                scope.spawn(|| loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(peer) = self.peers.get(place) else { return };
                    let line = line(*peer);
                    lines.lock().unwrap().push((place, line));
                });
            }
        });
        let mut lines = lines.into_inner().unwrap();
        lines.sort_by_key(|(place, _)| *place);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

/// `PEGASUS_SCALE_MOST` leaves out sizes with more providers.
#[test]
#[ignore = "prints figures; minutes"]
fn lab_scale() {
    let _replay = Replay(seed(), "lab_scale");
    let most = std::env::var("PEGASUS_SCALE_MOST");
    let most = most.map_or(usize::MAX, |most| most.parse().expect("a number of providers"));
    for size in SIZES.iter().filter(|size| size.providers <= most) {
        append(&size.lines());
    }
    if most >= 1000 {
        append(&LEARNING.map(learning));
    }
    for providers in [10, 100, 1000, 10_000] {
        let line = queue(providers);
        println!("{line}");
        append(&[line]);
    }
}

/// The resident memory of this process in bytes.
fn memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    pages.unwrap_or(f64::NAN) * 4096.0
}

/// What a queue with so many providers needs for a ticket message, a request and itself.
fn queue(providers: usize) -> Line {
    const TIMES: usize = if cfg!(debug_assertions) { 100 } else { 20_000 };
    let before = memory();
    let mut keys = Slab::default();
    let open: Vec<_> = vec!["0.0.0.0/0".parse().expect("a network")];
    let options = QueueOptions {
        allow_ticket: open.clone(),
        allow_next: open,
        providers_max: 20_000,
        ..QueueOptions::default()
    };
    let mut queue = TicketQueue::new(options, 1);
    let ask = |queue: &mut TicketQueue, connection, request, now| {
        let input = ticket_queue::Input::Request { connection, slot: Some(0), request };
        queue.handle_input(input, now);
        while queue.poll_output().is_some() {}
    };
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let connection = keys.insert(());
    let came = ticket_queue::Input::Connected { connection, peer };
    queue.handle_input(came, Moment::ZERO);
    let offer = |place: usize| -> Request {
        let [_, _, a, b] = (place as u32).to_be_bytes();
        let line = format!("pegasus://b/ticket?provider=10.1.{a}.{b}:80&tickets=8&capacity=100");
        Request::parse(line.as_bytes()).expect("a message")
    };
    let mut now = Moment::ZERO;
    for place in 0..providers {
        ask(&mut queue, connection, offer(place), now);
    }
    let bytes = (memory() - before).max(0.0) / providers as f64;
    let offers: Vec<Request> = (0..TIMES).map(|number| offer(number % providers)).collect();
    let start = Instant::now();
    for request in offers {
        now = now + Span::from_nanos(100_000);
        ask(&mut queue, connection, request, now);
    }
    let ticket = start.elapsed();
    let start = Instant::now();
    for id in 1..=TIMES as u32 {
        now = now + Span::from_nanos(100_000);
        let next = Next {
            service: "default".parse().expect("a service"),
            wait: Span::ZERO,
            id: Some(id),
            client: None,
            avoid: Vec::new(),
        };
        ask(&mut queue, connection, Request::Next(next), now);
        ask(&mut queue, connection, Request::Done { id, result: RequestResult::Good }, now);
    }
    let request = start.elapsed();
    let each = |took: std::time::Duration| took.as_secs_f64() * 1e6 / TIMES as f64;
    let mut line = Line::default();
    line.text("bench", "queue")
        .number("providers", providers as f64)
        .number("ticket_us", each(ticket))
        .number("request_us", each(request))
        // Memory that was there already hides what fewer providers need.
        .number("bytes", if providers >= 10_000 { bytes } else { f64::NAN });
    line
}

/// So that it does not rot: all peers, with few providers for some seconds.
#[test]
fn lab_scale_in_brief() {
    let _replay = Replay(seed(), "lab_scale_in_brief");
    let lines = size(6, 2, (6, 3)).lines();
    let rows: Vec<&str> = lines.iter().map(|line| line.word("row")).collect();
    assert_eq!(rows, PEERS.map(|(row, _)| row));
    for line in &lines {
        assert!(line.get("requests") > 0.0 && line.get("mean") > 0.0, "{line}");
    }
    assert!(queue(10).get("request_us") > 0.0);
}
