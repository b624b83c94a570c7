//! What this host has: descriptors, and memory.
//!
//! Owns what is said of limits that do not fit the configuration.

use super::finding::{Finding, Part};
use crate::command::bounds;
use crate::command::daemon::{self, DescriptorBudget};
use crate::config::settings::Settings;

/// Configured maxima that a process started from here could not reach.
pub fn limits(settings: &Settings, part: &Part) -> Vec<Finding> {
    let mut findings = Vec::new();
    let commands = [("redirect", part.redirects), ("queue", part.has_queue && !part.redirects)];
    for (name, _) in commands.iter().filter(|(_, runs)| *runs) {
        if let Some(short) = daemon::shortage(name, settings) {
            let what = format!(
                "{}={}: a process started from here has descriptors for {}",
                short.key, short.wanted, short.fit
            );
            let mend = format!(
                "LimitNOFILE={}   (in the unit of systemd; elsewhere `ulimit -n` before the \
                 start)\n\
                 {}={}   (or so many, in the configuration)",
                short.needed, short.key, short.fit
            );
            findings.push(Finding::new("descriptors", "", what, mend));
        }
    }
    if part.redirects {
        if let Err(error) = DescriptorBudget::check_listeners(settings) {
            findings.push(Finding::new("descriptors", "", error.to_string(), ""));
        }
    }
    findings
}

/// The bounds of each daemon of this host.
pub fn notes(settings: &Settings, part: &Part) -> Vec<String> {
    let daemons = [
        ("redirect", part.redirects),
        ("queue", part.has_queue && !part.redirects),
        ("monitor", part.offers),
    ];
    let runs = daemons.iter().filter(|(_, runs)| *runs);
    runs.map(|(name, _)| format!("{name}: {}", bounds::bounds(name, settings))).collect()
}
