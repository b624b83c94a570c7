//! From ten providers to thousands, with the queue, schedulers and monitors of the program.
//!
//! Owns the sizes, and what a queue needs of memory and time. Prints, and asserts nothing.

use super::setting::{speeds, Setting};
use super::targets::Lab;
use super::world::{Policy, DEFAULT};
use super::{seed, Replay};
use crate::bench::json::{append, Line};
use pegasus_core::base::slab::Slab;
use pegasus_core::base::state_machine::StateMachine as _;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::request::{Next, Request, RequestResult};
use pegasus_core::queue::ticket_queue::{self, QueueOptions, TicketQueue};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Providers, balancers, one way in ms, lost ticket messages.
const SIZES: [(usize, usize, u64, f64); 5] = [
    (10, 1, 1, 0.0),
    (100, 8, 1, 0.0),
    (1000, 32, 1, 0.0),
    (1000, 32, 25, 0.01),
    (1000, 128, 1, 0.0),
];
/// Only where PEGASUS_LARGEST is set: minutes, and gigabytes of memory.
const LARGEST: (usize, usize, u64, f64) = (10_000, 16, 1, 0.0);

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

fn setting((providers, balancers, way, loss): (usize, usize, u64, f64)) -> Setting {
    Setting {
        hosts: speeds(providers),
        balancers,
        rho: 0.8,
        mean: 1.0,
        delay: Span::from_millis(way),
        loss,
        length: Span::from_secs(30),
        warm: Span::from_secs(15),
        ..Setting::usual("scale", "")
    }
}

#[test]
#[ignore = "prints figures; minutes"]
fn lab_scale() {
    let _replay = Replay(seed(), "lab_scale");
    let largest = std::env::var_os("PEGASUS_LARGEST").map(|_| LARGEST);
    for size in SIZES.into_iter().chain(largest) {
        let (providers, balancers, way, loss) = size;
        let mut name = format!("{providers} / {balancers}");
        if way > 1 {
            name += &format!(", {way} ms, {} % lost", 100.0 * loss);
        }
        let start = Instant::now();
        for (row, policy) in PEERS {
            let mut lab = Lab::new(setting(size), seed());
            let figures = lab.figures(policy);
            let mut line = Line::default();
            line.text("bench", "scale")
                .text("setting", &name)
                .text("row", row)
                .number("mean", figures.mean())
                .number("p99", figures.quantile(0.99))
                .number("failed", figures.failed_percent());
            if policy == DEFAULT {
                // Requests of the whole time, as messages are.
                let all = figures.came as f64 * 28.0 / 15.0;
                line.number("messages", figures.messages as f64 / all);
            }
            println!("{line}  {:?}", start.elapsed());
            append(&[line]);
        }
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
    const TIMES: usize = 20_000;
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
        // Pages that were there already hide what few providers need.
        .number("bytes", if providers >= 1000 { bytes } else { f64::NAN });
    line
}
