//! The last minutes of each service, for the charts of the page.
//!
//! Owns the points: grants, waiting requests and failures, one every few seconds.

use crate::command::status_report::Report;
use std::collections::{BTreeMap, VecDeque};

/// Seconds between two points.
pub const POINT_SECONDS: u64 = 5;
/// Points of a chart: 15 minutes.
pub const POINTS: usize = 180;
/// Services that have charts.
const SERVICES_MAX: usize = 32;

/// What happened since the point before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Requests that got a provider.
    pub granted: u64,
    /// Requests that waited at this moment, or were refused since.
    pub waited: u64,
    /// Failures of providers.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Line {
    points: VecDeque<Point>,
    /// The counters at the last point: granted, refused, failures.
    last: [u64; 3],
}

/// The points of each service's chart, by its name.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, Line>);

impl History {
    /// Adds a point to each service; one that is gone has no chart any more. `failures`:
    /// of all providers of a service that there have been.
    pub fn add(&mut self, report: &Report, failures: impl Fn(&str) -> u64) {
        let known = |name: &String| {
            report.services.iter().any(|service| service.record.text("name") == name)
        };
        self.0.retain(|name, _| known(name));
        for service in &report.services {
            let name = service.record.text("name");
            if self.0.len() >= SERVICES_MAX && !self.0.contains_key(name) {
                continue;
            }
            let counters = [
                service.record.number("granted"),
                service.record.number("refused"),
                failures(name),
            ];
            let first = !self.0.contains_key(name);
            let line = self.0.entry(name.to_string()).or_default();
            let since = |at: usize| counters[at].saturating_sub(line.last[at]);
            let point = Point {
                granted: since(0),
                waited: service.record.number("waiting") + since(1),
                failures: since(2),
            };
            line.last = counters;
            // What was counted before the first look did not happen at once.
            if !first {
                if line.points.len() >= POINTS {
                    line.points.pop_front();
                }
                line.points.push_back(point);
            }
        }
    }

    /// The points of a service, oldest first.
    pub fn points(&self, service: &str) -> impl Iterator<Item = Point> + '_ {
        self.0.get(service).into_iter().flat_map(|line| line.points.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_what_happened_since_the_one_before() {
        let mut history = History::default();
        for (granted, refused, failures) in [(10, 0, 1), (15, 2, 1), (15, 2, 3)] {
            let text = format!("service name=web granted={granted} refused={refused} waiting=1\n");
            history.add(&Report::parse(&text), |_| failures);
        }
        let points: Vec<_> =
            history.points("web").map(|p| (p.granted, p.waited, p.failures)).collect();
        assert_eq!(points, [(5, 3, 0), (0, 1, 2)]);
        (0..POINTS * 2).for_each(|_| history.add(&Report::parse("service name=web\n"), |_| 0));
        assert_eq!(history.points("web").count(), POINTS);
        history.add(&Report::parse("queue waiting=0\n"), |_| 0);
        assert_eq!(history.points("web").count(), 0);
    }
}
