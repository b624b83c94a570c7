//! Requests to language models: few at once on a machine, and never more.
//!
//! Owns the arrivals, recorded or modelled, and the comparison. `PEGASUS_TRACE` names a
//! recorded file: lines of arrival, context tokens, generated tokens, after a head. The
//! arrival is in seconds or a time of day, as in the traces that clouds publish. Without
//! it requests come in bursts, and their work is spread as Pareto's.

use super::setting::{Arrival, Build, Setting, Traffic};
use super::world::{run, Policy, DEFAULT};
use super::{seed, Replay};
use crate::bench::json::{append, Line};
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use std::net::{IpAddr, Ipv4Addr};

/// Seconds of work for a token that is read, and for one that is written.
const READ: f64 = 0.0001;
const WRITE: f64 = 0.02;
/// Part of the places that the requests need on average.
const RHO: f64 = 0.75;
const WAIT: Span = Span::from_secs(30);
/// Monitors have offered by then.
const FIRST: f64 = 5.0;
/// Requests at once on a machine, in turn.
const PLACES: [f64; 4] = [1.0, 2.0, 4.0, 8.0];

/// Seconds of `12.5` or of `2023-11-16 18:15:46.68`.
fn seconds(text: &str) -> Option<f64> {
    let clock = text.trim().rsplit(' ').next()?;
    clock.split(':').try_fold(0.0, |sum, part| Some(60.0 * sum + part.parse::<f64>().ok()?))
}

/// Arrival and work of each request, in seconds.
fn recorded(text: &str) -> Vec<(f64, f64)> {
    let request = |line: &str| {
        let words: Vec<&str> = line.split(',').collect();
        let number = |place: usize| words.get(place)?.trim().parse::<f64>().ok();
        Some((seconds(words.first()?)?, READ * number(1)? + WRITE * number(2)?))
    };
    let all: Vec<(f64, f64)> = text.lines().filter_map(request).collect();
    let first = all.first().map_or(0.0, |(at, _)| *at);
    all.into_iter().map(|(at, work)| (at - first, work)).collect()
}

/// The same from a model, for so many seconds: six requests a second in bursts.
fn modelled(lasting: f64) -> Vec<(f64, f64)> {
    let setting = Setting {
        hosts: vec![Build { cpus: 1.0, speed: 1.0, hogs: 0.0 }],
        rho: 24.0,
        mean: 4.0,
        pareto: Some(1.5),
        traffic: Traffic::Bursts(3.0, 10.0, 60.0),
        length: Span::from_secs_f64(lasting),
        ..Setting::usual("model", "")
    };
    let arrivals = setting.arrivals(seed()).into_iter();
    // Models have a limit of tokens.
    arrivals
        .map(|arrival| (arrival.at.since(Moment::ZERO).as_secs_f64(), arrival.work.min(60.0)))
        .collect()
}

/// Machines for this work: as many as it needs, of all kinds.
fn machines(work: &[(f64, f64)]) -> Vec<Build> {
    let lasting = work.last().map_or(1.0, |(at, _)| *at).max(1.0);
    let needed = work.iter().map(|(_, work)| work).sum::<f64>() / lasting / RHO;
    let mut hosts: Vec<Build> = Vec::new();
    while hosts.iter().map(|build| build.cpus).sum::<f64>() < needed {
        let cpus = PLACES[hosts.len() % PLACES.len()];
        hosts.push(Build { cpus, speed: 1.0, hogs: 0.0 });
    }
    hosts
}

fn contest(arrivals: &str, work: &[(f64, f64)]) -> Vec<Line> {
    let hosts = machines(work);
    let places: f64 = hosts.iter().map(|build| build.cpus).sum();
    let rows = [
        ("PEGASUS", DEFAULT, 1),
        ("leastconn, maxconn", Policy::MaxConn, 1),
        ("Target Optimizer", Policy::Target, 1),
        ("ideal central queue", Policy::Ideal, 1),
        ("PEGASUS", DEFAULT, 2),
        ("leastconn, maxconn", Policy::MaxConn, 2),
        ("Target Optimizer", Policy::Target, 2),
    ];
    let mean = work.iter().map(|(_, work)| work).sum::<f64>() / work.len().max(1) as f64;
    let one = |(name, policy, balancers): (&str, Policy, usize)| {
        let setting = Setting {
            hosts: hosts.clone(),
            balancers,
            mean,
            strict: true,
            wait: WAIT,
            good: Span::from_secs(60),
            noise: 0.0,
            warm: Span::from_secs_f64(FIRST),
            length: Span::from_secs_f64(FIRST + work.last().map_or(0.0, |(at, _)| *at)),
            ..Setting::usual("work", "")
        };
        let mut random = Random::new(seed());
        let arrivals_of: Vec<Arrival> = work
            .iter()
            .map(|(at, work)| Arrival {
                at: Moment::after_start(Span::from_secs_f64(FIRST + at)),
                service: 0,
                balancer: random.below(balancers),
                work: *work,
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                stays: Span::ZERO,
            })
            .collect();
        let figures = run(&setting, &arrivals_of, policy, seed());
        let mut line = Line::default();
        let s = if balancers == 1 { "" } else { "s" };
        line.text("bench", "work")
            .text("arrivals", arrivals)
            .text("setting", &format!("{balancers} balancer{s}, {places} places"))
            .text("row", name)
            .number("requests", figures.came as f64)
            .number("failed", figures.failed_percent())
            .number("mean_wait", figures.mean_wait() / 1000.0)
            .number("p99_wait", figures.wait_quantile(0.99) / 1000.0)
            .number("over", figures.over as f64);
        line
    };
    rows.into_iter().map(one).collect()
}

/// Figures for the page of results.
#[test]
#[ignore = "prints figures"]
fn lab_work() {
    let _replay = Replay(seed(), "lab_work");
    let (arrivals, work) = match std::env::var("PEGASUS_TRACE") {
        Ok(path) => {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
            let name = std::env::var("PEGASUS_TRACE_NAME").unwrap_or_else(|_| "recorded".into());
            (name, recorded(&text))
        }
        Err(_) => ("a model, in bursts (no PEGASUS_TRACE)".to_string(), modelled(3600.0)),
    };
    assert!(!work.is_empty(), "no requests");
    let lines = contest(&arrivals, &work);
    lines.iter().for_each(|line| println!("{line}"));
    append(&lines);
}

#[test]
fn a_machine_never_has_more_requests_than_places() {
    let _replay = Replay(seed(), "a_machine_never_has_more_requests_than_places");
    let lines = contest("a model", &modelled(if cfg!(debug_assertions) { 120.0 } else { 600.0 }));
    let ours = lines.iter().filter(|line| line.word("row") == "PEGASUS");
    for line in ours {
        assert_eq!(line.get("over"), 0.0, "{line}");
        let other = lines.iter().find(|other| {
            other.word("setting") == line.word("setting") && other.word("row") == "Target Optimizer"
        });
        let theirs = other.expect("a row").get("failed");
        assert!(line.get("failed") <= theirs, "{line}, not {theirs}");
    }
}

#[test]
fn recorded_requests_are_read_with_either_time() {
    let text = "arrival_s,context,generated\n3.5,1000,10\n4,10,0\n";
    assert_eq!(recorded(text), [(0.0, 0.1 + 0.2), (0.5, 0.001)]);
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:59:59.5,0,0\n\
                2023-11-16 01:00:01.5,0,1\n";
    assert_eq!(recorded(text), [(0.0, 0.0), (2.0, 0.02)]);
}
