//! Figures of a run, and whether a goal is met.
//!
//! Owns the arithmetic, the printed table and the JSON lines.

use super::balancers::Kind;
use super::clients::{End, Visit};
use super::scenarios::{Goal, Scenario, BACK_WITHIN, SLOW};
use std::fmt::Write as _;
use std::time::Duration;

/// What was measured, in milliseconds, requests, and shares of 1.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    pub sent: f64,
    pub mean: f64,
    pub p99: f64,
    /// Closed without a reply, except requests in progress at a death.
    pub refused: f64,
    /// All that were closed without a reply.
    pub failed: f64,
    pub timed_out: f64,
    pub retries: f64,
    pub good: f64,
    /// Slower than a second or never answered, with the same exception.
    pub slow: f64,
    pub share_back: f64,
}

/// What is known of a run besides the results of its requests.
pub struct Circumstances {
    /// What was due before this does not count.
    pub warm_up: Duration,
    /// When the troubled provider returned.
    pub returned: Duration,
    /// In progress at a death or a silence.
    pub broken: usize,
    pub retries: u64,
}

impl Figures {
    pub fn of(visits: &[Visit], run: &Circumstances) -> Figures {
        let visits: Vec<&Visit> = visits.iter().filter(|visit| visit.due >= run.warm_up).collect();
        let count = |which: &dyn Fn(&Visit) -> bool| {
            visits.iter().filter(|visit| which(visit)).count() as f64
        };
        let mut times: Vec<f64> = visits
            .iter()
            // A client that gave up waited at least this long; without it, losing
            // requests would pay.
            .filter(|visit| visit.end != End::Refused)
            .map(|visit| visit.took.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        let good = count(&|visit| matches!(visit.end, End::Answered(_)) && visit.took <= SLOW);
        let slow = count(&|visit| {
            visit.end == End::TimedOut || matches!(visit.end, End::Answered(_)) && visit.took > SLOW
        });
        let failed = count(&|visit| visit.end == End::Refused);
        let back = |visit: &Visit| visit.due >= run.returned + BACK_WITHIN;
        let answered_back = count(&|visit| back(visit) && matches!(visit.end, End::Answered(_)));
        let sent = visits.len() as f64;
        Figures {
            sent,
            mean: times.iter().sum::<f64>() / (times.len() as f64).max(1.0),
            p99: times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN),
            refused: (failed - run.broken as f64).max(0.0),
            failed,
            timed_out: count(&|visit| visit.end == End::TimedOut),
            retries: run.retries as f64,
            good: good / sent,
            slow: (slow + failed - run.broken as f64).max(0.0),
            share_back: count(&|visit| back(visit) && visit.end == End::Answered(0))
                / answered_back.max(1.0),
        }
    }

    /// The mean of several runs.
    pub fn mean(runs: &[Figures]) -> Figures {
        let mean = |of: fn(&Figures) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        Figures {
            sent: mean(|run| run.sent),
            mean: mean(|run| run.mean),
            p99: mean(|run| run.p99),
            refused: mean(|run| run.refused),
            failed: mean(|run| run.failed),
            timed_out: mean(|run| run.timed_out),
            retries: mean(|run| run.retries),
            good: mean(|run| run.good),
            slow: mean(|run| run.slow),
            share_back: mean(|run| run.share_back),
        }
    }
}

/// The figures of every balancer in a scenario.
pub type Results = Vec<(Kind, Figures)>;

fn of(results: &Results, kind: Kind) -> Option<Figures> {
    results.iter().find(|(known, _)| *known == kind).map(|(_, figures)| *figures)
}

/// Returns the goal, the figure, and whether it is met; the first balancer of the results
/// is judged. None if the other one is missing.
pub fn judge(goal: &Goal, results: &Results) -> Option<(String, f64, bool)> {
    let ours = results.first()?.1;
    let most = |what: String, seen: f64, most: f64| Some((what, seen, seen <= most));
    match *goal {
        Goal::Mean(other, limit) => most(
            format!("mean <= {limit:.2} of {}", other.name()),
            ours.mean / of(results, other)?.mean,
            limit,
        ),
        Goal::P99(other, limit) => most(
            format!("p99 <= {limit:.2} of {}", other.name()),
            ours.p99 / of(results, other)?.p99,
            limit,
        ),
        Goal::NoneRefused => most("none refused".into(), ours.refused, 0.0),
        Goal::Failed(limit) => most(format!("at most {limit} failed"), ours.failed, limit as f64),
        Goal::Retries(limit) => {
            most(format!("retries <= {limit} a request"), ours.retries / ours.sent, limit)
        }
        Goal::Slow(limit) => {
            most(format!("at most {limit} slower than 1 s, of new ones"), ours.slow, limit as f64)
        }
        Goal::ShareBack(limit) => {
            let seen = ours.share_back;
            Some((format!("share 6 s after return >= {limit}"), seen, seen >= limit))
        }
        Goal::Good(limit) => {
            Some((format!("answered within 1 s >= {limit:.2}"), ours.good, ours.good >= limit))
        }
        Goal::OtherGood(other, limit) => most(
            format!("{} within 1 s <= {limit:.2}", other.name()),
            of(results, other)?.good,
            limit,
        ),
    }
}

/// What stands in the table above each column of [`print`].
pub fn print_head() {
    println!(
        "{:<4} {:<19} {:>6} {:>8} {:>8} {:>7} {:>6} {:>6} {:>7} {:>6} {:>8} {:>8}",
        "",
        "",
        "sent",
        "mean ms",
        "p99 ms",
        "refused",
        "failed",
        "lost",
        "retries",
        "good%",
        "/leastc.",
        "/weights"
    );
}

/// The rows of a scenario; how many goals were missed.
pub fn print(scenario: &Scenario, results: &Results) -> usize {
    let ratio = |figures: &Figures, kind| match of(results, kind) {
        Some(other) => format!("{:.3}", figures.mean / other.mean),
        None => "-".into(),
    };
    for (kind, figures) in results {
        println!(
            "{:<4} {:<19} {:>6.0} {:>8.1} {:>8.0} {:>7.0} {:>6.0} {:>6.0} {:>7.0} {:>6.1} \
             {:>8} {:>8}",
            scenario.name,
            kind.name(),
            figures.sent,
            figures.mean,
            figures.p99,
            figures.refused,
            figures.failed,
            figures.timed_out,
            figures.retries,
            100.0 * figures.good,
            ratio(figures, Kind::LeastConn),
            ratio(figures, Kind::Weighted),
        );
    }
    let mut missed = 0;
    for goal in scenario.goals {
        match judge(goal, results) {
            Some((what, seen, met)) => {
                println!(
                    "{:<4}   {what}: {seen:.4}  {}",
                    scenario.name,
                    if met { "met" } else { "MISSED" }
                );
                missed += usize::from(!met);
            }
            None => println!("{:<4}   {goal:?}: not measured", scenario.name),
        }
    }
    missed
}

/// The same as JSON, a line for each balancer and goal. No name in it needs quoting.
pub fn json(scenario: &Scenario, results: &Results, rounds: u64, busy: f64) -> String {
    let mut text = String::new();
    let number = |value: f64| if value.is_finite() { format!("{value:.4}") } else { "null".into() };
    for (kind, figures) in results {
        let _ =
            write!(text, "{{\"scenario\":\"{}\",\"balancer\":\"{}\"", scenario.name, kind.name());
        for (name, value) in [
            ("rounds", rounds as f64),
            ("sent", figures.sent),
            ("mean_ms", figures.mean),
            ("p99_ms", figures.p99),
            ("refused", figures.refused),
            ("failed", figures.failed),
            ("timed_out", figures.timed_out),
            ("retries", figures.retries),
            ("good", figures.good),
            ("slow", figures.slow),
            ("share_back", figures.share_back),
            ("machine_busy", busy),
        ] {
            let _ = write!(text, ",\"{name}\":{}", number(value));
        }
        text.push_str("}\n");
    }
    for goal in scenario.goals {
        if let Some((what, seen, met)) = judge(goal, results) {
            let _ = writeln!(
                text,
                "{{\"scenario\":\"{}\",\"goal\":\"{what}\",\"seen\":{},\"met\":{met}}}",
                scenario.name,
                number(seen)
            );
        }
    }
    text
}
