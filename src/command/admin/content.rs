//! What is served under each path, from one look at the process at a time.
//!
//! Owns how often the process is looked at: a look never takes more than a hundredth
//! of the time, however many ask. What was made of it is kept until the next look.

use super::exposition::{self, Exposed};
use super::history::{History, POINT_SECONDS};
use super::metrics::{service_series, unix_time, Event, Metrics};
use super::page;
use crate::command::status_report::{quoted, Report};
use crate::os::process_info;
use pegasus_core::base::time::{Moment, Span};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A look is good for so long, and for this many times what it took.
const AGE_MAX: Span = Span::from_millis(200);
const COST_FACTOR: u64 = 100;
/// The longest body, in bytes.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

/// An answer: status, type of the content, and the content.
pub type Answer = (&'static str, &'static str, Arc<Vec<u8>>);

/// What a process is, for those who look at it.
pub struct Subject {
    /// The command.
    pub role: &'static str,
    /// Its counters.
    pub metrics: Metrics,
    /// Flows of datagrams.
    pub flows: Arc<AtomicUsize>,
    /// Whether providers have series of their own in the metrics.
    pub per_provider: bool,
}

/// What is served under each path.
pub struct Content {
    subject: Subject,
    started: u64,
    /// The last look: when, what the queue said, and what was made of it.
    looked_at: Moment,
    good_until: Moment,
    status: Option<Arc<str>>,
    made: Vec<(&'static str, Answer)>,
    history: History,
    next_sample: Moment,
}

const PATHS: [&str; 5] = ["/", "/metrics", "/status", "/status.json", "/health"];

impl Content {
    /// Nothing was looked at yet.
    pub fn new(subject: Subject) -> Content {
        Content {
            subject,
            started: unix_time(),
            looked_at: Moment::ZERO,
            good_until: Moment::ZERO,
            status: None,
            made: Vec::new(),
            history: History::default(),
            next_sample: Moment::ZERO,
        }
    }

    /// When [`sample`](Content::sample) is due.
    pub fn next_sample(&self) -> Moment {
        self.next_sample
    }

    /// Adds a point to the charts, if one is due. `clock` reads the time, so that the
    /// cost of a look is known.
    pub fn sample(&mut self, now: Moment, clock: &dyn Fn() -> Moment) {
        if now >= self.next_sample {
            self.next_sample = now + Span::from_secs(POINT_SECONDS);
            self.look(now, clock);
            if let Some(status) = self.status.clone() {
                let failures = |service: &str| {
                    self.subject.metrics.queue_total(&service_series(service, "failures"))
                };
                self.history.add(&Report::parse(&status), |service| failures(service).unwrap_or(0));
            }
        }
    }

    /// Looks at the process, unless the last look is good enough.
    fn look(&mut self, now: Moment, clock: &dyn Fn() -> Moment) {
        if now < self.good_until {
            return;
        }
        self.status = self.subject.metrics.queue_status().map(Arc::from);
        self.made.clear();
        let cost = clock().since(now);
        self.looked_at = now;
        self.good_until = now + AGE_MAX.max(cost.times(COST_FACTOR));
    }

    /// The answer to a request for this path.
    pub fn answer(&mut self, path: &str, now: Moment, clock: &dyn Fn() -> Moment) -> Answer {
        let Some(path) = PATHS.into_iter().find(|known| *known == path) else {
            let text = format!("no such page; there are {}\n", PATHS.join(" "));
            return ("404 Not Found", TEXT, Arc::new(text.into_bytes()));
        };
        self.look(now, clock);
        if let Some((_, answer)) = self.made.iter().find(|(known, _)| *known == path) {
            return answer.clone();
        }
        let answer = self.make(path);
        self.made.push((path, answer.clone()));
        // To make it takes its time, too.
        let cost = clock().since(now);
        self.good_until = self.good_until.max(self.looked_at + cost.times(COST_FACTOR));
        answer
    }

    fn make(&self, path: &str) -> Answer {
        let text = self.status.clone();
        let report = text.as_deref().map(Report::parse);
        let (status, content_type, body) = match path {
            "/metrics" => ("200 OK", METRICS, self.exposition(report.as_ref())),
            "/status" => ("200 OK", TEXT, self.status_text()),
            "/status.json" => ("200 OK", JSON, self.status_json(report.as_ref())),
            "/health" => {
                let (status, why) = match self.trouble(report.as_ref()) {
                    None => ("200 OK", "ok"),
                    Some(why) => ("503 Service Unavailable", why),
                };
                (status, TEXT, format!("{why}\n"))
            }
            _ => ("200 OK", HTML, self.page(report.as_ref())),
        };
        if body.len() > BODY_BYTES_MAX {
            let text = "more than 32 MiB: set metrics_detail=service\n".to_string();
            return ("503 Service Unavailable", TEXT, Arc::new(text.into_bytes()));
        }
        (status, content_type, Arc::new(body.into_bytes()))
    }

    fn exposition(&self, report: Option<&Report>) -> String {
        exposition::write(&Exposed {
            role: self.subject.role,
            metrics: &self.subject.metrics,
            report,
            process: process_info::read(),
            started: self.started,
            flows: self.subject.flows.load(Ordering::Relaxed) as u64,
            per_provider: self.subject.per_provider,
        })
    }

    /// The lines of the queue; then one for the redirector, and those of the monitor.
    fn status_text(&self) -> String {
        let mut text = self.status.as_deref().unwrap_or("").to_string();
        for (name, counters) in self.subject.metrics.services() {
            let ended: u64 = counters.connections.iter().chain(&counters.flows).sum();
            let _ = writeln!(
                text,
                "redirect service={name} connections={} ended={ended} retries={} sent={} \
                 received={}",
                counters.present, counters.retries, counters.sent, counters.received
            );
        }
        if let Some(monitor) = self.subject.metrics.monitor() {
            let _ = writeln!(text, "monitor {}", monitor.sample);
            for ((service, balancer), (tickets, capacity)) in &monitor.offers {
                let _ = writeln!(
                    text,
                    "offer service={service} balancer={balancer} tickets={tickets} \
                     capacity={capacity}"
                );
            }
        }
        text
    }

    fn status_json(&self, report: Option<&Report>) -> String {
        let metrics = &self.subject.metrics;
        let mut json = format!(
            "{{\"role\":{},\"draining\":{},",
            quoted(self.subject.role),
            metrics.is_draining()
        );
        if let Some(report) = report {
            report.write_json(&mut json);
            json.push(',');
        }
        json.push_str("\"redirect\":[");
        for (number, (name, counters)) in metrics.services().iter().enumerate() {
            let ended: u64 = counters.connections.iter().chain(&counters.flows).sum();
            let _ = write!(
                json,
                "{}{{\"service\":\"{name}\",\"connections\":{},\"ended\":{ended},\"retries\":{},\
                 \"sent\":{},\"received\":{}}}",
                if number == 0 { "" } else { "," },
                counters.present,
                counters.retries,
                counters.sent,
                counters.received
            );
        }
        json.push_str("],\"events\":[");
        for (number, Event { at, text }) in metrics.events().iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(json, "{comma}{{\"at\":{at},\"text\":{}}}", quoted(text));
        }
        json.push_str("]}\n");
        json
    }

    /// Why clients should go elsewhere, if they should.
    fn trouble(&self, report: Option<&Report>) -> Option<&'static str> {
        let metrics = &self.subject.metrics;
        if metrics.is_draining() {
            return Some("draining");
        }
        if let Some(report) = report {
            let mut providers = report.services.iter().flat_map(|service| &service.providers);
            return (!providers.any(|provider| provider.number("capacity") > 0))
                .then_some("no provider");
        }
        if let Some(monitor) = metrics.monitor() {
            let offers = monitor.offers.values().any(|(_, capacity)| *capacity > 0);
            return (!offers).then_some("nothing is offered");
        }
        let (up, workers) = metrics.workers();
        (workers > 0 && up == 0).then_some("the queue cannot be reached")
    }

    fn page(&self, report: Option<&Report>) -> String {
        page::write(&page::View {
            role: self.subject.role,
            metrics: &self.subject.metrics,
            report,
            trouble: self.trouble(report),
            history: &self.history,
        })
    }
}
