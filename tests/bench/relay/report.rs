//! Medians, ratios and whether a goal is met.
//!
//! Owns the arithmetic, the printed tables (Markdown) and the JSON lines.

use super::scenarios::{Column, Goal, Metric, Scenario};
use crate::bench::statistics::median;
use crate::support::random::Random;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

/// What one measurement gave.
pub struct Figures(pub Vec<(Metric, f64)>);

impl Figures {
    pub fn get(&self, metric: Metric) -> f64 {
        self.0.iter().find(|(known, _)| *known == metric).map_or(f64::NAN, |(_, figure)| *figure)
    }
}

/// By the names of rows, their figures round by round.
pub type Results = Vec<(&'static str, Vec<Figures>)>;

fn series(results: &Results, row: &str, metric: Metric) -> Option<Vec<f64>> {
    let (_, rounds) = results.iter().find(|(name, _)| *name == row)?;
    Some(rounds.iter().map(|figures| figures.get(metric)).collect())
}

/// Of all rounds together.
fn whole(metric: Metric, values: Vec<f64>) -> f64 {
    match metric {
        Metric::Failed => values.iter().sum(),
        _ => median(values),
    }
}

/// A median and its 95 % interval.
#[derive(Clone, Copy)]
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    /// Of two rows, round by round; by a bootstrap, which is the same each time.
    fn of(results: &Results, metric: Metric, ours: &str, other: &str) -> Option<Ratio> {
        const SAMPLES: usize = 2000;
        let ours = series(results, ours, metric)?;
        let other = series(results, other, metric)?;
        let ratios: Vec<f64> = ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
        if ratios.is_empty() || ratios.iter().any(|ratio| !ratio.is_finite()) {
            return None;
        }
        let mut random = Random::new(1);
        let mut sample = || {
            median(
                ratios.iter().map(|_| ratios[random.below(ratios.len() as u64) as usize]).collect(),
            )
        };
        let mut medians: Vec<f64> = (0..SAMPLES).map(|_| sample()).collect();
        medians.sort_by(f64::total_cmp);
        let low = medians[SAMPLES / 40];
        let high = medians[SAMPLES - 1 - SAMPLES / 40];
        Some(Ratio { median: median(ratios), low, high })
    }

    fn text(&self) -> String {
        format!("{:.2} [{:.2}, {:.2}]", self.median, self.low, self.high)
    }
}

/// A figure in the units of its column.
fn figure(column: &Column, value: f64) -> String {
    let value = value * column.scale;
    if !value.is_finite() {
        return "–".into();
    }
    let text = format!("{:.*}", column.digits, value);
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.char_indices() {
        if place > 0 && (whole.len() - place) % 3 == 0 && whole.as_bytes()[place - 1] != b'-' {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Rows of ours with a metric in which they are compared with the others.
fn comparisons(scenario: &Scenario, results: &Results) -> Vec<(&'static str, &'static Column)> {
    let there = scenario.ours.iter().filter(|ours| results.iter().any(|(name, _)| name == *ours));
    let column = |metric: &Metric| scenario.columns.iter().find(|column| column.metric == *metric);
    there
        .flat_map(|ours| scenario.compared.iter().filter_map(column).map(|column| (*ours, column)))
        .collect()
}

/// The table of a scenario.
pub fn table(scenario: &Scenario, results: &Results) -> String {
    let comparisons = comparisons(scenario, results);
    let mut text = String::from("| |");
    for column in scenario.columns {
        let _ = write!(text, " {} |", column.title);
    }
    for (ours, column) in &comparisons {
        let _ = write!(text, " {} of {ours} to it |", column.metric.word());
    }
    text += "\n|---|";
    text += &"---:|".repeat(scenario.columns.len() + comparisons.len());
    for (name, _) in results {
        let _ = write!(text, "\n| {name} |");
        for column in scenario.columns {
            let value = series(results, name, column.metric)
                .map_or(f64::NAN, |values| whole(column.metric, values));
            let _ = write!(text, " {} |", figure(column, value));
        }
        for (ours, column) in &comparisons {
            let ratio = Ratio::of(results, column.metric, ours, name).filter(|_| ours != name);
            let _ = write!(text, " {} |", ratio.map_or("–".into(), |ratio| ratio.text()));
        }
    }
    text + "\n"
}

/// Returns the goal, the figure, and whether it is met; none if one of the rows is
/// missing.
struct Verdict {
    what: String,
    seen: f64,
    interval: Option<Ratio>,
    met: bool,
}

fn judge(scenario: &Scenario, goal: &Goal, results: &Results) -> Option<Verdict> {
    let column = |metric| scenario.columns.iter().find(|column| column.metric == metric);
    let compare = |metric, ours, other, at_most: bool, limit: f64| {
        let ratio = Ratio::of(results, metric, ours, other)?;
        let (word, met) = if at_most {
            ("at most", ratio.median <= limit)
        } else {
            ("at least", ratio.median >= limit)
        };
        let what = format!("{} of {ours} {word} {limit:.2} of {other}", metric.word());
        Some(Verdict { what, seen: ratio.median, interval: Some(ratio), met })
    };
    match *goal {
        Goal::AtMost(metric, ours, other, limit) => compare(metric, ours, other, true, limit),
        Goal::AtLeast(metric, ours, other, limit) => compare(metric, ours, other, false, limit),
        Goal::Most(metric, ours, limit) => {
            let column = column(metric)?;
            let seen = median(series(results, ours, metric)?) * column.scale;
            let what = format!("{} of {ours} at most {limit}", column.title);
            seen.is_finite().then_some(Verdict { what, seen, interval: None, met: seen <= limit })
        }
    }
}

/// The goals of a scenario as a list, and how many were missed.
pub fn goals(scenario: &Scenario, results: &Results) -> (String, usize) {
    let verdicts: Vec<Verdict> =
        scenario.goals.iter().filter_map(|goal| judge(scenario, goal, results)).collect();
    let mut text = String::new();
    for verdict in &verdicts {
        let seen = verdict.interval.map_or(format!("{:.3}", verdict.seen), |ratio| ratio.text());
        let _ = writeln!(
            text,
            "- {}: {seen} {}",
            verdict.what,
            if verdict.met { "met" } else { "MISSED" }
        );
    }
    let unknown = scenario.goals.len() - verdicts.len();
    if unknown > 0 {
        let _ = writeln!(text, "- goals that could not be judged: {unknown}");
    }
    (text, verdicts.iter().filter(|verdict| !verdict.met).count())
}

fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.4}")
    } else {
        "null".into()
    }
}

/// Adds JSON lines to the file that is wanted, if one is.
pub fn write(lines: &str) {
    if let Ok(path) = std::env::var("PEGASUS_BENCH_JSON") {
        let file = File::options().create(true).append(true).open(&path);
        let mut file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
        file.write_all(lines.as_bytes()).unwrap();
    }
}

/// The same as JSON lines: figures, ratios, goals. No name in them needs quoting.
pub fn json(scenario: &Scenario, results: &Results, others: f64) -> String {
    let mut text = String::new();
    for (name, _) in results {
        for column in scenario.columns {
            let Some(values) = series(results, name, column.metric) else { continue };
            let rounds: Vec<String> =
                values.iter().map(|value| number(value * column.scale)).collect();
            let _ = write!(
                text,
                r#"{{"scenario":"{}","balancer":"{name}","figure":"{}","value":{},"#,
                scenario.name,
                column.title,
                number(whole(column.metric, values) * column.scale),
            );
            let _ = writeln!(
                text,
                r#""rounds":[{}],"machine_others":{}}}"#,
                rounds.join(","),
                number(others),
            );
        }
    }
    for (ours, column) in comparisons(scenario, results) {
        for (name, _) in results.iter().filter(|(name, _)| *name != ours) {
            let Some(ratio) = Ratio::of(results, column.metric, ours, name) else { continue };
            let _ = write!(
                text,
                r#"{{"scenario":"{}","ours":"{ours}","other":"{name}","figure":"{}","#,
                scenario.name, column.title,
            );
            let _ = writeln!(
                text,
                r#""ratio":{},"low":{},"high":{}}}"#,
                number(ratio.median),
                number(ratio.low),
                number(ratio.high),
            );
        }
    }
    for verdict in scenario.goals.iter().filter_map(|goal| judge(scenario, goal, results)) {
        let _ = writeln!(
            text,
            r#"{{"scenario":"{}","goal":"{}","seen":{},"met":{}}}"#,
            scenario.name,
            verdict.what,
            number(verdict.seen),
            verdict.met,
        );
    }
    text
}
