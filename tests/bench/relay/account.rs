//! What processes that this bench started use: processor time and memory.

use crate::support::process;
use std::fs;
use std::time::Duration;

/// Processor time of a process, and of its children that ended; these in ticks,
/// which are hundredths of a second.
pub fn used(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Behind the name in parentheses, which may contain anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split_whitespace().skip(13).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    // SAFETY: takes a number, gives a number.
    let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    process::used(id)
        + Duration::from_millis(1000 * ticks / u64::try_from(second).unwrap_or(100).max(1))
}

/// Memory of a process in bytes: `Rss`, all pages that it uses, or `Pss`, where of
/// a page that several processes use only its part counts.
pub fn memory(id: u32, kind: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line =
        text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')).unwrap_or("");
    1024.0
        * line
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
}
