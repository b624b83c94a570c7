//! Linux tells it in files.

use super::ProcessInfo;
use std::fs;

/// Reads `/proc/self`.
pub(super) fn read() -> ProcessInfo {
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ProcessInfo {
        // One of them was that of this look itself.
        open_descriptors: descriptors.map(|count| count.saturating_sub(1)),
        resident_bytes: kilobytes.map(|kilobytes| kilobytes * 1024),
        cpu_millis: cpu_ticks(&stat).map(|ticks| ticks * 1000 / ticks_per_second()),
        ..ProcessInfo::default()
    }
}

/// User and system time, the 14th and 15th word; the second may contain blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ').skip(11);
    let (user, system): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(user + system)
}

fn ticks_per_second() -> u64 {
    // SAFETY: a plain call with a known name.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_may_contain_anything() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 97 0 0 0 25 17 0 0 20 0 1 0 31 9 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert!(read().resident_bytes.is_some_and(|bytes| bytes > 65_536));
    }
}
