//! The page of results, and its charts, from JSON lines.
//!
//! ```text
//! cargo test --release bench_page -- --ignored
//! ```
//! Owns the page's text and what is worth a chart. Measures nothing. `results.jsonl` is the
//! raw data; `PEGASUS_BENCH_JSON` names another file. A test compares the page that is
//! there with what its data give, so that neither is edited alone.
#![cfg(target_os = "linux")]

use super::chart::{bars, curves, figure, Bar, Curve, Whose};
use super::json::Line;
use super::paper::{short, what};
use super::statistics::interval;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The raw data, the page, its charts, from the folder of the benches.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench");
const OURS: &str = "pegasus";

/// What was measured, by the names of benches.
struct Data(Vec<Line>);

impl Data {
    fn read(path: &Path) -> Data {
        let text = fs::read_to_string(path).unwrap_or_default();
        let read = |line: &str| Line::read(line).unwrap_or_else(|| panic!("no figures: {line}"));
        Data(text.lines().map(read).collect())
    }

    fn of<'a>(&'a self, bench: &'a str) -> impl Iterator<Item = &'a Line> {
        self.0.iter().filter(move |line| line.word("bench") == bench)
    }

    /// The rows of a bench in their order.
    fn rows<'a>(&'a self, bench: &'a str) -> Vec<&'a str> {
        let mut rows: Vec<&str> = Vec::new();
        for line in self.of(bench) {
            if !rows.contains(&line.word("row")) {
                rows.push(line.word("row"));
            }
        }
        rows
    }

    /// Of the rounds of a contestant: the mean.
    fn mean(&self, row: &str, name: &str) -> f64 {
        let rounds: Vec<f64> = self.rounds(row, name);
        rounds.iter().sum::<f64>() / rounds.len() as f64
    }

    fn worst(&self, row: &str, name: &str) -> f64 {
        self.rounds(row, name).into_iter().fold(f64::NAN, f64::max)
    }

    fn sum(&self, row: &str, name: &str) -> f64 {
        self.rounds(row, name).iter().sum()
    }

    fn rounds(&self, row: &str, name: &str) -> Vec<f64> {
        let lines = self.of("paper").filter(|line| line.word("row") == row);
        lines.map(|line| line.get(name)).filter(|value| value.is_finite()).collect()
    }

    /// Failed requests, without those that were in a provider when it died.
    fn avoidable(&self, row: &str) -> f64 {
        (self.sum(row, "failed") - self.sum(row, "broken")).max(0.0)
    }
}

/// A page and its charts by file name.
struct Page {
    text: String,
    charts: BTreeMap<&'static str, String>,
}

/// A mean, with half of its interval where that is known.
fn spread((mean, half): (f64, f64)) -> String {
    if half.is_finite() {
        format!("{} ± {}", figure(mean), figure(half))
    } else {
        figure(mean)
    }
}

/// A table of Markdown.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---|{}\n", head.join(" | "), "---:|".repeat(head.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text + "\n"
}

impl Page {
    fn of(data: &Data) -> Page {
        let mut page = Page { text: String::new(), charts: BTreeMap::new() };
        page.begin(data);
        page.paper(data);
        page.losses(data);
        page.apart(data);
        page.simulated(data);
        page.work(data);
        page.scale(data);
        page
    }

    fn say(&mut self, text: &str) {
        self.text += text;
        self.text += "\n\n";
    }

    fn chart(&mut self, name: &'static str, alternative: &str, svg: String) {
        self.charts.insert(name, svg);
        self.say(&format!("![{alternative}](charts/{name})"));
    }

    fn begin(&mut self, data: &Data) {
        self.say(
            "# Results\n\n<!-- Made by bench_page from results.jsonl; edit page.rs instead. -->",
        );
        self.say(
            "A load balancer leads clients to servers, here called providers. PEGASUS is one\n\
             whose providers offer places, tickets, for as many requests as they can serve\n\
             now. This page sets it beside others. The paper of 2006 planned these comparisons\n\
             and never published a figure. `tests/bench/regenerate` takes them all again in\n\
             less than an hour; the raw data are [results.jsonl](results.jsonl).",
        );
        self.say(
            "- [The paper's comparison](#the-papers-comparison-bench_paper): real programs,\n\
             \x20 real connections, three unequal web servers, and what goes wrong with them\n\
             - [Language models](#language-models-a-few-requests-a-machine-lab_work): machines\n\
             \x20 that take few requests at once and never more, simulated\n\
             - [From ten providers to thousands](#from-ten-providers-to-thousands-lab_scale),\n\
             \x20 simulated\n\
             - [Where PEGASUS loses, and why](#where-pegasus-loses-and-why)",
        );
        let Some(head) = data.of("paper-head").next() else { return };
        self.say(&format!(
            "Taken on {}: {}. {}.",
            head.word("date"),
            head.word("machine"),
            head.word("versions")
        ));
        let machine: Vec<String> = data
            .of("paper-machine")
            .map(|line| {
                format!(
                    "{:.0} % ({:.0} % by this bench)",
                    100.0 * line.get("busy"),
                    100.0 * line.get("ours")
                )
            })
            .collect();
        self.say(&format!(
            "How busy the machine was during the paper's comparison, round by round:\n\
             {}.\n\
             What else ran made clients, balancers and providers late. That hits all rows at the\n\
             same moments, but it raises every time, and the highest percentiles most.",
            machine.join(", ")
        ));
    }

    fn rules(&mut self, head: &Line) {
        self.say("### Rules of fairness");
        self.say(&format!(
            "- All contestants run at once and get the same requests at the same moments:\n\
             \x20 {:.0} a second where the providers can serve {:.0}. A client is one\n\
             \x20 connection.\n\
             - Each has {:.0} HTTP providers of its own, of speed 1, 2, 4 in turn, with two\n\
             \x20 slots each. They sleep instead of working, for as long as the work would\n\
             \x20 take at their speed: on {} real work would measure the machine.\n\
             - Only `haproxy-weights` is told the speeds, and `apache`, whose servers have\n\
             \x20 as many workers as they are quick. An operator would have to measure that.\n\
             - All that can check health do, once a second. HAProxy repeats a request that was\n\
             \x20 answered 503; PEGASUS, which relays bytes, cannot. All have their default\n\
             \x20 threads.\n\
             - Nobody touches a contestant during the run, except to drain a provider.\n\
             - A request fails if it is refused, cut off, answered 503, or not answered in 8\n\
             \x20 s. Requests in a provider when it dies cannot be saved; they are not\n\
             \x20 counted.",
            head.get("rate"),
            head.get("capacity"),
            head.get("providers"),
            head.word("machine").split(',').next().unwrap_or("this machine"),
        ));
    }

    fn paper(&mut self, data: &Data) {
        self.say("## The paper's comparison: `bench_paper`");
        let Some(head) = data.of("paper-head").next() else {
            return self.say("Not measured.");
        };
        self.say(
            "Three unequal web servers. A task of others comes to the quickest and goes; the\n\
             second one dies and returns; the slowest answers errors at once for a while; the\n\
             second one is drained.",
        );
        self.rules(head);
        let rows = data.rows("paper");
        let bar = |row: &&str, value: f64| Bar {
            label: short(row).to_string(),
            value,
            whose: match *row {
                "haproxy-agent" | "haproxy-export" | "pegasus-nft" => Whose::Fed,
                row if row.starts_with(OURS) => Whose::Ours,
                _ => Whose::Theirs,
            },
        };
        self.say(
            "How long the slowest hundredth of the answers took at least, and how many requests\n\
             failed. Both count: what is not answered has no time here.",
        );
        let all: Vec<Bar> = rows.iter().map(|row| bar(row, data.mean(row, "p99"))).collect();
        let note = "milliseconds, shorter is better; speeds 1:2:4, with all troubles";
        let svg = bars("99th percentile of the response time", note, all);
        self.chart("paper-p99.svg", "99th percentile by contestant", svg);
        let failed: Vec<Bar> = rows.iter().map(|row| bar(row, data.avoidable(row))).collect();
        let came: f64 = data.sum(OURS, "came");
        let note = format!("of {came:.0}; without those that were in a provider when it died");
        let svg = bars("Failed requests", &note, failed);
        self.chart("paper-failed.svg", "failed requests by contestant", svg);
        self.say(&self.paper_tables(data, &rows));
        let skipped = data
            .of("paper-skipped")
            .map(|line| format!("Left out: `{}`, because {}.", line.word("row"), line.word("why")));
        let skipped: BTreeSet<String> = skipped.collect();
        skipped.iter().for_each(|line| self.say(line));
    }

    fn paper_tables(&self, data: &Data, rows: &[&str]) -> String {
        let main: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let mean = |name: &str| figure(data.mean(row, name));
                vec![
                    format!("`{row}`"),
                    mean("goodput"),
                    mean("mean"),
                    mean("p50"),
                    spread(interval(&data.rounds(row, "p99"))),
                    mean("p99_all"),
                    mean("p999"),
                    figure(data.avoidable(row)),
                    mean("cpu"),
                ]
            })
            .collect();
        let what: Vec<String> =
            rows.iter().map(|row| format!("- `{row}`: {}", what(row))).collect();
        let ipvs = match data.of("paper-head").next().map_or("", |head| head.word("ipvs")) {
            "yes" => "",
            _ => {
                "\n\nIPVS, the kernel's own balancer, is not in this kernel: nftables' numgen \
                 stands in."
            }
        };
        let troubles: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let line = data.of("paper").find(|line| line.word("row") == *row);
                let share = |name: &str| line.map_or("", |line| line.word(name)).to_string();
                let last = |name: &str| figure(data.worst(row, name)).replace('–', "none");
                vec![
                    format!("`{row}`"),
                    share("share_calm"),
                    share("share_antagonist"),
                    last("crash_last_s"),
                    figure(data.worst(row, "join_s")),
                    last("sick_last_s"),
                    figure(data.worst(row, "drain_s")),
                ]
            })
            .collect();
        format!(
            "{}{ipvs}\n\nTimes in ms, means of the rounds, of p99 with the 95 % interval; they\n\
             are of the requests that were answered. `p99, all`: with those that failed, as if\n\
             they had taken all of the 8 s. Goodput: requests a second that were answered\n\
             within a second. CPU: of the balancer's processes, µs a request; the kernel's own\n\
             time for `nft` and all relaying is in no row.\n\n{}\
             Shares of the three providers (the true speeds are 0.143 0.286 0.571), and how\n\
             long each took to react, in s, the worst round: the last request that failed\n\
             after the crash; the first that came to the provider after its return; the last\n\
             that failed by the sick one; the last that came after the drain. `none`: none\n\
             failed; –: it cannot.\n\n{}",
            what.join("\n"),
            table(
                &["", "goodput", "mean", "p50", "p99", "p99, all", "p99.9", "failed", "CPU"],
                &main
            ),
            table(
                &["", "shares, calm", "with the antagonist", "crash", "join", "sick", "drain"],
                &troubles
            )
        )
    }

    fn losses(&mut self, data: &Data) {
        if data.rounds(OURS, "mean").is_empty() {
            return;
        }
        self.say("### Where PEGASUS loses, and why");
        self.say(
            "Every row that is better than `pegasus` by more than a twentieth, from the data. The\n\
             reasons are what we know of the contestants.",
        );
        let mut found = 0;
        for (name, unit, word, least, why) in LOSSES {
            let ours = data.mean(OURS, name);
            let better: Vec<String> = data
                .rows("paper")
                .into_iter()
                .filter(|row| !row.starts_with(OURS))
                .map(|row| (row, data.mean(row, name)))
                .filter(|(_, value)| *value < 0.95 * ours - least)
                .map(|(row, value)| format!("`{row}` {}", figure(value)))
                .collect();
            if !better.is_empty() {
                found += 1;
                self.text += &format!(
                    "- **{word}**: {}; `pegasus` {} {unit}. {why}\n",
                    better.join(", "),
                    figure(ours)
                );
            }
        }
        self.say(if found == 0 { "None in these rounds." } else { "" });
        let fed: Vec<String> = ["pegasus-nft", "haproxy-export", "haproxy-agent", "haproxy"]
            .into_iter()
            .filter(|row| data.rows("paper").contains(row))
            .map(|row| {
                let (p99, failed) = (data.mean(row, "p99"), data.avoidable(row));
                format!("`{row}` {} ms, {} failed", figure(p99), figure(failed))
            })
            .collect();
        if !fed.is_empty() {
            self.say("### What an engine that is told weights cannot do");
            self.say(&format!("99th percentiles and failed requests: {}.", fed.join("; ")));
            self.say(ENGINES);
        }
        if data.rows("paper").contains(&"haproxy-agent") {
            return;
        }
        self.say(
            "HAProxy fed by agent checks was not measured: that `pegasus` equals it is not shown.",
        );
    }

    /// Which rows can be told from ours: the same requests came to both at the same moments,
    /// so it is their differences, round by round, that count.
    fn apart(&mut self, data: &Data) {
        let ours = data.rounds(OURS, "p99");
        if ours.len() < 2 {
            return;
        }
        self.say("### Which rows differ from `pegasus`");
        let (mut lower, mut higher, mut same) = (Vec::new(), Vec::new(), Vec::new());
        for row in data.rows("paper").into_iter().filter(|row| *row != OURS) {
            let theirs = data.rounds(row, "p99");
            let differences: Vec<f64> =
                theirs.iter().zip(&ours).map(|(theirs, ours)| theirs - ours).collect();
            let (mean, half) = interval(&differences);
            let list = match mean {
                _ if mean.abs() <= half || half.is_nan() => &mut same,
                _ if mean < 0.0 => &mut lower,
                _ => &mut higher,
            };
            list.push(format!("`{row}` ({mean:+.0} ± {half:.0} ms)"));
        }
        let list = |rows: &[String]| match rows {
            [] => "none".to_string(),
            rows => rows.join(", "),
        };
        self.say(&format!(
            "By the 99th percentile, from the differences in {} rounds and their 95 % \
             intervals:\n\n\
             - lower: {}\n- higher: {}\n- not to be told apart: {}",
            ours.len(),
            list(&lower),
            list(&higher),
            list(&same)
        ));
    }

    fn simulated(&mut self, data: &Data) {
        let lines: Vec<&Line> = data.of("lab-paper").collect();
        let Some(first) = lines.first() else { return };
        self.say("### The same, simulated: `lab_paper`");
        self.say(&format!(
            "A few rounds do not show small differences. So here are {:.0}, in virtual time,\n\
             with the queue and the monitors of the program, and models of the others. Hosts\n\
             share their CPUs evenly. Means in ms, with 95 % intervals:",
            first.get("rounds")
        ));
        let row = |line: &&Line| {
            let of = |name: &str| spread((line.get(name), line.get(&format!("{name}_half"))));
            let row = line.word("row").to_string();
            vec![row, of("mean"), of("p99"), of("p999"), of("failed")]
        };
        let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
        self.text += &table(&["", "mean", "p99", "p99.9", "failed %"], &rows);
        self.say(
            "`leastconn` is also what the agent checks of our monitors make of HAProxy here:\n\
             each server has two slots, so all have the same weight. PEGASUS finds the speeds\n\
             from the times of its requests. True weights still have a lower p99. We take this\n\
             for the reason: a ticket is a place where a request starts at once, and PEGASUS\n\
             gives it away before a request has to wait, also at the slowest server. There the\n\
             slowest hundredth of the requests takes four times as long as at the quickest.",
        );
    }

    fn work(&mut self, data: &Data) {
        let lines: Vec<&Line> = data.of("work").collect();
        let Some(first) = lines.first() else { return };
        self.say("## Language models, a few requests a machine: `lab_work`");
        self.say(&format!(
            "Machines that take 1, 2, 4 or 8 requests at once and never more. Arrivals: {}.\n\
             Simulated, with the queue and the monitors of the program; the same on every\n\
             machine. A request waits 30 s for a place at most. `over`: requests that began on\n\
             a machine that was full.",
            first.word("arrivals")
        ));
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                vec![
                    line.word("setting").to_string(),
                    line.word("row").to_string(),
                    figure(line.get("failed")),
                    figure(line.get("mean_wait")),
                    figure(line.get("p99_wait")),
                    figure(line.get("over")),
                ]
            })
            .collect();
        let head = ["", "contestant", "failed %", "mean wait, s", "p99 wait, s", "over"];
        self.text += &table(&head, &rows);
        let two = |line: &&&Line| line.word("setting").starts_with("2 ");
        let all: Vec<Bar> = lines
            .iter()
            .filter(two)
            .map(|line| Bar {
                label: line.word("row").into(),
                value: line.get("failed") + 100.0 * line.get("over") / line.get("requests"),
                whose: match line.word("row") {
                    "PEGASUS" => Whose::Ours,
                    _ => Whose::Theirs,
                },
            })
            .collect();
        let svg = bars(
            "Language models: requests refused, or put on a full machine",
            "percent; two balancers, machines that take 1, 2, 4 or 8 requests at once",
            all,
        );
        self.chart(
            "work-failed.svg",
            "requests to language models that were refused, or put on a full machine",
            svg,
        );
        self.say(
            "Target Optimizer never keeps a request waiting: what finds no free machine is\n\
             answered 503 at once, and repeating is the client's work. Leastconn with maxconn\n\
             waits too, and with one balancer it is exact. With two balancers each must either\n\
             own half of a machine, which one slot does not allow, or the bound is broken.",
        );
    }

    fn scale(&mut self, data: &Data) {
        let lines: Vec<&Line> = data.of("scale").collect();
        if lines.is_empty() {
            return;
        }
        self.say("## From ten providers to thousands: `lab_scale`");
        self.say(
            "Simulated, with the queue, schedulers and monitors of the program. Providers of\n\
             speed 1, 2, 4 in turn, each with four CPUs; load 0.8; each balancer knows its own\n\
             requests only. A request needs a CPU of speed 1 for a second. Between hosts a\n\
             message takes 1 ms, or what is said; `lost` are ticket messages, which peers do\n\
             not have. `messages`: control messages from monitors for each request.",
        );
        let settings: Vec<&str> = unique(lines.iter().map(|line| line.word("setting")));
        let names: Vec<&str> = unique(lines.iter().map(|line| line.word("row")));
        let at = |setting: &str, row: &str| {
            let is = |line: &&&Line| line.word("setting") == setting && line.word("row") == row;
            lines.iter().find(is).copied()
        };
        let all: Vec<Curve> = names
            .iter()
            .map(|row| Curve {
                label: (*row).to_string(),
                values: settings
                    .iter()
                    .map(|setting| at(setting, row).map_or(f64::NAN, |line| line.get("mean")))
                    .collect(),
                ours: row.starts_with("PEGASUS"),
                ideal: *row == "ideal",
            })
            .collect();
        let steps: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        let svg = curves(
            "Mean response time by the size of the cluster",
            "milliseconds, logarithmic, lower is better; providers / balancers, delay, lost \
             messages",
            &steps,
            &all,
        );
        self.chart("scale-mean.svg", "mean response time by the size of the cluster", svg);
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                let text = |name: &str| figure(line.get(name));
                vec![
                    line.word("setting").to_string(),
                    line.word("row").to_string(),
                    text("mean"),
                    text("p99"),
                    text("failed"),
                    text("messages"),
                ]
            })
            .collect();
        let head = ["", "contestant", "mean, ms", "p99, ms", "failed %", "messages"];
        self.text += &table(&head, &rows);
        let better: Vec<String> = lines
            .iter()
            .filter_map(|line| {
                let ours = at(line.word("setting"), "PEGASUS")?.get("mean");
                let ahead = line.get("mean") < ours && line.word("row") != "ideal";
                let (setting, row) = (line.word("setting"), line.word("row"));
                ahead.then(|| {
                    format!("{row} at {setting} ({:.0} %)", 100.0 * line.get("mean") / ours)
                })
            })
            .collect();
        if !better.is_empty() {
            self.say(&format!(
                "A lower mean than PEGASUS, whose mean is 100 %: {}. Target Optimizer knows\n\
                 the free places of all balancers together, and refuses instead of waiting.\n\
                 Prequal asks three hosts for every request; PEGASUS sends one message a\n\
                 second from each provider to each balancer, however many requests there\n\
                 are.",
                better.join(", ")
            ));
        }
        // The size itself, which counts from then on, ends the row.
        let last = at(LEARNED.0, "PEGASUS").map(|line| (LEARNED.1, line));
        let learning: Vec<Vec<String>> = data
            .of("learning")
            .map(|line| (line.get("after"), line))
            .chain(last)
            .map(|(after, line)| {
                let text = |name: &str| figure(line.get(name));
                vec![line.word("setting").to_string(), figure(after), text("mean"), text("p99")]
            })
            .collect();
        if data.of("learning").next().is_some() {
            self.say(LEARNING);
            let head = ["", "after, s", "mean, ms", "p99, ms"];
            self.text += &table(&head, &learning);
        }
        let queue: Vec<Vec<String>> = data
            .of("queue")
            .map(|line| {
                let text = |name: &str| figure(line.get(name));
                vec![text("providers"), text("ticket_us"), text("request_us"), text("bytes")]
            })
            .collect();
        if !queue.is_empty() {
            self.say("What the queue itself needs, on a quiet machine like the one above:");
            let head = ["providers", "µs a ticket message", "µs a request", "bytes a provider"];
            self.text += &table(&head, &queue);
        }
        self.say(NOT_SHOWN);
    }
}

fn unique<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    found
}

/// The size that is looked at while it learns, and after how many seconds it is in the table.
const LEARNED: (&str, f64) = ("1000 / 32", 65.0);

const LEARNING: &str =
    "The time to converge: each balancer finds the speeds from its own requests, and in a large\n\
cluster it meets each provider seldom. Ten seconds of PEGASUS after so many; the last row is\n\
that of the table above:";

const NOT_SHOWN: &str =
    "Few seconds of thousands of providers are simulated: 65 before 10 that count with 1,000, 11\n\
before 3 with 10,000. Peers that take turns, as leastconn does among equals, begin at a random\n\
place, with the providers in another order in each balancer, as Envoy does. HAProxy begins at\n\
one place in all of them, and they meet at the same providers: then turns by true weights take\n\
1,290 ms among 1,000 providers and 32 balancers.\n\n\
- `leastconn`, `P2C` (two random choices): the fewest requests of this balancer.\n\
- `Prequal`: probes of requests in flight and latency. Here they are answered at once.\n\
- `CSWRR`: weights by the utilisation that providers report, as Envoy's client-side weighted\n\
\x20 round robin. Here the reports are exact.\n\
- `Target Optimizer`: each provider says when it takes one more; who finds none is refused.\n\
- `true weights`: turns in proportion to the true speeds.\n\
- `ideal`: one queue before all providers, which knows everything at once. It cannot be built.";

const ENGINES: &str =
    "Weights say nothing about the requests in progress, and they are found in ten intervals,\n\
seconds: they fit lasting differences, not short troubles. Who can, lets an engine count as\n\
well, as HAProxy's leastconn does.\n\n\
A check finds within a second that a provider fails, and within one more the exporter has told\n\
the engine. Until then the kernel leads clients there. It chooses once for a connection, by its\n\
first packet, and can neither wait nor try another provider. Here the dead provider refuses at\n\
once. A dead host does not answer at all: the client repeats its SYN after 1, 3 and 7 s, and\n\
conntrack leads each of them to the same host, whatever the weights are by then. HAProxy tries\n\
another server instead.";

/// What is better when it is lower: name, unit, for people, less than this does not count,
/// and the reason.
const LOSSES: [(&str, &str, &str, f64, &str); 6] = [
    (
        "mean",
        "ms",
        "Mean",
        0.0,
        "True weights need no learning. PEGASUS must find them, and gives a provider that is \
         back few requests at first.",
    ),
    (
        "p99",
        "ms",
        "99th percentile",
        0.0,
        "True weights need no learning. PEGASUS gives a free place away at once, also at the \
         slowest server, and gives a provider that is back few requests at first.",
    ),
    (
        "sick_failed",
        "requests",
        "Failed by the provider that answers errors",
        0.5,
        "HAProxy reads HTTP and repeats elsewhere what is answered 503; `direct` never meets that \
         provider. PEGASUS relays bytes and hears of it from the provider's check, once a second.",
    ),
    (
        "crash_failed",
        "requests",
        "Failed around the crash, with those that nobody could save",
        0.5,
        "How many were in the provider at that moment is chance.",
    ),
    (
        "join_s",
        "s",
        "First request after a return",
        0.1,
        "Those that do not check never stopped. PEGASUS wants two good checks, a second apart.",
    ),
    (
        "cpu",
        "µs a request",
        "CPU",
        0.0,
        "Who does not relay does not pay for it: the clients go to the providers themselves.",
    ),
];

/// Writes, or compares with what is there.
fn each_file(page: &Page, mut act: impl FnMut(&Path, &str)) {
    let folder = Path::new(FOLDER);
    let text = format!("{}\n", page.text.trim_end()).replace("\n\n\n", "\n\n");
    act(&folder.join("RESULTS.md"), &text);
    for (name, svg) in &page.charts {
        act(&folder.join("charts").join(name), svg);
    }
}

#[test]
#[ignore = "writes the page of results"]
fn bench_page() {
    let path = std::env::var("PEGASUS_BENCH_JSON");
    let path = path.unwrap_or_else(|_| format!("{FOLDER}/results.jsonl"));
    let page = Page::of(&Data::read(Path::new(&path)));
    fs::create_dir_all(format!("{FOLDER}/charts")).unwrap();
    each_file(&page, |file, text| fs::write(file, text).unwrap());
}

#[test]
fn the_page_of_results_is_what_its_data_give() {
    let path = format!("{FOLDER}/results.jsonl");
    if !Path::new(&path).exists() {
        return eprintln!("SKIPPED: no {path}; tests/bench/regenerate makes it");
    }
    let data = Data::read(Path::new(&path));
    assert!(data.of("paper").count() > 0, "results.jsonl has no figures");
    each_file(&Page::of(&data), |file, text| {
        let there = fs::read_to_string(file).unwrap_or_default();
        assert!(there == text, "{}: run bench_page again", file.display());
    });
}
