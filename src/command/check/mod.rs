//! `pegasus check`: would this configuration work on this host?
//!
//! Owns the order of the checks, the report and the exit status. It changes nothing here,
//! and at a queue only a service of its own, for a moment.

mod finding;
mod host;
mod host_files;
mod network;
mod queue;
mod superservers;
mod systemd;

use super::exit;
use super::status_report::quoted;
use super::terminal::print_line;
use crate::config::settings::Settings;
use crate::config::source::default_file;
use finding::{Finding, Part};
use getopts::{Matches, Options};
use std::path::PathBuf;

/// Adds its options to those of the configuration.
pub fn add_options(options: &mut Options) {
    options.optflag("", "json", "");
    options.optopt("", "root", "", "DIR");
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    if let Some(extra) = matches.free.first() {
        super::terminal::print_error(format_args!("pegasus: check: unexpected argument `{extra}`"));
        return exit::USAGE;
    }
    let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
    let assignments = matches.opt_strs("set");
    let root = matches.opt_str("root").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let loaded = Settings::load(file.as_deref(), &assignments);
    let mistaken = loaded.is_err();
    let mut findings = Vec::new();
    let settings = loaded.unwrap_or_else(|errors| {
        let finding = |error: &crate::config::reader::ConfigError| {
            Finding::new("configuration", "", error.to_string(), "")
        };
        findings.extend(errors.iter().map(finding));
        // The rest is checked as far as it can be read.
        Settings::with_mistakes(file.as_deref(), &assignments)
    });
    let superservers = superservers::find(&root, &settings);
    let part = Part::of(&settings, superservers.start_us);
    findings.extend(superservers.findings);
    findings.extend(host::limits(&settings, &part));
    findings.extend(network::names(&settings));
    findings.extend(network::addresses(&settings, &part));
    findings.extend(network::own_doors(&settings));
    // A key file that was refused must not become a connection without a key.
    if !(mistaken && settings.key_file.is_some()) {
        findings.extend(queue::round_trips(&settings, &part));
    }
    findings.extend(network::providers(&settings, &part));
    report(&findings, &host::notes(&settings, &part), matches.opt_present("json"))
}

fn report(findings: &[Finding], notes: &[String], as_json: bool) -> i32 {
    let status = match findings {
        [] => exit::OK,
        all if all.iter().all(|finding| finding.unreachable) => exit::UNAVAILABLE,
        _ => exit::CONFIG,
    };
    if as_json {
        let findings: Vec<String> = findings.iter().map(Finding::json).collect();
        let notes: Vec<String> = notes.iter().map(|note| quoted(note)).collect();
        let (findings, notes) = (findings.join(","), notes.join(","));
        print_line(format_args!(
            "{{\"findings\":[{findings}],\"notes\":[{notes}],\"status\":{status}}}"
        ));
        return status;
    }
    findings.iter().for_each(|finding| print_line(finding.text()));
    notes.iter().for_each(|note| print_line(format_args!("note: {note}")));
    match findings.len() {
        0 => print_line("nothing found that will go wrong"),
        1 => print_line("1 finding"),
        count => print_line(format_args!("{count} findings")),
    }
    status
}
