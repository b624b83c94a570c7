//! The scenarios, and what PEGASUS promises about them.
//!
//! Owns the table. Runs nothing.

use super::balancers::Kind;
use crate::bench::provider::engine::Build;
use std::time::Duration;

/// What happens to the first provider in the middle third of the measured time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    None,
    /// It is killed: port closed, connections reset.
    Death,
    /// Its host falls silent, with its monitor.
    Silence,
}

/// Something that one balancer must be or do.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Mean response time in that of another.
    Mean(Kind, f64),
    /// 99th percentile in that of another.
    P99(Kind, f64),
    /// No client is closed without an answer, but those in progress at a death.
    NoneRefused,
    /// At most so many fail.
    Failed(usize),
    /// Tries that failed, per request.
    Retries(f64),
    /// Requests slower than a second, or never answered, but those in progress at a silence.
    Slow(usize),
    /// Share of the returned provider in all answers, from six seconds after.
    ShareBack(f64),
    /// Share of requests answered within a second: at least.
    Good(f64),
    /// The same of another balancer: at most, or the scenario is no overload.
    OtherGood(Kind, f64),
}

/// A scenario: providers, load, an event, and goals.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub builds: [Build; 3],
    /// Requests a second.
    pub rate: f64,
    pub balancers: usize,
    /// For balancers that get true weights.
    pub weights: [u32; 3],
    pub kinds: &'static [Kind],
    pub trouble: Trouble,
    pub goals: &'static [Goal],
}

/// What counts as slow.
pub const SLOW: Duration = Duration::from_secs(1);
/// How soon after its return a provider must have its share again.
pub const BACK_WITHIN: Duration = Duration::from_secs(6);

use Goal::{Failed, Good, Mean, NoneRefused, OtherGood, Retries, ShareBack, Slow, P99};
use Kind::{LeastConn, Paper, Pegasus, RoundRobin, Weighted};

const fn slots(a: usize, b: usize, c: usize) -> [Build; 3] {
    [Build::of(a, 1.0), Build::of(b, 1.0), Build::of(c, 1.0)]
}

const ALL: &[Kind] = &[Pegasus, LeastConn, Weighted, RoundRobin];
const EQUAL: &[Kind] = &[Pegasus, LeastConn, RoundRobin];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "A1",
        what: "1, 2 and 4 slots, load 0.8",
        builds: slots(1, 2, 4),
        rate: 112.0,
        balancers: 1,
        weights: [1, 2, 4],
        kinds: ALL,
        trouble: Trouble::None,
        goals: &[Mean(LeastConn, 0.80), Mean(Weighted, 1.10), NoneRefused],
    },
    Scenario {
        name: "A1b",
        what: "the same before two balancers",
        builds: slots(1, 2, 4),
        rate: 112.0,
        balancers: 2,
        weights: [1, 2, 4],
        kinds: ALL,
        trouble: Trouble::None,
        goals: &[Mean(LeastConn, 0.80)],
    },
    Scenario {
        name: "A2",
        what: "4 slots each, load 0.6, one shares its CPUs with two strangers a slot",
        builds: [Build { hogs: 8, ..Build::of(4, 1.0) }, Build::of(4, 1.0), Build::of(4, 1.0)],
        rate: 144.0,
        balancers: 1,
        weights: [1, 1, 1],
        kinds: EQUAL,
        trouble: Trouble::None,
        goals: &[Mean(LeastConn, 0.97), P99(LeastConn, 1.0), Mean(RoundRobin, 0.65)],
    },
    Scenario {
        name: "A3",
        what: "4 slots each, load 0.5, one is killed for a third of the time",
        builds: slots(4, 4, 4),
        rate: 120.0,
        balancers: 1,
        weights: [1, 1, 1],
        kinds: EQUAL,
        trouble: Trouble::Death,
        goals: &[NoneRefused, Failed(12), Retries(0.001)],
    },
    Scenario {
        name: "A3b",
        what: "the same, its host falls silent; calls may take 1 s",
        builds: slots(4, 4, 4),
        rate: 120.0,
        balancers: 1,
        weights: [1, 1, 1],
        kinds: EQUAL,
        trouble: Trouble::Silence,
        goals: &[Slow(6), ShareBack(0.28)],
    },
    Scenario {
        name: "A4",
        what: "4 slots each, load 1.3",
        builds: slots(4, 4, 4),
        rate: 312.0,
        balancers: 1,
        weights: [1, 1, 1],
        kinds: &[Pegasus, LeastConn],
        trouble: Trouble::None,
        goals: &[Good(0.70), OtherGood(LeastConn, 0.20)],
    },
    Scenario {
        name: "A5",
        what: "2 slots of speeds 1, 2, 4, load 0.8; at speed 1 four fifths of it pass elsewhere",
        builds: [
            Build { outside: 4.0, ..Build::of(2, 1.0) },
            Build { outside: 4.0, ..Build::of(2, 2.0) },
            Build { outside: 4.0, ..Build::of(2, 4.0) },
        ],
        rate: 224.0,
        balancers: 1,
        // In progress at full load: two slots, and the requests that are elsewhere.
        weights: [10, 18, 34],
        kinds: ALL,
        trouble: Trouble::None,
        goals: &[Mean(LeastConn, 0.85), Mean(Weighted, 1.05)],
    },
    Scenario {
        name: "A6",
        what: "2 slots of speeds 1, 2, 4, load 0.5",
        builds: [Build::of(2, 1.0), Build::of(2, 2.0), Build::of(2, 4.0)],
        rate: 140.0,
        balancers: 1,
        weights: [1, 2, 4],
        kinds: ALL,
        trouble: Trouble::None,
        goals: &[Mean(LeastConn, 0.85)],
    },
    Scenario {
        name: "A7",
        what: "A1 with a redirector that counts nothing",
        builds: slots(1, 2, 4),
        rate: 112.0,
        balancers: 1,
        weights: [1, 2, 4],
        kinds: &[Paper, LeastConn, Weighted, RoundRobin],
        trouble: Trouble::None,
        goals: &[NoneRefused, Mean(LeastConn, 1.10), Mean(RoundRobin, 0.20)],
    },
];
