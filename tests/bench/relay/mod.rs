//! The redirector beside other balancers: processor time, rate, latency, memory.
//!
//! ```text
//! cargo test --release --test main bench_relay -- --ignored --nocapture
//! ```
//! Owns the order of a run. All balancers of a scenario are there all the time
//! and take turns: each is measured once a round, in random order. Printed are
//! medians over the rounds, and ratios of PEGASUS to each other one, round by
//! round: the median and its 95 % bootstrap interval. PEGASUS asks its queue for
//! every connection: inside the redirector (`pegasus`), or in a process of its
//! own (`pegasus-daemon`), whose time counts, too; `pegasus-keyed` asks that one
//! through an encrypted connection; `pegasus-unasked` is the same redirector without
//! a queue. `haproxy-splice` is told to splice, with pipes of
//! 1 MiB. `socket-proxyd` is that of systemd, which knows one provider only.
//! Processor time is that of the balancer's processes, user and system.
//!
//! Clients are this process, providers another. Everything stays on this host;
//! a balancer that is not installed is left out, and that is said. The first to
//! end a connection is the provider; nginx then ends both sides, the others let
//! the client finish. It takes about seven minutes.
//!
//! | environment | default | |
//! |---|---|---|
//! | `PEGASUS_BENCH_SCENARIOS` | all | names, as in `"cps bulk8"` |
//! | `PEGASUS_BENCH_BALANCERS` | all | rows, as in `"haproxy pegasus"` |
//! | `PEGASUS_BENCH_BEFORE` | – | path of another build: the row `before`, beside `pegasus` |
//! | `PEGASUS_BENCH_ROUNDS` | `7` | |
//! | `PEGASUS_BENCH_SECONDS` | `1` | of each balancer in each round |
//! | `PEGASUS_BENCH_JSON` | – | a file to which JSON lines are added |
//! | `PEGASUS_SEED` | random | of the order |
#![cfg(target_os = "linux")]

pub mod account;
mod balancers;
mod load;
mod providers;
mod report;
mod scenarios;
mod servers;
mod ways;

use super::host::{chosen, describe, own_time, parameter, processor_time};
use crate::support::random::Random;
use crate::support::socket::{connect, raise_descriptors};
use balancers::{Balancer, Row, Scene, BEFORE, NEXT, ROWS};
use load::talk::{Answered, Talk};
use load::{bulk, datagrams, fresh, talk, Sample};
use providers::{Providers, Trade};
use report::{Figures, Results};
use scenarios::{Load, Metric, Scenario, SCENARIOS};
use std::thread;
use std::time::{Duration, Instant};

/// How long a balancer needs to finish when its clients are done.
const SETTLE: Duration = Duration::from_millis(50);
/// Requests that the tickets last for.
const QUESTIONS: u64 = 2_500_000;
/// Most connections of a balancer, and how many of them are idle ones. Fewer
/// where descriptors are short: two each, and some for itself.
const CONNECTIONS: usize = 8000;
const IDLE: usize = 5000;
/// Memory hardly varies.
const IDLE_ROUNDS: usize = 2;

/// How busy the machine was while it was measured: seconds of its processors.
#[derive(Default)]
struct Effort {
    all: f64,
    busy: f64,
    ours: f64,
}

impl Effort {
    /// The share of the machine that others used.
    fn others(&self) -> f64 {
        ((self.busy - self.ours) / self.all).max(0.0)
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    providers: &'a Providers,
    connections: usize,
    effort: Effort,
}

impl Run<'_> {
    fn scene(&self) -> Scene<'_> {
        let trade = self.scenario.trade;
        Scene {
            providers: self.providers.at(trade),
            datagrams: trade == Trade::Datagrams,
            connections: self.connections,
        }
    }

    /// One balancer, once.
    fn measure(&mut self, balancer: &mut Balancer, row: &Row, lasting: Duration) -> Figures {
        if let Load::Idle = self.scenario.load {
            return self.idle(balancer, row);
        }
        if matches!(self.scenario.load, Load::Queue(..)) && balancer.question == NEXT {
            balancers::offer(balancer.doors[0], "default", self.scene().providers);
        }
        let others = || own_time() + self.providers.process().used();
        let machine = processor_time();
        let ours = others();
        let (used, wake_ups) = (balancer.used(), balancer.wake_ups());
        let start = Instant::now();
        let mut sample = clients(&self.scenario.load, balancer, lasting);
        thread::sleep(SETTLE);
        let used = (balancer.used().saturating_sub(used)).as_secs_f64();
        let wake_ups = balancer.wake_ups().saturating_sub(wake_ups) as f64;
        let after = processor_time();
        let all = start.elapsed().as_secs_f64()
            * thread::available_parallelism().map_or(1, usize::from) as f64;
        self.effort.all += all;
        self.effort.busy += all * (after.0 - machine.0) / (after.1 - machine.1).max(1.0);
        let whole = (others() - ours).as_secs_f64() + used;
        self.effort.ours += whole;
        let done = sample.done as f64;
        Figures(vec![
            (Metric::Rate, done / sample.seconds()),
            (Metric::Cpu, if balancer.processes.is_empty() { f64::NAN } else { used / done }),
            (
                Metric::WakeUps,
                if balancer.processes.is_empty() { f64::NAN } else { wake_ups / done },
            ),
            (Metric::Whole, whole / done),
            (Metric::P50, sample.quantile(0.5)),
            (Metric::P99, sample.quantile(0.99)),
            (Metric::Failed, sample.failed as f64),
        ])
    }

    /// Memory of a balancer that was just started.
    fn idle(&self, balancer: &mut Balancer, row: &Row) -> Figures {
        *balancer = (row.start)(&self.scene()).unwrap_or_else(|why| panic!("{}: {why}", row.name));
        let count = IDLE.min(self.connections - self.connections / 10);
        let all = balancer.memory("Rss");
        let share = balancer.memory("Pss");
        let streams = talk::open_echoing(&balancer.doors, count);
        thread::sleep(10 * SETTLE);
        let grown = balancer.memory("Pss") - share;
        let failed = if streams.is_ok() { 0.0 } else { count as f64 };
        Figures(vec![
            (Metric::PerConnection, grown / count as f64),
            (Metric::AtStart, all),
            (Metric::AtStartShare, share),
            (Metric::Failed, failed),
        ])
    }

    /// Runs all rounds. A balancer that cannot be started is left out.
    fn rounds(
        &mut self,
        rows: &[&'static Row],
        rounds: usize,
        lasting: Duration,
        random: &mut Random,
    ) -> Results {
        let mut started: Vec<(&'static Row, Balancer)> = Vec::new();
        for row in rows {
            match (row.start)(&self.scene()) {
                Ok(balancer) => started.push((row, balancer)),
                Err(why) => println!("SKIPPED {}: {why}\n", row.name),
            }
        }
        let mut results: Results = started.iter().map(|(row, _)| (row.name, Vec::new())).collect();
        let idle = matches!(self.scenario.load, Load::Idle);
        if !idle {
            // Tables grow, pipes are made, the cache is warm.
            started
                .iter_mut()
                .for_each(|(row, balancer)| drop(self.measure(balancer, row, lasting / 4)));
            self.effort = Effort::default();
        }
        for _ in 0..if idle { rounds.min(IDLE_ROUNDS) } else { rounds } {
            let mut order: Vec<usize> = (0..started.len()).collect();
            while !order.is_empty() {
                let place = order.swap_remove(random.below(order.len() as u64) as usize);
                let (row, balancer) = &mut started[place];
                let figures = self.measure(balancer, row, lasting);
                results[place].1.push(figures);
            }
        }
        results
    }
}

fn clients(load: &Load, balancer: &Balancer, lasting: Duration) -> Sample {
    let doors = &balancer.doors;
    match *load {
        Load::Fresh(how) => fresh::run(doors, &balancer.way, how, lasting),
        Load::Bulk(streams) => bulk::run(doors, streams, lasting),
        Load::Datagrams(flows, size) => datagrams::run(doors, flows, &vec![b'?'; size], lasting),
        Load::Ping(connections, size) => {
            let streams = talk::open_echoing(doors, connections)
                .unwrap_or_else(|error| panic!("{doors:?}: {error}"));
            let question = vec![b'?'; size];
            let talk =
                Talk { question: &question, answered: Answered::Bytes(size), most: u64::MAX };
            talk::run(streams, &talk, lasting)
        }
        Load::Queue(connections, depth) => {
            let question = balancer.question.repeat(depth);
            let streams = (0..connections).map(|_| connect(doors[0])).collect();
            let talk = Talk {
                question: question.as_bytes(),
                answered: Answered::Lines(depth),
                most: QUESTIONS,
            };
            talk::run(streams, &talk, lasting)
        }
        Load::Idle => unreachable!("it has no clients that do anything"),
    }
}

#[test]
#[ignore = "a bench"]
fn bench_relay() {
    let connections = (raise_descriptors().saturating_sub(256) / 2).min(CONNECTIONS);
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    let names = chosen("PEGASUS_BENCH_SCENARIOS", &names);
    let balancers = chosen("PEGASUS_BENCH_BALANCERS", &ROWS.each_ref().map(|row| row.name));
    let lasting = Duration::from_secs_f64(parameter("PEGASUS_BENCH_SECONDS", 1.0));
    let rounds = parameter("PEGASUS_BENCH_ROUNDS", 7).max(1);
    let mut random = Random::told();
    let providers = Providers::start();
    println!("{rounds} rounds of {} s in random order on {}", lasting.as_secs_f64(), describe());
    println!("beside {}", balancers::versions());
    report::write(&format!(
        "{{\"rounds\":{rounds},\"seconds\":{},\"machine\":\"{}\"}}\n",
        lasting.as_secs_f64(),
        describe()
    ));
    let mut missed = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| names.contains(&scenario.name)) {
        println!("\n### {}: {}\n", scenario.name, scenario.what);
        let mut run =
            Run { scenario, providers: &providers, connections, effort: Effort::default() };
        let other = scenario.rows.contains(&"pegasus") && std::env::var_os(BEFORE).is_some();
        let names = scenario.rows.iter().chain(other.then_some(&"before"));
        let names = names.filter(|name| balancers.contains(name));
        let rows: Vec<&'static Row> =
            names.filter_map(|name| ROWS.iter().find(|row| row.name == *name)).collect();
        let results = run.rounds(&rows, rounds, lasting, &mut random);
        if !matches!(scenario.load, Load::Idle) {
            println!("Others used {:.0} % of the machine.\n", 100.0 * run.effort.others());
        }
        let (goals, count) = report::goals(scenario, &results);
        missed += count;
        println!("{}\n{goals}", report::table(scenario, &results));
        report::write(&report::json(scenario, &results, run.effort.others()));
    }
    println!("goals missed: {missed}");
}
