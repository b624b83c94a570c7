//! The counters of a process: what its workers count, and what is kept over upgrades.
//!
//! Owns the counters and their notation for another process. Each worker has a part of
//! its own, behind a lock that only a look at the metrics ever contends for: several
//! targets have no 64-bit atomics. Knows no HTTP.

use super::histogram::{Histogram, BOUNDS};
use super::monitor_state::MonitorState;
use crate::command::status_report::Report;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::redirect::redirector::RedirectLog;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Services that are counted apart.
const SERVICES_MAX: usize = 256;
/// Counters of queues that are kept although the queue forgot what they count.
const KEPT_MAX: usize = 16 * 1024;
/// Events that are remembered.
const EVENTS_MAX: usize = 50;
const OUTCOMES: usize = Outcome::ALL.len();

/// What is counted of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Connections that ended, by outcome.
    pub connections: [u64; OUTCOMES],
    /// Flows of datagrams that ended, by outcome.
    pub flows: [u64; OUTCOMES],
    /// From a client's arrival to its provider's answer.
    pub wait: Histogram,
    /// From the first packet of a connect to its end.
    pub connect: Histogram,
    /// From a client's arrival to its end.
    pub session: Histogram,
    /// Bytes to clients.
    pub sent: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Providers that failed a client, which was given another one.
    pub retries: u64,
    /// Clients that are here now. No counter: it is not carried.
    pub present: u64,
}

impl ServiceCounters {
    fn add(&mut self, other: &ServiceCounters) {
        for (one, more) in
            [(&mut self.connections, &other.connections), (&mut self.flows, &other.flows)]
        {
            one.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        self.wait.add(&other.wait);
        self.connect.add(&other.connect);
        self.session.add(&other.session);
        self.sent += other.sent;
        self.received += other.received;
        self.retries += other.retries;
        self.present += other.present;
    }

    /// All counters in their order; the gauge is not among them.
    fn each(&mut self, mut visit: impl FnMut(&mut u64)) {
        self.connections.iter_mut().chain(&mut self.flows).for_each(&mut visit);
        for histogram in [&mut self.wait, &mut self.connect, &mut self.session] {
            histogram.counts.iter_mut().for_each(&mut visit);
            visit(&mut histogram.sum_nanos);
        }
        [&mut self.sent, &mut self.received, &mut self.retries].into_iter().for_each(visit);
    }
}

/// How many numbers [`ServiceCounters::each`] visits.
const NUMBERS: usize = 2 * OUTCOMES + 3 * (BOUNDS + 2) + 3;

/// The counters of services by name.
pub type Services = BTreeMap<ServiceName, ServiceCounters>;

#[derive(Default)]
struct WorkerPart {
    services: Services,
    queue_up: bool,
}

/// Where one worker counts.
#[derive(Clone)]
pub struct WorkerMetrics(Arc<Mutex<WorkerPart>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are numbers: a panic elsewhere leaves them as good as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerMetrics {
    fn with(&self, service: ServiceName, count: impl FnOnce(&mut ServiceCounters)) {
        let services = &mut lock(&self.0).services;
        if services.len() < SERVICES_MAX || services.contains_key(&service) {
            count(services.entry(service).or_default());
        }
    }

    /// A client is here.
    pub fn client_arrived(&self, service: ServiceName) {
        self.with(service, |counters| counters.present += 1);
    }

    /// A provider answered a connect.
    pub fn connected(&self, service: ServiceName, within: Span) {
        self.with(service, |counters| counters.connect.observe(within));
    }

    /// The queue can be asked, or not any more.
    pub fn queue_up(&self, up: bool) {
        lock(&self.0).queue_up = up;
    }

    /// Counts what the access log reports. `is_flow`: it is of datagrams.
    pub fn record(&self, note: &RedirectLog, is_flow: bool) {
        match note {
            RedirectLog::Closed { service, outcome, sent, received, waited, lasted, .. } => {
                self.with(*service, |counters| {
                    let ends =
                        if is_flow { &mut counters.flows } else { &mut counters.connections };
                    ends[*outcome as usize] += 1;
                    counters.sent = counters.sent.saturating_add(*sent);
                    counters.received = counters.received.saturating_add(*received);
                    if !is_flow {
                        counters.present = counters.present.saturating_sub(1);
                        counters.wait.observe(*waited);
                        counters.session.observe(*lasted);
                    }
                });
            }
            RedirectLog::ProviderFailed { service, .. } => {
                self.with(*service, |counters| counters.retries += 1);
            }
        }
    }
}

/// Something that an operator may want to know, and when it happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Seconds since 1970.
    pub at: u64,
    /// One line.
    pub text: String,
}

/// Counters that are read from a queue: its own start again at 0 where it forgets.
#[derive(Default)]
struct Kept {
    /// By series: what counts from before, and what the queue said last.
    series: BTreeMap<String, (u64, u64)>,
}

impl Kept {
    /// Takes the value of a counter; answers how much more that is.
    fn observe(&mut self, series: &str, value: u64) -> u64 {
        if let Some((before, last)) = self.series.get_mut(series) {
            let more = value.checked_sub(*last).unwrap_or(value);
            if value < *last {
                *before += *last;
            }
            *last = value;
            return more;
        }
        if self.series.len() < KEPT_MAX {
            self.series.insert(series.to_string(), (0, value));
        }
        value
    }

    /// Adds to a counter of this process's own.
    fn add(&mut self, series: String, more: u64) {
        if more > 0 && (self.series.len() < KEPT_MAX || self.series.contains_key(&series)) {
            self.series.entry(series).or_default().1 += more;
        }
    }

    fn total(&self, series: &str) -> Option<u64> {
        self.series.get(series).map(|(before, last)| before + last)
    }
}

type StatusSource = Box<dyn Fn() -> String + Send + Sync>;

#[derive(Default)]
struct Inner {
    workers: Mutex<Vec<Arc<Mutex<WorkerPart>>>>,
    /// Counted by processes whose place this one took.
    inherited: Mutex<Services>,
    kept: Mutex<Kept>,
    events: Mutex<VecDeque<Event>>,
    draining: AtomicBool,
    monitor: Mutex<Option<MonitorState>>,
    status: Mutex<Option<StatusSource>>,
}

/// The metrics of a process, which its clones share.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

/// Seconds since 1970.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Metrics {
    /// A part for one more worker.
    pub fn worker(&self) -> WorkerMetrics {
        let part = Arc::default();
        lock(&self.0.workers).push(Arc::clone(&part));
        WorkerMetrics(part)
    }

    /// Whose status is shown: that of the queue in this process.
    pub fn set_status(&self, status: impl Fn() -> String + Send + Sync + 'static) {
        *lock(&self.0.status) = Some(Box::new(status));
    }

    /// Remembers an event.
    pub fn event(&self, text: impl FnOnce() -> String) {
        let mut events = lock(&self.0.events);
        if events.len() >= EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(Event { at: unix_time(), text: text() });
    }

    /// The process is about to end.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Changes what is known of the monitor of this process.
    pub fn update_monitor(&self, update: impl FnOnce(&mut MonitorState)) {
        update(lock(&self.0.monitor).get_or_insert_default());
    }

    /// What is known of the monitor, if there is one.
    pub fn monitor(&self) -> Option<MonitorState> {
        lock(&self.0.monitor).clone()
    }

    /// The last events, newest first.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0.events).iter().rev().cloned().collect()
    }

    /// The status of the queue, if this process has one. Its counters are noted.
    pub fn queue_status(&self) -> Option<String> {
        let text = lock(&self.0.status).as_ref().map(|status| status())?;
        let mut kept = lock(&self.0.kept);
        let report = Report::parse(&text);
        for (series, value) in queue_counters(&report) {
            kept.observe(&series, value);
        }
        // The queue forgets a provider with its failures; the service had them all the same.
        for service in &report.services {
            let name = service.record.text("name");
            for provider in &service.providers {
                let series = provider_series(name, provider.text("address"), "failures");
                let more = kept.observe(&series, provider.number("failures"));
                kept.add(service_series(name, "failures"), more);
            }
        }
        Some(text)
    }

    /// The value of a counter that was read from the queue, over all upgrades.
    pub fn queue_total(&self, series: &str) -> Option<u64> {
        lock(&self.0.kept).total(series)
    }

    /// The counters of all workers together.
    pub fn services(&self) -> Services {
        let mut all = lock(&self.0.inherited).clone();
        for part in self.parts() {
            for (name, counters) in &lock(&part).services {
                all.entry(*name).or_default().add(counters);
            }
        }
        all
    }

    /// How many workers can ask the queue, and how many there are.
    pub fn workers(&self) -> (usize, usize) {
        let parts = self.parts();
        (parts.iter().filter(|part| lock(part).queue_up).count(), parts.len())
    }

    fn parts(&self) -> Vec<Arc<Mutex<WorkerPart>>> {
        lock(&self.0.workers).clone()
    }

    /// All counters, as lines for the process that takes the place of this one; the
    /// last line is a single dot.
    pub fn save(&self) -> Vec<u8> {
        let _ = self.queue_status();
        let mut text = String::new();
        for (name, mut counters) in self.services() {
            let _ = write!(text, "service {name}");
            counters.each(|number| {
                let _ = write!(text, " {number}");
            });
            text.push('\n');
        }
        for (series, (before, last)) in &lock(&self.0.kept).series {
            let _ = writeln!(text, "total {} {series}", before + last);
        }
        text.push_str(".\n");
        text.into_bytes()
    }

    /// Counters of another process take the place of those that it left before. Lines
    /// of another version may be none, and are passed over.
    pub fn restore(&self, text: &str) {
        let mut services = Services::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("service"), Some(name), Some(_)) => {
                    let numbers: Vec<u64> =
                        line.split(' ').skip(2).filter_map(|word| word.parse().ok()).collect();
                    let (Ok(name), true) = (name.parse(), numbers.len() == NUMBERS) else {
                        continue;
                    };
                    let mut counters = ServiceCounters::default();
                    let mut next = numbers.iter();
                    counters.each(|number| *number = next.next().copied().unwrap_or(0));
                    services.insert(name, counters);
                }
                (Some("total"), Some(value), Some(_)) => {
                    let series = line.splitn(3, ' ').nth(2).unwrap_or_default();
                    let Ok(value) = value.parse() else { continue };
                    let mut kept = lock(&self.0.kept);
                    if kept.series.len() < KEPT_MAX || kept.series.contains_key(series) {
                        kept.series.entry(series.to_string()).or_insert((0, 0)).0 = value;
                    }
                }
                _ => {}
            }
        }
        if !services.is_empty() {
            *lock(&self.0.inherited) = services;
        }
    }
}

/// The counters in a status, as the names of their series and their values.
fn queue_counters<'a>(report: &'a Report<'a>) -> impl Iterator<Item = (String, u64)> + 'a {
    let queue = ["asked", "granted", "refused", "forgotten"]
        .into_iter()
        .map(|key| (format!("queue {key}"), report.queue.number(key)));
    let services = report.services.iter().flat_map(|service| {
        let name = service.record.text("name");
        let own = ["granted", "refused"]
            .into_iter()
            .map(move |key| (service_series(name, key), service.record.number(key)));
        let providers = service.providers.iter().flat_map(move |provider| {
            let series = provider_series(name, provider.text("address"), "granted");
            [(series, provider.number("granted"))]
        });
        own.chain(providers)
    });
    queue.chain(services)
}

/// The series of a service's counter.
pub fn service_series(service: &str, key: &str) -> String {
    format!("service {service} {key}")
}

/// The series of a provider's counter.
pub fn provider_series(service: &str, provider: &str, key: &str) -> String {
    format!("provider {service} {provider} {key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(outcome: Outcome) -> RedirectLog {
        RedirectLog::Closed {
            service: "web".parse().unwrap(),
            client: "192.0.2.1:1".parse().unwrap(),
            local: None,
            provider: None,
            outcome,
            sent: 10,
            received: 3,
            waited: Span::from_millis(2),
            lasted: Span::from_secs(2),
        }
    }

    #[test]
    fn every_outcome_has_its_number() {
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number, "{outcome}");
        }
    }

    #[test]
    fn counters_of_all_workers_are_added_and_survive_an_upgrade() {
        let old = Metrics::default();
        let workers = [old.worker(), old.worker()];
        workers[0].record(&closed(Outcome::Complete), false);
        workers[1].record(&closed(Outcome::Complete), false);
        workers[1].record(&closed(Outcome::NoTicket), true);
        workers[1].client_arrived("web".parse().unwrap());
        let saved = String::from_utf8(old.save()).unwrap();
        assert!(saved.ends_with("\n.\n"));
        let new = Metrics::default();
        let worker = new.worker();
        new.restore(&saved);
        worker.record(&closed(Outcome::Complete), false);
        let web = &new.services()[&"web".parse().unwrap()];
        assert_eq!(web.connections[Outcome::Complete as usize], 3);
        assert_eq!(web.flows[Outcome::NoTicket as usize], 1);
        assert_eq!((web.wait.count(), web.sent, web.present), (3, 40, 0));
        // What comes later of the same process replaces what came before.
        workers[0].record(&closed(Outcome::Complete), false);
        new.restore(&String::from_utf8(old.save()).unwrap());
        let web = &new.services()[&"web".parse().unwrap()];
        assert_eq!(web.connections[Outcome::Complete as usize], 4);
        // Lines that were cut, or are of another version, change nothing.
        new.restore("service web 1 2 3\nservice\nnonsense\ntotal x y\n");
        assert_eq!(new.services()[&"web".parse().unwrap()].wait.count(), 4);
    }

    #[test]
    fn counters_of_a_queue_never_go_back() {
        let metrics = Metrics::default();
        let value = Arc::new(Mutex::new(5));
        let shared = value.clone();
        metrics.set_status(move || format!("queue asked={}\n", shared.lock().unwrap()));
        let asked = || {
            metrics.queue_status();
            metrics.queue_total("queue asked").unwrap()
        };
        assert_eq!(asked(), 5);
        *value.lock().unwrap() = 2;
        assert_eq!(asked(), 7, "the queue forgot and counts anew");
        *value.lock().unwrap() = 3;
        assert_eq!(asked(), 8);
        metrics.restore("total 100 queue asked\n");
        assert_eq!(asked(), 103);
    }
}
