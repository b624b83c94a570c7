//! The benchmark that the paper planned: ways to lead clients to unequal providers.
//!
//! ```text
//! cargo test --release bench_paper -- --ignored --nocapture
//! ```
//! Owns the order of a run. Every contestant has providers of its own, of speed 1, 2 and 4,
//! and gets the same requests, with the same work, at the same moments. All run at once, so
//! that whatever else the machine does hits all. The providers sleep instead of working: on
//! a small machine work would measure the machine. A slot takes exactly as long as its speed
//! says, and a task of others takes its fair part of the slots. The plan: an antagonist
//! comes to the quickest provider and goes; one crashes and returns; one begins to answer
//! 503 at once, to its health check too, and recovers; one is drained by its operator.
//!
//! | environment | default | |
//! |---|---|---|
//! | `PEGASUS_BENCH_ROWS` | all | contestants, as in `"haproxy pegasus"` |
//! | `PEGASUS_BENCH_SECONDS` | `60` | measured, after the warm-up |
//! | `PEGASUS_BENCH_WARM` | `12` | seconds before it |
//! | `PEGASUS_BENCH_ROUNDS` | `6` | with other requests |
//! | `PEGASUS_BENCH_PROVIDERS` | `3` | 1 to 16 |
//! | `PEGASUS_BENCH_LOAD` | `0.6` | of the capacity of all |
//! | `PEGASUS_BENCH_JSON` | – | a file to which JSON lines are added |
#![cfg(target_os = "linux")]

mod clients;
mod contestants;
mod figures;
mod plan;

use super::host::{chosen, describe, own_time, parameter, processor_time};
use super::json::{append, Line};
use super::provider::engine::Build;
use super::provider::{Provider, Turn};
use crate::support::socket::raise_descriptors;
use crate::support::{free_port, namespace, Directory};
use contestants::{Contestant, Row, Scene, Skipped, OURS, ROWS};
use figures::Observed;
use plan::Plan;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

/// Tasks of others, while they are there: as many as slots.
const HOGS: usize = 2;

/// A contestant with its providers.
struct Subject {
    row: &'static Row,
    contestant: Contestant,
    providers: Vec<Provider>,
}

/// What runs once.
struct Run<'a> {
    plan: &'a Plan,
    rows: &'a [&'static Row],
    /// Why this is not a network of its own, or none.
    shared: Option<&'a str>,
}

impl Run<'_> {
    /// Providers at addresses of their own, with one port.
    fn providers(&self, number: usize, row: &Row, directory: &Directory) -> Vec<Provider> {
        let port = free_port();
        let each = self.plan.speeds.iter().enumerate().map(|(place, speed)| {
            let ip = Ipv4Addr::new(127, 1, number as u8 + 1, place as u8 + 1);
            let build = Build::of(self.plan.slots, *speed);
            // Only in a network of its own nobody else hears them.
            let beats = row.name == "apache" && self.shared.is_none();
            let address = SocketAddr::from((ip, port));
            Provider::start(place, address, build, directory.path(), beats)
        });
        each.collect()
    }

    /// Starts all; those that cannot be are told with the reason.
    fn subjects(&self, directory: &Directory) -> (Vec<Subject>, Vec<(&'static str, Skipped)>) {
        let (mut subjects, mut skipped) = (Vec::new(), Vec::new());
        for (number, row) in self.rows.iter().enumerate() {
            let providers = self.providers(number, row, directory);
            let scene = Scene {
                providers: &providers,
                speeds: &self.plan.speeds,
                directory,
                shared: self.shared,
            };
            match (row.start)(&scene) {
                Ok(contestant) => subjects.push(Subject { row, contestant, providers }),
                Err(why) => skipped.push((row.name, why)),
            }
        }
        (subjects, skipped)
    }

    /// A round: its lines, and how busy the machine was with and without it.
    fn round(&self, round: u64) -> Vec<Line> {
        let directory = Directory::new();
        let (subjects, skipped) = self.subjects(&directory);
        let mut lines: Vec<Line> = Vec::new();
        for (row, why) in skipped {
            println!("SKIPPED {row}: {why}");
            let mut line = Line::default();
            line.text("bench", "paper-skipped").text("row", row).text("why", &why);
            lines.push(line);
        }
        let plan = self.plan;
        let requests = clients::requests(1 + round, plan.rate, plan.work, plan.all());
        let machine = processor_time();
        let used: Vec<_> = subjects.iter().map(|subject| subject.contestant.used()).collect();
        let own = own_time();
        let start = Instant::now() + Duration::from_millis(100);
        let (visits, drains) = thread::scope(|scope| {
            let clients: Vec<_> = subjects
                .iter()
                .map(|subject| {
                    let door = subject.contestant.door;
                    let requests = &requests;
                    scope.spawn(move || clients::run(door, requests, start))
                })
                .collect();
            let drains = happen(plan, &subjects, start);
            let visits: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            (visits, drains)
        });
        let after = processor_time();
        let busy = (after.0 - machine.0) / (after.1 - machine.1).max(1.0);
        let mut ours = own_time() - own;
        for (place, (subject, visits)) in subjects.iter().zip(visits).enumerate() {
            let now = subject.contestant.used();
            let spent = (now.0.saturating_sub(used[place].0), now.1.saturating_sub(used[place].1));
            ours += spent.0 + spent.1;
            let since = |at: &Instant| at.saturating_duration_since(start);
            let seen: Vec<_> = subject.providers.iter().map(Provider::seen).collect();
            let observed = Observed {
                visits,
                came: seen.iter().map(|seen| seen.came.iter().map(since).collect()).collect(),
                broken: seen.iter().map(|seen| seen.broken).sum(),
                most: seen.iter().map(|seen| seen.most).collect(),
                used: spent,
                drains: drains[place],
            };
            lines.push(observed.line(plan, round, subject.row));
        }
        let processors = thread::available_parallelism().map_or(1, usize::from) as f64;
        let ours = ours.as_secs_f64() / start.elapsed().as_secs_f64() / processors;
        let mut line = Line::default();
        line.text("bench", "paper-machine").number("round", round as f64);
        line.number("busy", busy).number("ours", ours);
        lines.push(line);
        lines
    }
}

/// Lets everything happen that the plan has; whether each could drain a provider.
fn happen(plan: &Plan, subjects: &[Subject], start: Instant) -> Vec<bool> {
    let wait = |at: Duration| {
        thread::sleep((start + at).saturating_duration_since(Instant::now()));
    };
    let all = |provider: usize, turn: Turn| {
        subjects.iter().for_each(|subject| subject.providers[provider].turn(turn));
    };
    let drain = |drained: bool| {
        let each = subjects.iter().map(|subject| {
            let provider = subject.providers[plan.dies].address;
            subject.contestant.drain(plan.dies, provider, drained)
        });
        each.collect::<Vec<bool>>()
    };
    wait(plan.antagonist.0);
    all(plan.busy, Turn::Hogs(HOGS));
    wait(plan.antagonist.1);
    all(plan.busy, Turn::Hogs(0));
    wait(plan.crash.0);
    all(plan.dies, Turn::Die);
    wait(plan.crash.1);
    all(plan.dies, Turn::Return);
    wait(plan.sickness.0);
    all(plan.sick, Turn::Sicken);
    wait(plan.sickness.1);
    all(plan.sick, Turn::Recover);
    wait(plan.drain.0);
    let drains = drain(true);
    wait(plan.drain.1);
    drain(false);
    drains
}

/// Runs in a network of its own where that is allowed, for the kernel's rules and
/// multicast; the closure is told why not.
fn alone(run: impl FnOnce(Option<&str>) + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let entered = namespace::enter().map_err(|error| error.to_string());
            run(entered.err().as_deref());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The line about the whole bench.
fn head(plan: &Plan, rounds: u64) -> Line {
    let mut line = Line::default();
    line.text("bench", "paper-head")
        .text("date", &crate::bench::host::today())
        .text("machine", &describe())
        .text("versions", &contestants::versions())
        .text("ipvs", if std::path::Path::new("/proc/net/ip_vs").exists() { "yes" } else { "no" })
        .number("rounds", rounds as f64)
        .number("seconds", plan.length.as_secs_f64())
        .number("warm", plan.warm.as_secs_f64())
        .number("providers", plan.speeds.len() as f64)
        .number("rate", plan.rate)
        .number(
            "capacity",
            plan.slots as f64 * plan.speeds.iter().sum::<f64>() / plan.work.as_secs_f64(),
        );
    line
}

fn print(lines: &[Line]) {
    let columns = ["came", "failed", "broken", "goodput", "mean", "p50", "p99", "p999", "cpu"];
    println!("{:<16}{}", "", columns.map(|column| format!("{column:>10}")).join(""));
    for line in lines.iter().filter(|line| line.word("bench") == "paper") {
        let values = columns.map(|column| format!("{:>10.1}", line.get(column))).join("");
        println!(
            "{:<16}{values}  {}  crash {:.1} s, join {:.1} s, sick {:.1} s, drain {:.1} s",
            line.word("row"),
            line.word("share_calm"),
            line.get("crash_last_s"),
            line.get("join_s"),
            line.get("sick_last_s"),
            line.get("drain_s"),
        );
    }
    for line in lines.iter().filter(|line| line.word("bench") == "paper-machine") {
        println!(
            "the machine was {:.0} % busy, {:.0} % with this",
            100.0 * line.get("busy"),
            100.0 * line.get("ours")
        );
    }
}

#[test]
#[ignore = "a bench"]
fn bench_paper() {
    raise_descriptors();
    let names = chosen("PEGASUS_BENCH_ROWS", &ROWS.each_ref().map(|row| row.name));
    let rows: Vec<&'static Row> = ROWS.iter().filter(|row| names.contains(&row.name)).collect();
    let rounds = parameter("PEGASUS_BENCH_ROUNDS", 6u64).max(1);
    let plan = Plan::new(
        parameter("PEGASUS_BENCH_PROVIDERS", 3usize).clamp(1, 16),
        parameter("PEGASUS_BENCH_LOAD", 0.6),
        parameter("PEGASUS_BENCH_WARM", 12.0),
        parameter("PEGASUS_BENCH_SECONDS", 60.0),
    );
    alone(|shared| {
        let run = Run { plan: &plan, rows: &rows, shared };
        let head = head(&plan, rounds);
        println!("{head}");
        append(&[head]);
        for round in 0..rounds {
            let lines = run.round(round);
            print(&lines);
            append(&lines);
        }
    });
}

/// What a row is, for people.
pub fn what(row: &str) -> &'static str {
    ROWS.iter().find(|known| known.name == row).map_or("", |known| known.what)
}

/// The same in few words.
pub fn short(row: &str) -> &'static str {
    ROWS.iter().find(|known| known.name == row).map_or("", |known| known.short)
}

/// Everything runs, so that the bench does not rot: seconds instead of minutes, few clients.
#[test]
fn the_paper_in_brief() {
    raise_descriptors();
    let plan = Plan::new(3, 0.15, 1.0, 5.0);
    let rows: Vec<&'static Row> = ROWS.iter().collect();
    alone(|shared| {
        let lines = Run { plan: &plan, rows: &rows, shared }.round(0);
        print(&lines);
        let of = |bench: &'static str| lines.iter().filter(move |line| line.word("bench") == bench);
        assert_eq!(of("paper").count() + of("paper-skipped").count(), ROWS.len());
        let ours = of("paper").find(|line| line.word("row") == OURS).expect("our own row");
        assert!(ours.get("answered") > 0.0, "{ours}");
        assert!(of("paper").all(|line| Line::read(&line.to_string()).is_some()));
    });
}
