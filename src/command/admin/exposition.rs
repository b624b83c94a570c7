//! The metrics as Prometheus reads them: text format 0.0.4.
//!
//! Owns the names, their help and their types. Numbers come from elsewhere.

use super::histogram::{Histogram, BOUND_TEXTS};
use super::metrics::{provider_series, service_series, Metrics, Services};
use crate::command::status_report::{Record, Report, NO_CEILING};
use crate::config::source;
use crate::os::process_info::ProcessInfo;
use pegasus_core::base::outcome::Outcome;
use std::fmt::{Display, Write};

/// What the exposition is made of.
pub struct Exposed<'a> {
    /// The command of this process.
    pub role: &'static str,
    /// Its counters.
    pub metrics: &'a Metrics,
    /// The status of its queue, if it has one.
    pub report: Option<&'a Report<'a>>,
    /// What the process uses.
    pub process: ProcessInfo,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Flows of datagrams at this moment.
    pub flows: u64,
    /// Whether providers have series of their own.
    pub per_provider: bool,
}

struct Writer(String);

impl Writer {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            self.0.push(if number == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' | '"' => self.0.extend(['\\', c]),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one sample without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, service: &str, histogram: &Histogram) {
        let (bucket, mut total) = (format!("{name}_bucket"), 0);
        for (count, bound) in histogram.counts.iter().zip(BOUND_TEXTS.into_iter().chain(["+Inf"])) {
            total += count;
            self.sample(&bucket, &[("service", service), ("le", bound)], total);
        }
        let (secs, nanos) =
            (histogram.sum_nanos / 1_000_000_000, histogram.sum_nanos % 1_000_000_000);
        self.sample(
            &format!("{name}_sum"),
            &[("service", service)],
            format_args!("{secs}.{nanos:09}"),
        );
        self.sample(&format!("{name}_count"), &[("service", service)], total);
    }
}

/// All of it.
pub fn write(exposed: &Exposed) -> String {
    let mut out = Writer(String::with_capacity(16 * 1024));
    write_process(exposed, &mut out);
    if let Some(report) = exposed.report {
        write_queue(exposed, report, &mut out);
        write_providers(exposed, report, &mut out);
    }
    if exposed.role == "redirect" {
        write_redirect(exposed, &mut out);
    }
    write_monitor(exposed, &mut out);
    out.0
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}

fn write_process(exposed: &Exposed, out: &mut Writer) {
    out.family("pegasus_info", "gauge", "Version, target and command of this process.");
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("target", env!("PEGASUS_TARGET")),
        ("role", exposed.role),
    ];
    out.sample("pegasus_info", &labels, 1);
    let draining = u8::from(exposed.metrics.is_draining());
    out.single("pegasus_draining", "gauge", "1 while the process drains before its end.", draining);
    let (good, at) = source::last_reload();
    out.single(
        "pegasus_config_last_reload_successful",
        "gauge",
        "1 if the configuration was good when it was read last.",
        u8::from(good),
    );
    out.single(
        "pegasus_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When a good configuration was read last, in seconds since 1970.",
        at.max(exposed.started),
    );
    out.single(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        exposed.started,
    );
    let process = &exposed.process;
    for (name, help, value) in [
        ("process_open_fds", "Open file descriptors.", process.open_descriptors),
        ("process_max_fds", "The most file descriptors.", process.descriptors_max),
        ("process_resident_memory_bytes", "Memory in use.", process.resident_bytes),
    ] {
        if let Some(value) = value {
            out.single(name, "gauge", help, value);
        }
    }
    if let Some(millis) = process.cpu_millis {
        let seconds = thousandths(millis);
        out.single(
            "process_cpu_seconds_total",
            "counter",
            "Processor time of all threads.",
            seconds,
        );
    }
}

fn write_queue(exposed: &Exposed, report: &Report, out: &mut Writer) {
    let queue = |key| report.queue.number(key);
    let connections = queue("connections");
    out.single(
        "pegasus_control_connections",
        "gauge",
        "Control connections to the queue.",
        connections,
    );
    let total = |key: &str| exposed.metrics.queue_total(&format!("queue {key}")).unwrap_or(0);
    let name = "pegasus_queue_requests_total";
    out.family(name, "counter", "Requests for a provider that the queue has answered, by result.");
    for result in ["granted", "refused", "forgotten"] {
        out.sample(name, &[("result", result)], total(result));
    }
    let services = || report.services.iter().map(|service| &service.record);
    let name = "pegasus_waiting";
    out.family(name, "gauge", "Requests that wait for a ticket.");
    for service in services() {
        out.sample(name, &[("service", service.text("name"))], service.number("waiting"));
    }
    for (name, key, help) in [
        ("pegasus_granted_total", "granted", "Requests that the queue gave a provider."),
        (
            "pegasus_queue_refused_total",
            "refused",
            "Requests that the queue answered with an error.",
        ),
    ] {
        out.family(name, "counter", help);
        for service in services() {
            let service = service.text("name");
            let value = exposed.metrics.queue_total(&service_series(service, key));
            out.sample(name, &[("service", service)], value.unwrap_or(0));
        }
    }
    let name = "pegasus_providers";
    out.family(name, "gauge", "Providers by state: free, busy, full, held, drained or gone.");
    for service in &report.services {
        for state in ["free", "busy", "full", "held", "drained", "gone"] {
            let count =
                service.providers.iter().filter(|provider| provider.text("state") == state).count();
            out.sample(name, &[("service", service.record.text("name")), ("state", state)], count);
        }
    }
}

/// A gauge or counter of a provider; where providers have no series of their own, the
/// sum of a service.
fn write_each(
    exposed: &Exposed,
    report: &Report,
    (name, kind, help): (&str, &str, &str),
    labels: &[(&str, &str)],
    value: &dyn Fn(&str, &Record) -> u64,
    out: &mut Writer,
) {
    if !kind.is_empty() {
        out.family(name, kind, help);
    }
    for service in &report.services {
        let service_name = service.record.text("name");
        let mut all = vec![("service", service_name)];
        all.extend_from_slice(labels);
        let values =
            service.providers.iter().map(|provider| (provider, value(service_name, provider)));
        if !exposed.per_provider {
            let sum = values.fold(0u64, |sum, (_, value)| sum.saturating_add(value));
            write_bounded(name, &all, sum, out);
            continue;
        }
        for (provider, value) in values {
            all.insert(1, ("provider", provider.text("address")));
            write_bounded(name, &all, value, out);
            all.remove(1);
        }
    }
}

/// A capacity without a ceiling is no number.
fn write_bounded(name: &str, labels: &[(&str, &str)], value: u64, out: &mut Writer) {
    if name == "pegasus_capacity" && value >= NO_CEILING {
        return out.sample(name, labels, "+Inf");
    }
    out.sample(name, labels, value);
}

fn write_providers(exposed: &Exposed, report: &Report, out: &mut Writer) {
    let tickets = "pegasus_tickets";
    let help = "Tickets of providers by state: free, active (in use by requests in progress) \
                or spent (by requests that are not counted).";
    for (number, state) in ["free", "active", "spent"].into_iter().enumerate() {
        let kind = if number == 0 { "gauge" } else { "" };
        let value = |_: &str, provider: &Record| provider.number(state);
        write_each(exposed, report, (tickets, kind, help), &[("state", state)], &value, out);
    }
    let capacity =
        ("pegasus_capacity", "gauge", "Requests at once that providers accept; +Inf: no ceiling.");
    let value = |_: &str, provider: &Record| provider.number("capacity");
    write_each(exposed, report, capacity, &[], &value, out);
    if exposed.per_provider {
        write_leases(report, out);
    }
    for (name, key, help) in [
        ("pegasus_provider_granted_total", "granted", "Requests given to providers."),
        ("pegasus_failures_total", "failures", "Failures of providers that were reported."),
    ] {
        if key == "failures" && !exposed.per_provider {
            write_service_failures(exposed, report, (name, help), out);
            continue;
        }
        let value = |service: &str, provider: &Record| {
            let series = provider_series(service, provider.text("address"), key);
            exposed.metrics.queue_total(&series).unwrap_or(0)
        };
        write_each(exposed, report, (name, "counter", help), &[], &value, out);
    }
}

/// How long offers are still valid. A sum over a service would say nothing.
fn write_leases(report: &Report, out: &mut Writer) {
    let name = "pegasus_lease_seconds";
    out.family(name, "gauge", "How long a provider's last message is still valid.");
    for service in &report.services {
        for provider in &service.providers {
            let labels =
                [("service", service.record.text("name")), ("provider", provider.text("address"))];
            out.sample(name, &labels, thousandths(provider.span("lease").as_millis()));
        }
    }
}

/// The failures of a service, also of providers that are forgotten.
fn write_service_failures(
    exposed: &Exposed,
    report: &Report,
    (name, help): (&str, &str),
    out: &mut Writer,
) {
    out.family(name, "counter", help);
    for service in &report.services {
        let service = service.record.text("name");
        let value = exposed.metrics.queue_total(&service_series(service, "failures"));
        out.sample(name, &[("service", service)], value.unwrap_or(0));
    }
}

fn write_redirect(exposed: &Exposed, out: &mut Writer) {
    let services = exposed.metrics.services();
    let (up, workers) = exposed.metrics.workers();
    out.single("pegasus_workers", "gauge", "Threads that serve clients.", workers);
    out.single(
        "pegasus_workers_with_queue",
        "gauge",
        "Threads of them that can ask the queue.",
        up,
    );
    out.family("pegasus_connections", "gauge", "Clients that are connected.");
    for (service, counters) in &services {
        out.sample("pegasus_connections", &[("service", service.as_str())], counters.present);
    }
    out.single("pegasus_flows", "gauge", "UDP flows of all services.", exposed.flows);
    write_outcomes(&services, out);
    for (name, help) in [
        ("pegasus_wait_seconds", "From a client's arrival to its provider's answer, or its end."),
        ("pegasus_connect_seconds", "Time that providers took to accept a connection."),
        ("pegasus_session_seconds", "From a client's arrival to its end."),
    ] {
        out.family(name, "histogram", help);
        for (service, counters) in &services {
            let histogram = match name {
                "pegasus_wait_seconds" => &counters.wait,
                "pegasus_connect_seconds" => &counters.connect,
                _ => &counters.session,
            };
            out.histogram(name, service.as_str(), histogram);
        }
    }
    let name = "pegasus_retries_total";
    out.family(name, "counter", "Providers that failed a client, which was given another one.");
    for (service, counters) in &services {
        out.sample(name, &[("service", service.as_str())], counters.retries);
    }
    let name = "pegasus_bytes_total";
    out.family(name, "counter", "Bytes sent to clients and received from them.");
    for (service, counters) in &services {
        for (direction, bytes) in [("sent", counters.sent), ("received", counters.received)] {
            out.sample(name, &[("service", service.as_str()), ("direction", direction)], bytes);
        }
    }
}

fn write_outcomes(services: &Services, out: &mut Writer) {
    for (name, help) in [
        ("pegasus_connections_total", "Connections of clients that have ended, by outcome."),
        ("pegasus_flows_total", "UDP flows that have ended, by outcome."),
        ("pegasus_refused_total", "Clients that were turned away, by reason."),
    ] {
        out.family(name, "counter", help);
        for (service, counters) in services {
            for outcome in Outcome::ALL {
                let number = outcome as usize;
                let (label, value) = match name {
                    "pegasus_connections_total" => ("outcome", counters.connections[number]),
                    "pegasus_flows_total" => ("outcome", counters.flows[number]),
                    _ if !outcome.is_refusal() => continue,
                    _ => ("reason", counters.connections[number] + counters.flows[number]),
                };
                out.sample(name, &[("service", service.as_str()), (label, outcome.word())], value);
            }
        }
    }
}

fn write_monitor(exposed: &Exposed, out: &mut Writer) {
    let Some(monitor) = exposed.metrics.monitor() else { return };
    if let Some(value) = monitor.utilisation {
        let ratio = thousandths(value);
        let help = "The part of the processors in use.";
        out.single("pegasus_monitor_utilisation_ratio", "gauge", help, ratio);
    }
    for (name, help) in [
        ("pegasus_monitor_slots", "Requests that this host can run at once, by its load."),
        ("pegasus_monitor_active", "Mean requests in progress here, as balancers told."),
    ] {
        out.family(name, "gauge", help);
        for (service, (slots, active)) in &monitor.slots {
            let value = if name == "pegasus_monitor_slots" { slots } else { active };
            let value = thousandths(*value);
            out.sample(name, &[("service", service.as_str())], value);
        }
    }
    let name = "pegasus_monitor_balancer_up";
    out.family(name, "gauge", "1 if the monitor is connected to the balancer.");
    for (balancer, up) in &monitor.balancers {
        out.sample(name, &[("balancer", balancer)], u8::from(*up));
    }
    for (name, help) in [
        ("pegasus_monitor_tickets", "Tickets that were sent last."),
        ("pegasus_monitor_capacity", "Capacity that was sent last; 0: withdrawn."),
    ] {
        out.family(name, "gauge", help);
        for ((service, balancer), (tickets, capacity)) in &monitor.offers {
            let value = if name == "pegasus_monitor_tickets" { tickets } else { capacity };
            let labels = [("service", service.as_str()), ("balancer", balancer)];
            out.sample(name, &labels, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_core::redirect::redirector::RedirectLog;

    /// Every name that is served is in the manual, and the other way round.
    #[test]
    fn the_manual_has_every_metric() {
        let metrics = Metrics::default();
        metrics.update_monitor(|state| state.utilisation = Some(500));
        metrics.worker().record(
            &RedirectLog::ProviderFailed {
                service: "web".parse().unwrap(),
                provider: "10.0.0.1:80".parse().unwrap(),
                why: pegasus_core::redirect::redirector::Failure::Refused,
            },
            false,
        );
        let report = Report::parse("queue waiting=0\nservice name=web\n");
        let process = ProcessInfo {
            open_descriptors: Some(1),
            descriptors_max: Some(2),
            resident_bytes: Some(3),
            cpu_millis: Some(4),
        };
        let text = write(&Exposed {
            role: "redirect",
            metrics: &metrics,
            report: Some(&report),
            process,
            started: 1,
            flows: 0,
            per_provider: true,
        });
        let manual = include_str!("../help/admin.txt");
        let words: Vec<&str> = manual
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("pegasus_") || word.starts_with("process_"))
            .collect();
        let served: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for name in &served {
            assert!(words.contains(name), "{name} is not in the manual");
        }
        for word in &words {
            assert!(served.contains(word), "{word} is not served");
        }
    }
}
