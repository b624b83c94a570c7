//! What systemd will do with units that start this program.
//!
//! Owns the reading of unit files and their drop-ins, below a folder that stands for the
//! root. Knows the defaults of systemd.socket(5), not whether the units are enabled.

use super::finding::Finding;
use super::host_files::{files, is_ours, read};
use crate::command::daemon;
use crate::config::settings::Settings;
use std::collections::BTreeMap;
use std::path::Path;

/// Where units are, the most important first.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Clients at once that a unit with a process for each should take.
const CLIENTS_MIN: u64 = 256;

/// A unit with its drop-ins.
struct Unit {
    place: String,
    /// `Section.Key`, and the value that was set last.
    values: BTreeMap<String, String>,
}

impl Unit {
    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn add(&mut self, text: &str) {
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_string();
            } else if let Some((key, value)) =
                line.split_once('=').filter(|_| !line.starts_with(['#', ';']))
            {
                self.values.insert(format!("{section}.{}", key.trim()), value.trim().to_string());
            }
        }
    }

    fn starts_us(&self) -> bool {
        let command = self.get("Service.ExecStart").unwrap_or_default();
        let command = command.trim_start_matches(['-', '@', ':', '+', '!']);
        is_ours(command.split_whitespace())
    }
}

/// Whether a unit starts this program, and what is wrong with such units.
pub fn find(root: &Path, settings: &Settings) -> (bool, Vec<Finding>) {
    let units = units(root);
    let ours = |name: &str| units.get(name).filter(|unit| unit.starts_us());
    let mut findings = Vec::new();
    let mut start_us = false;
    for (name, unit) in &units {
        if let Some(stem) = name.strip_suffix(".socket") {
            let accept = matches!(unit.get("Socket.Accept"), Some("yes" | "true" | "on" | "1"));
            let service = match unit.get("Socket.Service") {
                Some(service) => service.to_string(),
                None if accept => format!("{stem}@.service"),
                None => format!("{stem}.service"),
            };
            if ours(&service).is_some() {
                start_us = true;
                if accept {
                    findings.extend(process_each(unit));
                }
            }
        } else if unit.starts_us() {
            findings.extend(descriptors(unit, settings));
        }
    }
    (start_us, findings)
}

fn units(root: &Path) -> BTreeMap<String, Unit> {
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    let all = FOLDERS.iter().flat_map(|folder| files(&root.join(folder)));
    let all: Vec<_> =
        all.filter_map(|path| Some((path.file_name()?.to_str()?.to_string(), path))).collect();
    for (name, path) in &all {
        let is_unit = name.ends_with(".socket") || name.ends_with(".service");
        if is_unit && !units.contains_key(name) {
            let Some(text) = read(path).filter(|_| path.is_file()) else { continue };
            let mut unit = Unit { place: path.display().to_string(), values: BTreeMap::new() };
            unit.add(&text);
            units.insert(name.clone(), unit);
        }
    }
    for (name, path) in &all {
        let Some(unit) = name.strip_suffix(".d").and_then(|name| units.get_mut(name)) else {
            continue;
        };
        for part in files(path) {
            if part.extension().is_some_and(|end| end == "conf") {
                unit.add(&read(&part).unwrap_or_default());
            }
        }
    }
    units
}

/// A socket unit that starts a process for each client.
fn process_each(unit: &Unit) -> Vec<Finding> {
    let mut findings = Vec::new();
    let most = unit.get("Socket.MaxConnections").map_or(Some(64), |most| most.parse().ok());
    if let Some(most) = most.filter(|most| *most < CLIENTS_MIN) {
        let what = format!("systemd refuses more than {most} clients at once");
        findings.push(Finding::new("systemd", &unit.place, what, "MaxConnections=1024"));
    }
    let unlimited = matches!(unit.get("Socket.TriggerLimitIntervalSec"), Some("0" | "0s"));
    if !unlimited && unit.get("Socket.TriggerLimitBurst").is_none() {
        let what = "200 clients within two seconds stop this unit until it is started by hand";
        findings.push(Finding::new("systemd", &unit.place, what, "TriggerLimitIntervalSec=0"));
    }
    findings
}

/// A daemon whose clients do not fit in its descriptors.
fn descriptors(unit: &Unit, settings: &Settings) -> Option<Finding> {
    // The hard limit is the one that counts, for the program raises the soft one.
    let limit = unit.get("Service.LimitNOFILE")?.rsplit(':').next()?.parse().ok()?;
    let command = unit.get("Service.ExecStart").unwrap_or_default();
    let name = ["redirect", "queue"].into_iter().find(|name| command.contains(name))?;
    let short = daemon::shortage_within(name, settings, Some(limit))?;
    let what = format!(
        "LimitNOFILE={limit} is enough for {}={}, and {} are configured",
        short.key, short.fit, short.wanted
    );
    Some(Finding::new("systemd", &unit.place, what, format!("LimitNOFILE={}", short.needed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        let mut unit = Unit { place: "u".into(), values: BTreeMap::new() };
        unit.add(text);
        unit
    }

    #[test]
    fn stock_limits_are_found_and_the_samples_are_good() {
        let texts = |text: &str| -> Vec<String> {
            process_each(&unit(text)).iter().map(Finding::text).collect()
        };
        let stock = texts("[Socket]\nListenStream=80\nAccept=yes\n");
        assert!(stock[0].contains("more than 64 clients at once"), "{stock:?}");
        assert!(stock[1].ends_with("-> TriggerLimitIntervalSec=0") && stock.len() == 2);
        let sample = include_str!("../../../conf/systemd/pegasus-client.socket");
        assert_eq!(texts(sample), Vec::<String>::new());
        let settings = Settings::load(None, &["redirect_threads=1".into()]).unwrap();
        let sample = unit(include_str!("../../../conf/systemd/pegasus-redirect.service"));
        assert!(sample.starts_us());
        assert_eq!(descriptors(&sample, &settings), None);
        let small =
            unit("[Service]\nExecStart=-/usr/sbin/pegasus redirect\nLimitNOFILE=512:1024\n");
        assert!(small.starts_us());
        let finding = descriptors(&small, &settings).unwrap().text();
        assert!(
            finding.contains("LimitNOFILE=1024 is enough for redirect_connections_max="),
            "{finding}"
        );
    }
}
