//! End to end: PEGASUS and HAProxy beside each other before providers that sleep.
//!
//! ```text
//! cargo test --release bench_endtoend -- --ignored --nocapture
//! ```
//! Owns the order of a run. Every balancer under test has providers of its own
//! and gets the same requests, with the same work, at the same moments; all of
//! a scenario run at once, so that whatever else the machine does hits all. The
//! providers sleep instead of working, so a small machine is enough; it says how
//! busy the machine was. Above one half, sleepers oversleep and the differences
//! drown; `nice -n -15` before the command helps who may do so.
//!
//! | environment | default | |
//! |---|---|---|
//! | `PEGASUS_BENCH_SCENARIOS` | all | names, as in `"A1 A6"` |
//! | `PEGASUS_BENCH_SECONDS` | `60` | measured, after 10 s of warm-up |
//! | `PEGASUS_BENCH_ROUNDS` | `1` | each with other requests; means are printed |
//! | `PEGASUS_BENCH_JSON` | – | a file to which JSON lines are added |
#![cfg(target_os = "linux")]

mod balancers;
mod clients;
mod paper;
mod report;
mod scenarios;

use super::host::{chosen, own_time, parameter, processor_time};
use super::provider::{Provider, Turn};
use crate::support::socket::raise_descriptors;
use crate::support::{free_port, installed, Directory};
use balancers::{Balancer, Kind};
use report::{Circumstances, Figures, Results};
use scenarios::{Scenario, Trouble, SCENARIOS};
use std::io::Write;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_secs(10);
/// Machines above this are not idle enough for what sleeps.
const BUSY_MOST: f64 = 0.5;

/// A balancer with its providers.
struct Subject {
    kind: Kind,
    balancer: Balancer,
    providers: Vec<Provider>,
}

/// How busy the machine was, and with this bench: shares of all its processors.
#[derive(Clone, Copy, Default)]
struct Effort {
    all: f64,
    own: f64,
}

/// One round.
fn run(scenario: &Scenario, kinds: &[Kind], round: u64, measured: Duration) -> (Results, Effort) {
    let directory = Directory::new();
    let subjects: Vec<Subject> = kinds
        .iter()
        .map(|kind| {
            let provider = |(number, build)| {
                let address = (Ipv4Addr::LOCALHOST, free_port()).into();
                Provider::start(number, address, build, directory.path(), false)
            };
            let providers: Vec<Provider> =
                scenario.builds.into_iter().enumerate().map(provider).collect();
            let balancer =
                Balancer::start(*kind, &providers, scenario.balancers, &scenario.weights);
            Subject { kind: *kind, balancer, providers }
        })
        .collect();
    let requests =
        clients::requests(1 + round, scenario.rate, scenario.balancers, WARM_UP + measured);
    let struck = WARM_UP + measured / 3;
    let returned = WARM_UP + measured * 2 / 3;
    let used =
        || own_time() + subjects.iter().map(|subject| subject.balancer.used()).sum::<Duration>();
    let before = processor_time();
    let used_before = used();
    let start = Instant::now();
    let visits = thread::scope(|scope| {
        let clients: Vec<_> = subjects
            .iter()
            .map(|subject| scope.spawn(|| clients::run(&subject.balancer.doors, &requests, start)))
            .collect();
        if scenario.trouble != Trouble::None {
            strike(scenario.trouble, &subjects, start + struck, start + returned);
        }
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let after = processor_time();
    let processors = thread::available_parallelism().map_or(1, usize::from) as f64;
    let effort = Effort {
        all: (after.0 - before.0) / (after.1 - before.1).max(1.0),
        own: (used() - used_before).as_secs_f64() / start.elapsed().as_secs_f64() / processors,
    };
    let results = subjects.iter().zip(visits).map(|(subject, visits)| {
        let run = Circumstances {
            warm_up: WARM_UP,
            returned,
            broken: subject.providers.iter().map(|provider| provider.seen().broken).sum(),
            retries: subject.balancer.retries(),
        };
        (subject.kind, Figures::of(&visits, &run))
    });
    (results.collect(), effort)
}

/// Takes the first provider of each away, and gives it back.
fn strike(trouble: Trouble, subjects: &[Subject], struck: Instant, returned: Instant) {
    thread::sleep(struck.saturating_duration_since(Instant::now()));
    let silent = trouble == Trouble::Silence;
    for Subject { balancer, providers, .. } in subjects {
        providers[0].turn(if silent { Turn::FallSilent } else { Turn::Die });
        if silent {
            balancer.silence_monitor(0, true);
        }
    }
    thread::sleep(returned.saturating_duration_since(Instant::now()));
    for Subject { balancer, providers, .. } in subjects {
        providers[0].turn(Turn::Return);
        if silent {
            balancer.silence_monitor(0, false);
        }
    }
}

#[test]
#[ignore = "a bench"]
fn bench_endtoend() {
    raise_descriptors();
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    let names = chosen("PEGASUS_BENCH_SCENARIOS", &names);
    let measured = Duration::from_secs(parameter("PEGASUS_BENCH_SECONDS", 60));
    let rounds = parameter("PEGASUS_BENCH_ROUNDS", 1u64).max(1);
    let others = installed("haproxy").is_some();
    if !others {
        println!("haproxy is not installed: PEGASUS runs alone");
    }
    let mut missed = 0;
    report::print_head();
    for scenario in SCENARIOS.iter().filter(|scenario| names.contains(&scenario.name)) {
        let kinds: Vec<Kind> =
            scenario.kinds.iter().copied().filter(|kind| others || kind.is_ours()).collect();
        let runs: Vec<(Results, Effort)> =
            (0..rounds).map(|round| run(scenario, &kinds, round, measured)).collect();
        let results: Results = kinds
            .iter()
            .enumerate()
            .map(|(place, kind)| {
                let figures: Vec<Figures> =
                    runs.iter().map(|(results, _)| results[place].1).collect();
                (*kind, Figures::mean(&figures))
            })
            .collect();
        let mean = |of: fn(&Effort) -> f64| {
            runs.iter().map(|(_, effort)| of(effort)).sum::<f64>() / rounds as f64
        };
        let busy = mean(|effort| effort.all);
        let own = mean(|effort| effort.own);
        let efforts =
            format!("the machine was {:.0} % busy, {:.0} % with this", 100.0 * busy, 100.0 * own);
        println!("{:<4} {}; {efforts}", scenario.name, scenario.what);
        if busy > BUSY_MOST {
            println!("{:<4} that is too busy: sleepers overslept", scenario.name);
        }
        missed += report::print(scenario, &results);
        if let Ok(path) = std::env::var("PEGASUS_BENCH_JSON") {
            let file = std::fs::File::options().create(true).append(true).open(&path);
            let mut file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
            file.write_all(report::json(scenario, &results, rounds, busy).as_bytes()).unwrap();
        }
    }
    println!("goals missed: {missed}");
}
