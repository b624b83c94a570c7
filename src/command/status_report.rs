//! What the lines of a queue's `status` say, for people and programs.
//!
//! Owns the reading of the lines, their JSON, and the sentence that says why a
//! provider gets what it gets. Pairs that it does not know are passed on.

use pegasus_core::base::time::Span;
use std::fmt::Write;

/// Pairs whose values are durations; in JSON they are numbers of seconds.
const DURATIONS: [&str; 6] = ["lease", "held", "time", "drained", "waited", "mean"];
/// A capacity that says no more than that there is no ceiling.
pub const NO_CEILING: u64 = 1_000_000;

/// The pairs of one line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'a>(Vec<(&'a str, &'a str)>);

/// A service and its providers.
#[derive(Clone, Debug, Default)]
pub struct ServiceReport<'a> {
    /// The pairs of its own line.
    pub record: Record<'a>,
    /// Those of its providers.
    pub providers: Vec<Record<'a>>,
}

/// A whole status.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// The pairs of the line `queue`.
    pub queue: Record<'a>,
    /// The services in the order of the answer.
    pub services: Vec<ServiceReport<'a>>,
}

impl<'a> Record<'a> {
    fn parse(words: &'a str) -> Record<'a> {
        Record(words.split(' ').filter_map(|word| word.split_once('=')).collect())
    }

    /// The value of a key; empty if there is none.
    pub fn text(&self, key: &str) -> &'a str {
        self.0.iter().find(|(known, _)| *known == key).map_or("", |(_, value)| value)
    }

    /// The same as a number; 0 if there is none.
    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or(0)
    }

    /// The same as a duration; none at all if there is none.
    pub fn span(&self, key: &str) -> Span {
        self.text(key).parse().unwrap_or(Span::ZERO)
    }

    /// Appends `"key":value,…` of all pairs but one.
    fn write_json(&self, without: &str, json: &mut String) {
        let pairs = self.0.iter().filter(|(key, _)| *key != without);
        for (number, (key, value)) in pairs.enumerate() {
            json.push_str(if number == 0 { "" } else { "," });
            let _ = write!(json, "{}:", quoted(key));
            let span = DURATIONS.contains(key).then(|| value.parse::<Span>().ok()).flatten();
            match span {
                Some(span) => {
                    let millis = span.as_nanos().div_ceil(1_000_000);
                    let _ = write!(json, "{}.{:03}", millis / 1000, millis % 1000);
                }
                None if is_number(value) => json.push_str(value),
                None => json.push_str(&quoted(value)),
            }
        }
    }
}

/// Digits, perhaps with a fraction: what JSON takes as it is.
fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// A string of JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // `<` too, so that JSON may stand in an HTML page.
            c if c.is_control() || c == '<' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<'a> Report<'a> {
    /// Reads the lines of an answer. Lines of another kind are passed over, and so
    /// are lines with control characters, which no queue sends.
    pub fn parse(text: &'a str) -> Report<'a> {
        let mut report = Report::default();
        for line in text.lines().filter(|line| !line.contains(char::is_control)) {
            match line.split_once(' ') {
                Some(("queue", words)) => report.queue = Record::parse(words),
                Some(("service", words)) => report
                    .services
                    .push(ServiceReport { record: Record::parse(words), providers: Vec::new() }),
                Some(("provider", words)) => {
                    if let Some(service) = report.services.last_mut() {
                        service.providers.push(Record::parse(words));
                    }
                }
                _ => {}
            }
        }
        report
    }

    /// Appends `"queue":{…},"services":[…]`; a service has a list `providers`.
    pub fn write_json(&self, json: &mut String) {
        json.push_str("\"queue\":{");
        self.queue.write_json("", json);
        json.push_str("},\"services\":[");
        for (number, service) in self.services.iter().enumerate() {
            json.push_str(if number == 0 { "{" } else { ",{" });
            // The count of providers gives way to their list.
            service.record.write_json("providers", json);
            json.push_str(",\"providers\":[");
            let peers = Peers::of(service);
            for (number, provider) in service.providers.iter().enumerate() {
                json.push_str(if number == 0 { "{" } else { ",{" });
                provider.write_json("service", json);
                let share = peers.share(provider);
                let _ = write!(json, ",\"share\":{}.{:03}", share / 1000, share % 1000);
                let _ = write!(json, ",\"why\":{}}}", quoted(&peers.why(provider)));
            }
            json.push_str("]}");
        }
        json.push(']');
    }
}

/// What the providers of a service are compared by.
pub struct Peers {
    granted: u64,
    /// The mean time at the quickest one that gets requests, if that counts here.
    quickest: Option<Span>,
    waiting: u64,
}

impl Peers {
    /// The providers of this service.
    pub fn of(service: &ServiceReport) -> Peers {
        let by_class = service.record.text("scheduler") == "competitive";
        let able = |provider: &&Record| ["free", "busy"].contains(&provider.text("state"));
        let times = service.providers.iter().filter(able).map(|provider| provider.span("time"));
        Peers {
            granted: service.providers.iter().map(|provider| provider.number("granted")).sum(),
            quickest: times.filter(|time| by_class && !time.is_zero()).min(),
            waiting: service.record.number("waiting"),
        }
    }

    /// The share of a provider in the grants of all, in thousandths.
    pub fn share(&self, provider: &Record) -> u64 {
        (provider.number("granted") * 1000 + self.granted / 2)
            .checked_div(self.granted)
            .unwrap_or(0)
    }

    /// Why a provider gets what it gets, in a sentence without a full stop.
    pub fn why(&self, provider: &Record) -> String {
        let number = |key| provider.number(key);
        let (active, tickets, capacity) = (number("active"), number("tickets"), number("capacity"));
        let running = match active {
            0 => String::new(),
            1 => "; 1 request still runs".to_string(),
            many => format!("; {many} requests still run"),
        };
        match provider.text("state") {
            "drained" if provider.text("drained").is_empty() => {
                format!("drained by an operator until resumed{running}")
            }
            "drained" => {
                let left = in_words(provider.span("drained"));
                format!("drained by an operator for another {left}{running}")
            }
            "held" => {
                let (left, failures) = (in_words(provider.span("held")), number("failures"));
                let times = if failures == 1 { "failure" } else { "failures" };
                format!("held for another {left} after {failures} {times}{running}")
            }
            "full" if capacity == 0 || active >= capacity => {
                format!("full: {active} of {capacity}")
            }
            "full" => "on probation after a failure: few requests at once".to_string(),
            "busy" if capacity >= NO_CEILING => {
                format!("all {tickets} tickets in use, more may wait there{}", self.speed(provider))
            }
            "busy" => format!("all {tickets} tickets in use, takes up to {capacity} at once"),
            "gone" if number("failures") > 0 && tickets == 0 => {
                format!("failed, and has sent no tickets since{running}")
            }
            "gone" if active > 0 => format!("offers nothing any more{running}"),
            "gone" => "offers nothing any more".to_string(),
            "free" if self.waiting > 0 => {
                format!("{} of {tickets} tickets free, about to be granted", number("free"))
            }
            "free" => {
                format!("{} of {tickets} tickets free{}", number("free"), self.speed(provider))
            }
            _ => format!("{active} of {tickets} tickets in use"),
        }
    }

    /// The same, and the key that the provider came by.
    pub fn why_and_key(&self, provider: &Record) -> String {
        let why = self.why(provider);
        match provider.text("key") {
            "" => why,
            key => format!("{why}; by key {key}"),
        }
    }

    /// How quick a provider is beside the quickest, where that decides.
    fn speed(&self, provider: &Record) -> String {
        let time = provider.span("time");
        let Some(quickest) = self.quickest.filter(|_| !time.is_zero()) else {
            return String::new();
        };
        let factor = time.max(MEASURABLE).as_secs_f64() / quickest.max(MEASURABLE).as_secs_f64();
        // The scheduler's classes are factors of two, to the nearest.
        if factor * factor < 2.0 {
            return format!("; quickest class, {} a request", in_words(time));
        }
        format!(
            "; slower class, {} a request beside {}: chosen when quicker ones are full",
            in_words(time),
            in_words(quickest)
        )
    }
}

/// Shorter times are alike to the scheduler.
const MEASURABLE: Span = Span::from_millis(1);

/// A duration as people say it: two digits are enough.
pub fn in_words(span: Span) -> String {
    let millis = span.as_nanos().div_ceil(1_000_000);
    match millis {
        0..=999 => format!("{millis} ms"),
        1000..=9_999 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        10_000..=119_999 => format!("{} s", millis / 1000),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "queue connections=2 services=1 waiting=0 asked=40 granted=30\n\
        service name=web scheduler=competitive providers=3 waiting=0 granted=30\n\
        provider service=web address=10.0.0.1:80 tickets=4 capacity=1000000 free=2 active=2 \
        granted=20 failures=0 lease=4999ms held=0s state=free time=20ms\n\
        provider service=web address=10.0.0.2:80 tickets=4 capacity=8 free=4 active=0 granted=10 \
        failures=0 lease=5s held=0s state=free time=90ms\n\
        provider service=web address=[::1]:80 tickets=0 capacity=0 free=0 active=1 granted=0 \
        failures=3 lease=0s held=2s state=held time=0s\n";

    fn whys(text: &str) -> Vec<String> {
        let report = Report::parse(text);
        let service = &report.services[0];
        let peers = Peers::of(service);
        service.providers.iter().map(|provider| peers.why(provider)).collect()
    }

    #[test]
    fn a_provider_is_told_why_it_gets_what_it_gets() {
        assert_eq!(
            whys(STATUS),
            [
                "2 of 4 tickets free; quickest class, 20 ms a request",
                "4 of 4 tickets free; slower class, 90 ms a request beside 20 ms: chosen when \
                 quicker ones are full",
                "held for another 2.0 s after 3 failures; 1 request still runs",
            ]
        );
        let with = |pairs: &str| {
            whys(&format!("service name=web scheduler=fifo\nprovider {pairs}\n")).remove(0)
        };
        assert_eq!(with("state=full active=8 capacity=8"), "full: 8 of 8");
        assert_eq!(with("state=drained active=0"), "drained by an operator until resumed");
        assert_eq!(
            with("state=drained drained=5m active=2"),
            "drained by an operator for another 5 min; 2 requests still run"
        );
        assert_eq!(
            with("state=busy tickets=4 active=5 capacity=8"),
            "all 4 tickets in use, takes up to 8 at once"
        );
    }

    #[test]
    fn json_has_numbers_seconds_and_every_pair() {
        let mut json = String::new();
        Report::parse(STATUS).write_json(&mut json);
        assert!(json.starts_with("\"queue\":{\"connections\":2,\"services\":1,"), "{json}");
        assert!(json.contains("\"address\":\"10.0.0.1:80\",\"tickets\":4,"), "{json}");
        assert!(json.contains("\"lease\":4.999,") && json.contains("\"share\":0.667"), "{json}");
        assert_eq!(quoted("a\"b\\c\n<"), "\"a\\\"b\\\\c\\u000a\\u003c\"");
        assert!(
            is_number("1.500") && !is_number("10.0.0.1") && !is_number("007") && !is_number("")
        );
    }
}
