//! What came of a contestant.
//!
//! Owns the arithmetic from visits and what providers saw to figures, and their JSON line.

use super::clients::{End, Visit, PATIENCE};
use super::contestants::Row;
use super::plan::Plan;
use crate::bench::json::Line;
use crate::bench::statistics::quantile;
use std::time::Duration;

/// An answer within this time is a good one.
const GOOD: Duration = Duration::from_secs(1);

/// What was seen of a contestant, with times since the first request.
pub struct Observed {
    pub visits: Vec<Visit>,
    /// By provider: when requests for work came.
    pub came: Vec<Vec<Duration>>,
    /// Requests that were in a provider when it died.
    pub broken: usize,
    /// Most requests in a provider at once, by provider.
    pub most: Vec<usize>,
    /// Of the balancer, and of the monitors.
    pub used: (Duration, Duration),
    /// Whether its operator could drain a provider without editing files.
    pub drains: bool,
}

/// Answer times in ms, sorted.
fn times<'a>(visits: impl Iterator<Item = &'a Visit>) -> Vec<f64> {
    let answered = visits.filter(|visit| visit.end == End::Answered);
    let mut times: Vec<f64> = answered.map(|visit| 1000.0 * visit.took.as_secs_f64()).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// Parts of the requests that came to the providers in these spans.
fn shares(came: &[Vec<Duration>], spans: &[(Duration, Duration)]) -> String {
    let within = |at: &&Duration| spans.iter().any(|(from, to)| (*from..*to).contains(at));
    let counts: Vec<usize> = came.iter().map(|times| times.iter().filter(within).count()).collect();
    let all = counts.iter().sum::<usize>().max(1) as f64;
    let parts: Vec<String> =
        counts.iter().map(|count| format!("{:.3}", *count as f64 / all)).collect();
    parts.join(" ")
}

impl Observed {
    /// Its line, all times in ms but those that are said to be in s.
    pub fn line(&self, plan: &Plan, round: u64, row: &Row) -> Line {
        let visits = || self.visits.iter().filter(|visit| visit.due >= plan.warm);
        let within = |(from, to): (Duration, Duration)| {
            move |visit: &&Visit| (from..to).contains(&visit.due)
        };
        let failed = |visit: &&Visit| visit.end != End::Answered;
        let count = |end: End| visits().filter(|visit| visit.end == end).count() as f64;
        let all = times(visits());
        // What failed, as if it had taken all the time that clients have.
        let avoidable = visits().filter(failed).count().saturating_sub(self.broken);
        let mut with_failed = all.clone();
        with_failed.extend(std::iter::repeat_n(1000.0 * PATIENCE.as_secs_f64(), avoidable));
        let good = visits().filter(|v| v.end == End::Answered && v.took <= GOOD).count();
        let mut line = Line::default();
        line.text("bench", "paper").number("round", round as f64).text("row", row.name);
        line.number("came", visits().count() as f64)
            .number("answered", all.len() as f64)
            .number("failed", visits().filter(failed).count() as f64)
            .number("refused", count(End::Refused))
            .number("errors", count(End::Error))
            .number("timeouts", count(End::TimedOut))
            .number("broken", self.broken as f64)
            .number("goodput", good as f64 / plan.length.as_secs_f64())
            .number("mean", all.iter().sum::<f64>() / all.len().max(1) as f64)
            .number("p50", quantile(&all, 0.5))
            .number("p99", quantile(&all, 0.99))
            .number("p999", quantile(&all, 0.999))
            .number("p99_all", quantile(&with_failed, 0.99))
            .number("cpu", 1e6 * self.used.0.as_secs_f64() / self.visits.len().max(1) as f64)
            .number("monitors", 1000.0 * self.used.1.as_secs_f64() / plan.all().as_secs_f64())
            .text("share_calm", &shares(&self.came, &plan.calm()))
            .text("share_antagonist", &shares(&self.came, &[plan.antagonist]))
            .text("most", &self.most.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
        for (name, span) in plan.spans() {
            let part = times(self.visits.iter().filter(within(span)));
            let bad = self.visits.iter().filter(within(span)).filter(failed);
            // Seconds from the beginning of the trouble to the last request that fails.
            let last = bad.clone().map(|visit| (visit.due - span.0).as_secs_f64());
            line.number(&format!("{name}_p99"), quantile(&part, 0.99))
                .number(&format!("{name}_failed"), bad.clone().count() as f64)
                .number(&format!("{name}_last_s"), last.fold(f64::NAN, f64::max));
        }
        let first_after = |provider: usize, from: Duration| {
            let at = self.came[provider].iter().find(|at| **at >= from);
            at.map_or(f64::NAN, |at| (*at - from).as_secs_f64())
        };
        let last_within = |provider: usize, (from, to): (Duration, Duration)| {
            let after = self.came[provider].iter().filter(|at| (from..to).contains(at));
            after.map(|at| (*at - from).as_secs_f64()).fold(0.0, f64::max)
        };
        line.number("join_s", first_after(plan.dies, plan.crash.1));
        let drained = last_within(plan.dies, plan.drain);
        line.number("drain_s", if self.drains { drained } else { f64::NAN });
        line
    }
}
