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
use std::sync::{Arc, OnceLock};

/// One row of the table.
pub struct Entry {
    /// The name, then its aliases.
    pub names: &'static [&'static str],
    /// One sentence for people.
    pub sentence: &'static str,
    /// A fresh one; the seed is for those that throw dice.
    pub make: fn(u64) -> Box<dyn Scheduler>,
}

/// Those of a program that uses this library.
static OWN: OnceLock<Vec<Entry>> = OnceLock::new();

/// Adds schedulers of one's own to the table, once, before the configuration is
/// read. Names that exist already keep their meaning.
pub fn add(own: Vec<Entry>) {
    let _ = OWN.set(own);
}

/// The whole table.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    SCHEDULERS.iter().chain(OWN.get().into_iter().flatten())
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

/// A scheduler that exists, by its name, or a program of the operator's
/// (`exec:COMMAND`), for which the default stands in while it is away.
#[derive(Clone)]
pub struct SchedulerName {
    entry: &'static Entry,
    command: Option<Arc<str>>,
}

impl PartialEq for SchedulerName {
    fn eq(&self, other: &Self) -> bool {
        self.entry.names == other.entry.names && self.command == other.command
    }
}

/// What names a program.
const EXEC: &str = "exec:";

impl SchedulerName {
    /// What is used where nothing is configured.
    pub const DEFAULT: SchedulerName = SchedulerName { entry: &SCHEDULERS[0], command: None };

    /// The program to ask, where it is one.
    pub fn command(&self) -> Option<&Arc<str>> {
        self.command.as_ref()
    }

    /// A fresh scheduler of this kind; for a program, the one that stands in.
    /// Two of the same seed choose alike.
    pub fn make(&self, seed: u64) -> Box<dyn Scheduler> {
        (self.entry.make)(seed)
    }
}

impl FromStr for SchedulerName {
    type Err = String;

    fn from_str(text: &str) -> Result<SchedulerName, String> {
        if let Some(command) = text.strip_prefix(EXEC).filter(|command| !command.trim().is_empty()) {
            return Ok(SchedulerName { command: Some(command.trim().into()), ..SchedulerName::DEFAULT });
        }
        let known = entries().find(|entry| entry.names.contains(&text));
        known.map(|entry| SchedulerName { entry, command: None }).ok_or_else(|| {
            let names: Vec<_> = entries().map(|entry| entry.names[0]).collect();
            format!("no such scheduler ({}, exec:COMMAND)", names.join(", "))
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "{EXEC}{command}"),
            None => f.write_str(self.entry.names[0]),
        }
    }
}

impl fmt::Debug for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
            assert_eq!(found.to_string(), entry.names[0]);
            found.make(0);
        }
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(SchedulerName::DEFAULT.to_string(), "competitive");
        let wrong = "fastest".parse::<SchedulerName>().unwrap_err();
        assert!(wrong.contains("competitive, least-loaded, source-hash, "), "{wrong}");
    }
}
