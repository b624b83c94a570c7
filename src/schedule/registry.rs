//! The schedulers by name. Owns the table that configuration, help and error
//! messages are made from.

use super::competitive::Competitive;
use super::fifo::Fifo;
use super::round_robin::RoundRobin;
use super::scheduler::Scheduler;
use std::fmt;
use std::str::FromStr;

/// One row of the table.
pub struct Entry {
    /// The name, then its aliases.
    pub names: &'static [&'static str],
    /// One sentence for people.
    pub sentence: &'static str,
    make: fn() -> Box<dyn Scheduler>,
}

/// Every scheduler; the first is the default.
pub const SCHEDULERS: &[Entry] = &[
    Entry {
        names: &["competitive"],
        sentence: "quickest class first, then fewest active per ticket; equals take turns",
        make: || Box::<Competitive>::default(),
    },
    Entry { names: &["fifo"], sentence: "the first ticket in the queue, strictly", make: || Box::new(Fifo) },
    Entry {
        names: &["round-robin", "rr"],
        sentence: "providers take turns, whatever they offer",
        make: || Box::new(RoundRobin),
    },
];

/// A scheduler that exists, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SchedulerName(usize);

impl SchedulerName {
    /// What is used where nothing is configured.
    pub const DEFAULT: SchedulerName = SchedulerName(0);

    /// The name itself.
    pub fn as_str(self) -> &'static str {
        SCHEDULERS[self.0].names[0]
    }

    /// A fresh scheduler of this kind.
    pub fn make(self) -> Box<dyn Scheduler> {
        (SCHEDULERS[self.0].make)()
    }
}

impl FromStr for SchedulerName {
    type Err = String;

    fn from_str(text: &str) -> Result<SchedulerName, String> {
        SCHEDULERS.iter().position(|entry| entry.names.contains(&text)).map(SchedulerName).ok_or_else(|| {
            let names: Vec<_> = SCHEDULERS.iter().map(|entry| entry.names[0]).collect();
            format!("no such scheduler ({})", names.join(", "))
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_is_there_once_and_finds_its_scheduler() {
        let mut names: Vec<_> = SCHEDULERS.iter().flat_map(|entry| entry.names).collect();
        for (entry, name) in SCHEDULERS.iter().flat_map(|entry| entry.names.iter().map(move |name| (entry, name))) {
            let found: SchedulerName = name.parse().unwrap();
            assert_eq!(found.as_str(), entry.names[0]);
            found.make();
        }
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(SchedulerName::DEFAULT.as_str(), "competitive");
        let wrong = "fastest".parse::<SchedulerName>().unwrap_err();
        assert!(wrong.contains("competitive, fifo, round-robin"), "{wrong}");
    }
}
