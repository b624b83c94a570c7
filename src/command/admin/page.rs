//! The page: what a process does, for people who look at it in a browser.
//!
//! Owns the HTML. It is one document without any other resource; it shows everything
//! without JavaScript, and with it follows what happens.

use super::history::{History, Point, POINT_SECONDS};
use super::metrics::{unix_time, Metrics};
use crate::command::status_report::{Peers, Record, Report, ServiceReport, NO_CEILING};
use std::fmt::Write;

/// Providers of a service that are shown; those in trouble come first.
const PROVIDERS_SHOWN_MAX: usize = 250;
/// A chart has room for so many points at least: two minutes.
const POINTS_SHOWN_MIN: usize = 24;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What is shown.
pub struct View<'a> {
    /// The command of this process.
    pub role: &'static str,
    /// Its counters and events.
    pub metrics: &'a Metrics,
    /// The status of its queue, if it has one.
    pub report: Option<&'a Report<'a>>,
    /// What is wrong, if something is.
    pub trouble: Option<&'static str>,
    /// For the charts.
    pub history: &'a History,
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A moment as RFC 3339 has it, in UTC.
fn timestamp(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Howard Hinnant's days_from_civil, backwards: years begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The whole document.
pub fn write(view: &View) -> String {
    let mut html = String::with_capacity(32 * 1024);
    let role = view.role;
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>PEGASUS {role}</title>\n\
         <link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
         viewBox='0 0 8 8'%3E%3Cpath d='M1 5h2v2H1zM3.5 3h2v4h-2zM6 1h2v6H6z' \
         fill='%230072b2'/%3E%3C/svg%3E\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>PEGASUS <span>{role}</span></h1>\n\
         <div class=\"push\"><span id=\"age\">as of {}</span>\
         <button id=\"pause\" type=\"button\" aria-pressed=\"false\" hidden>Pause</button></div>\
         </header>\n\
         <p id=\"say\" class=\"sr\" role=\"status\"></p>\n<main id=\"live\">\n",
        timestamp(unix_time()).replace(['T', 'Z'], " ").trim_end().to_string() + " UTC"
    );
    write_summary(view, &mut html);
    if let Some(report) = view.report {
        if report.services.is_empty() {
            html.push_str(
                "<section><h2>No service yet</h2><p class=\"none\">No monitor has sent tickets. \
                 Start one: pegasus monitor -o service_NAME_provider=:PORT</p></section>\n",
            );
        }
        report.services.iter().for_each(|service| write_service(view, service, &mut html));
    }
    write_clients(view, &mut html);
    write_monitor(view, &mut html);
    write_events(view, &mut html);
    let _ = write!(
        html,
        "</main>\n<footer><span>pegasus {VERSION}</span><a href=\"/status\">status</a>\
         <a href=\"/status.json\">JSON</a><a href=\"/metrics\">metrics</a>\
         <a href=\"/health\">health</a><span class=\"js\" hidden><kbd>p</kbd> pauses</span>\
         </footer>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    );
    html
}

fn write_summary(view: &View, html: &mut String) {
    let headline = match view.trouble {
        None => "serving".to_string(),
        Some(why) => why.to_string(),
    };
    let (class, icon) =
        if view.trouble.is_none() { ("good", "s-ok") } else { ("bad", "s-trouble") };
    let providers = || {
        let services = view.report.into_iter().flat_map(|report| &report.services);
        services.flat_map(|service| &service.providers)
    };
    let able = providers().filter(|p| ["free", "busy", "full"].contains(&p.text("state"))).count();
    let spoken = match view.report {
        Some(_) => format!("{headline}; {able} of {} providers take requests", providers().count()),
        None => headline.clone(),
    };
    let _ = write!(html, "<dl class=\"tiles\" data-headline=\"{}\">", escape(&spoken));
    let _ = write!(
        html,
        "<div><dt>State</dt><dd><span class=\"pill {class} {icon}\" style=\"font-size:1.1rem\">{}\
         </span></dd></div>",
        escape(&headline)
    );
    let mut tile = |name: &str, value: String| {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    };
    if let Some(report) = view.report {
        tile("Providers ready", format!("{able} of {}", providers().count()));
        let sum = |key: &str| providers().map(|provider| provider.number(key)).sum::<u64>();
        tile("In progress", grouped(sum("active")));
        tile("Tickets free", grouped(sum("free")));
        tile("Waiting", grouped(report.queue.number("waiting")));
        tile("Granted", grouped(report.queue.number("granted")));
    }
    let services = view.metrics.services();
    if view.role == "redirect" {
        let present: u64 = services.values().map(|counters| counters.present).sum();
        tile("Clients now", grouped(present));
    }
    html.push_str("</dl>\n");
}

fn write_service(view: &View, service: &ServiceReport, html: &mut String) {
    let record = &service.record;
    let name = record.text("name");
    let (free, tickets) = (record.number("free"), record.number("tickets"));
    let _ = writeln!(
        html,
        "<section aria-labelledby=\"s-{name}\"><div class=\"head\"><h2 id=\"s-{name}\">{name}</h2>\
         <p>{} &middot; {} of {} tickets free &middot; {} in progress &middot; {} waiting &middot; \
         {} granted &middot; {} refused</p></div>",
        escape(record.text("scheduler")),
        grouped(free),
        grouped(tickets),
        grouped(record.number("active")),
        grouped(record.number("waiting")),
        grouped(record.number("granted")),
        grouped(record.number("refused")),
        name = escape(name),
    );
    let points: Vec<Point> = view.history.points(name).collect();
    if points.len() > 1 {
        html.push_str("<div class=\"charts\">");
        write_chart("Grants", "", points.iter().map(|point| point.granted), html);
        write_chart("Waiting or refused", "c-warn", points.iter().map(|point| point.waited), html);
        write_chart("Failures", "c-bad", points.iter().map(|point| point.failures), html);
        html.push_str("</div>\n");
    }
    if service.providers.is_empty() {
        html.push_str("<p class=\"none\">No provider offers tickets.</p></section>\n");
        return;
    }
    html.push_str(
        "<p class=\"keys\"><span><i class=\"act\"></i>active</span>\
         <span><i class=\"fre\"></i>free tickets</span></p>\n\
         <table class=\"p\"><thead><tr><th scope=\"col\">Provider</th><th scope=\"col\">State</th>\
         <th scope=\"col\">Load</th><th scope=\"col\" class=\"n\">Active</th>\
         <th scope=\"col\" class=\"n\">Tickets</th><th scope=\"col\" class=\"n\">At most</th>\
         <th scope=\"col\" class=\"n\">Share</th><th scope=\"col\" class=\"n\">Failures</th>\
         <th scope=\"col\">Why it gets what it gets</th></tr></thead><tbody>\n",
    );
    let peers = Peers::of(service);
    let scale = |provider: &Record| provider.number("tickets").max(provider.number("active"));
    let most = service.providers.iter().map(scale).max().unwrap_or(0).max(1);
    let mut shown: Vec<&Record> = service.providers.iter().collect();
    if shown.len() > PROVIDERS_SHOWN_MAX {
        let fine = |provider: &&Record| ["free", "busy"].contains(&provider.text("state"));
        shown.sort_by_key(fine);
        shown.truncate(PROVIDERS_SHOWN_MAX);
    }
    for provider in &shown {
        write_provider(provider, &peers, most, html);
    }
    html.push_str("</tbody></table>\n");
    if shown.len() < service.providers.len() {
        let more = service.providers.len() - shown.len();
        let _ = write!(
            html,
            "<p class=\"none\">{more} more are in <a href=\"/status\">status</a>.</p>"
        );
    }
    html.push_str("</section>\n");
}

fn write_provider(provider: &Record, peers: &Peers, most: u64, html: &mut String) {
    let state = provider.text("state");
    let class = match state {
        "free" | "busy" => "good",
        "full" | "drained" => "warn",
        "held" => "bad",
        _ => "dim",
    };
    let number = |key| provider.number(key);
    let (active, tickets, free) = (number("active"), number("tickets"), number("free"));
    // In thousandths of the largest provider's bar.
    let width = |value: u64| (value * 1000).div_ceil(most).min(1000);
    let (active_width, free_width) = (width(active), width(free).min(1000 - width(active)));
    let share = peers.share(provider);
    let capacity = match number("capacity") {
        NO_CEILING.. => {
            "<span title=\"no ceiling\" aria-label=\"no ceiling\">&infin;</span>".to_string()
        }
        capacity => grouped(capacity),
    };
    let _ = writeln!(
        html,
        "<tr><td class=\"a\">{}</td><td class=\"st\">\
         <span class=\"pill {class} s-{state}\">{state}</span></td>\
         <td class=\"w\">\
         <div class=\"bar\" role=\"img\" aria-label=\"{active} active, {free} free tickets\">\
         <i class=\"act\" style=\"width:{}.{}%\"></i><i class=\"fre\" style=\"width:{}.{}%\"></i>\
         </div></td>\
         <td class=\"n\" data-l=\"active\">{}</td><td class=\"n\" data-l=\"tickets\">{}</td>\
         <td class=\"n\" data-l=\"at most\">{capacity}</td><td class=\"n\" data-l=\"share\">\
         <span class=\"share\">\
         {} %<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:{}.{}%\"></i></span>\
         </span></td>\
         <td class=\"n\" data-l=\"failures\">{}</td><td class=\"why\">{}</td></tr>",
        escape(provider.text("address")),
        active_width / 10,
        active_width % 10,
        free_width / 10,
        free_width % 10,
        grouped(active),
        grouped(tickets),
        (share + 5) / 10,
        share / 10,
        share % 10,
        grouped(number("failures")),
        escape(&peers.why_and_key(provider)),
        state = escape(state),
    );
}

/// How often something happened that happened so many times between two points.
fn per_second(count: u64) -> String {
    let tenths = count * 10 / POINT_SECONDS;
    match tenths {
        0 if count == 0 => "0".into(),
        0..100 => format!("{}.{}/s", tenths / 10, tenths % 10),
        _ => format!("{}/s", grouped(tenths / 10)),
    }
}

/// One line over the last minutes; its height is the largest value.
fn write_chart(name: &str, class: &str, values: impl Iterator<Item = u64>, html: &mut String) {
    let values: Vec<u64> = values.collect();
    // A young chart is not a thin line at the right edge.
    let window = values.len().max(POINTS_SHOWN_MIN);
    let right = window - 1;
    let most = values.iter().copied().max().unwrap_or(0);
    let last = values.last().copied().unwrap_or(0);
    let minutes = (values.len() * POINT_SECONDS as usize).div_ceil(60);
    let (now, peak) = (per_second(last), per_second(most));
    let _ = write!(
        html,
        "<figure class=\"{class}\" style=\"margin:0\"><h3>{name} <b>{now}</b>\
         <span class=\"peak\">, peak {peak}</span></h3>\
         <svg viewBox=\"0 0 {right} 40\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{name} in the last {minutes} minutes: now {now}, peak {peak}\">",
    );
    let first = window - values.len();
    let y = |value: u64| 40 - (value * 36).checked_div(most).unwrap_or(0);
    let _ = write!(html, "<path d=\"M{first} 40");
    for (at, value) in values.iter().enumerate() {
        let _ = write!(html, "L{} {}", first + at, y(*value));
    }
    let _ = write!(html, "L{right} 40Z\"/></svg></figure>");
}

/// The clients of a redirector, by service.
fn write_clients(view: &View, html: &mut String) {
    let services = view.metrics.services();
    if view.role != "redirect" || services.is_empty() {
        return;
    }
    html.push_str(
        "<section aria-labelledby=\"clients\"><div class=\"head\"><h2 id=\"clients\">Clients</h2>\
         </div>\
         <table><thead><tr><th scope=\"col\">Service</th><th scope=\"col\" class=\"n\">Now</th>\
         <th scope=\"col\" class=\"n\">Ended</th><th scope=\"col\" class=\"n\">Turned away</th>\
         <th scope=\"col\" class=\"n\">Retries</th>\
         <th scope=\"col\" class=\"n\">Half waited up to</th>\
         <th scope=\"col\" class=\"n\">99 % up to</th></tr></thead><tbody>\n",
    );
    for (name, counters) in &services {
        let ended: u64 = counters.connections.iter().chain(&counters.flows).sum();
        let refused: u64 = pegasus_core::base::outcome::Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.is_refusal())
            .map(|o| counters.connections[o as usize] + counters.flows[o as usize])
            .sum();
        let _ = writeln!(
            html,
            "<tr class=\"plain\"><td class=\"a\">{name}</td><td class=\"n\" data-l=\"now\">{}</td>\
             <td class=\"n\" data-l=\"ended\">{}</td><td class=\"n\" data-l=\"turned away\">{}</td>\
             <td class=\"n\" data-l=\"retries\">{}</td>\
             <td class=\"n\" data-l=\"half waited up to\">{}</td>\
             <td class=\"n\" data-l=\"99 % up to\">{}</td></tr>",
            grouped(counters.present),
            grouped(ended),
            grouped(refused),
            grouped(counters.retries),
            bound_in_words(counters.wait.quantile(500)),
            bound_in_words(counters.wait.quantile(990)),
        );
    }
    html.push_str("</tbody></table></section>\n");
}

/// The bound of a bucket as people say it.
fn bound_in_words(bound: Option<&'static str>) -> String {
    let Some(text) = bound else { return "&ndash;".into() };
    match text.split_once('.') {
        None => format!("{text} s"),
        Some((_, fraction)) => {
            let micros: u64 = format!("{fraction:0<6}")[..6].parse().unwrap_or(0);
            if micros < 10_000 {
                format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
            } else {
                format!("{} ms", micros / 1000)
            }
        }
    }
}

/// What a monitor offers.
fn write_monitor(view: &View, html: &mut String) {
    let Some(monitor) = view.metrics.monitor() else { return };
    let _ = writeln!(
        html,
        "<section aria-labelledby=\"offers\"><div class=\"head\"><h2 id=\"offers\">Offers</h2>\
         <p>{}</p></div><table><thead><tr><th scope=\"col\">Service</th>\
         <th scope=\"col\">Balancer</th>\
         <th scope=\"col\">Connection</th><th scope=\"col\" class=\"n\">Tickets</th>\
         <th scope=\"col\" class=\"n\">At most</th></tr></thead><tbody>",
        escape(&monitor.sample)
    );
    for ((service, balancer), (tickets, capacity)) in &monitor.offers {
        let up = monitor.balancers.get(balancer).copied().unwrap_or(false);
        let (class, icon, word) =
            if up { ("good", "s-ok", "up") } else { ("bad", "s-trouble", "down") };
        let _ = writeln!(
            html,
            "<tr class=\"plain\"><td class=\"a\">{service}</td><td>{}</td>\
             <td><span class=\"pill {class} {icon}\">{word}</span></td>\
             <td class=\"n\" data-l=\"tickets\">{}</td><td class=\"n\" data-l=\"at most\">{}</td>\
             </tr>",
            escape(balancer),
            grouped(u64::from(*tickets)),
            match u64::from(*capacity) {
                NO_CEILING.. => "&infin;".to_string(),
                0 => "withdrawn".to_string(),
                capacity => grouped(capacity),
            }
        );
    }
    html.push_str("</tbody></table></section>\n");
}

fn write_events(view: &View, html: &mut String) {
    html.push_str(
        "<section aria-labelledby=\"events\"><div class=\"head\">\
        <h2 id=\"events\">Last events</h2></div>",
    );
    let events = view.metrics.events();
    if events.is_empty() {
        html.push_str("<p class=\"none\">Nothing has happened yet.</p></section>\n");
        return;
    }
    html.push_str("<ul class=\"events\" tabindex=\"0\" aria-labelledby=\"events\">");
    for event in events {
        let at = timestamp(event.at);
        let _ = write!(
            html,
            "<li><time datetime=\"{at}\">{}</time><span>{}</span></li>",
            &at[11..19],
            escape(&event.text)
        );
    }
    html.push_str("</ul></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_in_rfc_3339() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_780_272_000, "2026-06-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(unix), text);
        }
    }

    #[test]
    fn numbers_and_bounds_are_written_for_people() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((grouped(0).as_str(), grouped(999).as_str()), ("0", "999"));
        assert_eq!(bound_in_words(Some("0.0009765625")), "0.9 ms");
        assert_eq!(bound_in_words(Some("0.015625")), "15 ms");
        assert_eq!(bound_in_words(Some("16")), "16 s");
    }

    #[test]
    fn nothing_in_a_status_becomes_markup() {
        let text = "queue waiting=0\nservice name=<b> scheduler=\"x\nprovider address=<script> \
            state=free\n";
        let (metrics, history) = (Metrics::default(), History::default());
        metrics.event(|| "<img src=x>".into());
        let report = Report::parse(text);
        let view = View {
            role: "queue",
            metrics: &metrics,
            report: Some(&report),
            trouble: None,
            history: &history,
        };
        let page = write(&view);
        for bad in ["<b>", "address=<script>", "<script>&", "<img"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    }
}
