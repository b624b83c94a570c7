//! `/proc/stat` and `/proc/loadavg` of Linux.

use super::Times;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// CPU times of this host, where the system tells.
pub fn times() -> Option<Times> {
    let mut line = String::new();
    // The first line is enough: the file has one for each CPU and interrupt.
    BufReader::with_capacity(256, File::open("/proc/stat").ok()?).read_line(&mut line).ok()?;
    parse(&line)
}

fn parse(line: &str) -> Option<Times> {
    // user nice system idle iowait irq softirq steal; guest times are in user.
    let ticks: Vec<u64> = line
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let total = ticks.iter().sum();
    // What is niced gives way to whoever wants the CPU.
    let idle: u64 = ticks.get(3..5)?.iter().sum::<u64>() + ticks[1];
    Some(Times { busy: total - idle, total })
}

/// Tasks that run or wait for a CPU now, this one not counted.
pub fn runnable() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running: u32 = text.split(' ').nth(3)?.split('/').next()?.parse().ok()?;
    Some(running.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_proc_stat() {
        let times = parse("cpu  100 20 30 800 50 5 5 10 7 0\n").unwrap();
        assert_eq!(times, Times { busy: 150, total: 1020 });
        let later = parse("cpu  150 20 30 850 50 5 5 10 7 0\n").unwrap();
        assert_eq!(later.utilisation(&times), Some(0.5));
        assert_eq!(times.utilisation(&times), None);
        assert_eq!(parse("intr 1"), None);
    }

    #[test]
    fn the_system_tells() {
        assert!(times().is_some_and(|times| times.total >= times.busy) && runnable().is_some());
    }
}
