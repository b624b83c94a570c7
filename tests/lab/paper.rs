//! The paper's comparison in virtual time, as often as it takes to tell rows apart.
//!
//! Owns the scenario of `bench_paper` for the simulation. Here a host shares its CPUs
//! evenly among its requests, and a peer that cannot drain a provider sees a check that fails.

use super::figures::Figures;
use super::setting::{Build, Checks, Misfortune, Setting};
use super::world::{run, Policy, DEFAULT};
use super::{seed, Replay};
use crate::bench::json::{append, Line};
use crate::bench::statistics::interval;
use pegasus_core::base::time::{Moment, Span};

/// Seconds before the part that counts, and of that part.
const WARM: f64 = 12.0;
const LENGTH: f64 = 60.0;
/// Runs with other requests, the same for all rows.
const ROUNDS: u64 = if cfg!(debug_assertions) { 10 } else { 200 };

/// What happens when to which provider, in parts of the time that counts.
const TROUBLES: [(f64, usize, Misfortune); 9] = [
    (0.12, 2, Misfortune::Hogs(2)),
    (0.30, 2, Misfortune::Hogs(0)),
    (0.38, 1, Misfortune::Dies),
    (0.52, 1, Misfortune::Recovers),
    (0.62, 0, Misfortune::AnswersErrors),
    (0.62, 0, Misfortune::FailsItsCheck),
    (0.76, 0, Misfortune::Recovers),
    (0.84, 1, Misfortune::FailsItsCheck),
    (0.94, 1, Misfortune::Recovers),
];

const ROWS: [(&str, Policy); 4] = [
    ("PEGASUS", DEFAULT),
    ("leastconn", Policy::LeastConn),
    ("leastconn, true weights", Policy::WeightedLeast),
    ("P2C", Policy::TwoChoices),
];

fn setting() -> Setting {
    let at = |part: f64| Moment::after_start(Span::from_secs_f64(WARM + part * LENGTH));
    Setting {
        hosts: [1.0, 2.0, 4.0].map(|speed| Build { cpus: 2.0, speed, hogs: 0.0 }).to_vec(),
        rho: 0.6,
        mean: 0.1,
        noise: 0.0,
        checks: Checks { every: Span::from_secs(1), fall: 1, rise: 2 },
        repeats: true,
        misfortunes: TROUBLES.map(|(part, provider, what)| (at(part), provider, what)).to_vec(),
        warm: Span::from_secs_f64(WARM),
        length: Span::from_secs_f64(WARM + LENGTH),
        ..Setting::usual("paper", "the paper's comparison")
    }
}

/// The means of a row, each with half of its 95 % interval.
fn line((row, policy): (&str, Policy), rounds: u64) -> Line {
    let round = |seed: u64| -> Figures {
        let setting = setting();
        run(&setting, &setting.arrivals(seed), policy, seed)
    };
    let rounds: Vec<Figures> = (seed()..seed() + rounds).map(round).collect();
    let mut line = Line::default();
    line.text("bench", "lab-paper").text("row", row).number("rounds", rounds.len() as f64);
    let mut add = |name: &str, half_name: &str, of: &dyn Fn(&Figures) -> f64| {
        let (mean, half) = interval(&rounds.iter().map(of).collect::<Vec<f64>>());
        line.number(name, mean).number(half_name, half);
    };
    add("mean", "mean_half", &Figures::mean);
    add("p99", "p99_half", &|figures| figures.quantile(0.99));
    add("p999", "p999_half", &|figures| figures.quantile(0.999));
    add("failed", "failed_half", &Figures::failed_percent);
    line
}

/// Figures for the page of results.
#[test]
#[ignore = "prints figures"]
fn lab_paper() {
    let _replay = Replay(seed(), "lab_paper");
    let lines = ROWS.map(|row| line(row, ROUNDS));
    lines.iter().for_each(|line| println!("{line}"));
    append(&lines);
}

/// That a slow provider is not worth a long wait is what tickets alone did not say: this
/// was 0.97.
#[test]
#[cfg_attr(debug_assertions, ignore = "long in debug mode")]
fn the_slowest_hundredth_waits_less_than_by_fewest_requests() {
    let _replay = Replay(seed(), "the_slowest_hundredth_waits_less_than_by_fewest_requests");
    let p99 = |row| line(ROWS[row], 20).get("p99");
    let (ours, theirs) = (p99(0), p99(1));
    assert!(ours <= 0.85 * theirs, "{ours} ms, leastconn {theirs}");
}
