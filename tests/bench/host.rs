//! Parameters from the environment, and figures about the host.
#![cfg(target_os = "linux")]

use std::fs;
use std::str::FromStr;
use std::time::Duration;

/// A parameter from the environment.
pub fn parameter<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number"))
}

/// Returns the words of a parameter, all of which must be known; none: all known ones.
pub fn chosen<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let text = std::env::var(name).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    for word in &words {
        assert!(known.contains(word), "{name}: no {word} among {known:?}");
    }
    known.iter().copied().filter(|word| words.is_empty() || words.contains(word)).collect()
}

/// Returns the processor time of the whole host in ticks: busy, and all.
pub fn processor_time() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or("");
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    let all: f64 = ticks.iter().sum();
    (all - idle, all)
}

/// Returns the processor time of this process.
pub fn own_time() -> Duration {
    crate::support::process::used(std::process::id())
}

/// Returns a line with the host's processors and system.
pub fn describe() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let system = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {}, Linux {}", model.map_or("processor", |(_, model)| model), system.trim())
}

/// Returns the date, as `2026-11-28`.
pub fn today() -> String {
    let out = std::process::Command::new("date").arg("+%Y-%m-%d").output();
    out.map_or(String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().to_string())
}
