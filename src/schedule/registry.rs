//! The schedulers by name. Owns the table that configuration, help and error
//! messages are made from.

use super::competitive::Competitive;
use super::fifo::fifo;
use super::first::first;
use super::least_loaded::LeastLoaded;
use super::never_queue::never_queue;
use super::random_two::RandomTwo;
use super::round_robin::round_robin;
use super::scheduler::Scheduler;
use super::shortest_delay::shortest_delay;
use super::source_hash::SourceHash;
use super::weighted::Turns;
use std::fmt;
use std::str::FromStr;

/// One row of the table.
pub struct Entry {
    /// The name, then its aliases.
    pub names: &'static [&'static str],
    /// One sentence for people.
    pub sentence: &'static str,
    /// A fresh one; the seed is for those that throw dice.
    make: fn(u64) -> Box<dyn Scheduler>,
}

/// Every scheduler; the first is the default.
pub const SCHEDULERS: &[Entry] = &[
    Entry {
        names: &["competitive"],
        sentence: "quickest class first, then fewest active per ticket",
        make: |_| Box::<Competitive>::default(),
    },
    Entry {
        names: &["least-loaded", "leastconn", "lc", "wlc"],
        sentence: "fewest active per capacity",
        make: |_| Box::<LeastLoaded>::default(),
    },
    Entry {
        names: &["source-hash", "sh", "mh"],
        sentence: "a client stays with its provider",
        make: |_| Box::<SourceHash>::default(),
    },
    Entry { names: &["first"], sentence: "fill the lowest address, then the next", make: |_| Box::new(first()) },
    Entry {
        names: &["weighted", "wrr"],
        sentence: "smooth turns in proportion to tickets",
        make: |_| Box::<Turns>::default(),
    },
    Entry { names: &["round-robin", "rr"], sentence: "turns, whatever they offer", make: |_| Box::new(round_robin()) },
    Entry { names: &["fifo"], sentence: "the first ticket in the queue, strictly", make: |_| Box::new(fifo()) },
    Entry {
        names: &["random-two", "random"],
        sentence: "the less loaded of two random ones",
        make: |seed| Box::new(RandomTwo::new(seed)),
    },
    Entry {
        names: &["shortest-delay", "sed"],
        sentence: "fewest active + 1 per ticket",
        make: |_| Box::new(shortest_delay()),
    },
    Entry {
        names: &["never-queue", "nq"],
        sentence: "an idle one first, else shortest-delay",
        make: |_| Box::new(never_queue()),
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

    /// A fresh scheduler of this kind. Two of the same seed choose alike.
    pub fn make(self, seed: u64) -> Box<dyn Scheduler> {
        (SCHEDULERS[self.0].make)(seed)
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
            found.make(0);
        }
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(SchedulerName::DEFAULT.as_str(), "competitive");
        let wrong = "fastest".parse::<SchedulerName>().unwrap_err();
        assert!(wrong.contains("competitive, least-loaded, source-hash, "), "{wrong}");
    }
}
