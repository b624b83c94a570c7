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

/// A row of the table. A program without the queue knows their names only: nobody
/// there makes one, and what nobody names is not linked.
const fn entry(names: &'static [&'static str], sentence: &'static str, make: fn(u64) -> Box<dyn Scheduler>) -> Entry {
    let make = if cfg!(any(feature = "queue", test)) { make } else { |_| unreachable!("no queue") };
    Entry { names, sentence, make }
}

/// Every scheduler; the first is the default.
pub const SCHEDULERS: &[Entry] = &[
    entry(&["competitive"], "quickest class first, then fewest active per ticket", |_| Box::<Competitive>::default()),
    entry(&["least-loaded", "leastconn", "lc", "wlc"], "fewest active per slot", |_| Box::<LeastLoaded>::default()),
    entry(&["source-hash", "sh", "mh"], "a client stays with its provider", |_| Box::<SourceHash>::default()),
    entry(&["first"], "fill the lowest address, then the next", |_| Box::new(first())),
    entry(&["weighted", "wrr"], "smooth turns in proportion to tickets", |_| Box::<Turns>::default()),
    entry(&["round-robin", "rr"], "turns, whatever they offer", |_| Box::new(round_robin())),
    entry(&["fifo"], "the first ticket in the queue, strictly", |_| Box::new(fifo())),
    entry(&["random-two", "random"], "the less loaded of two random ones", |seed| Box::new(RandomTwo::new(seed))),
    entry(&["shortest-delay", "sed"], "fewest active + 1 per ticket", |_| Box::new(shortest_delay())),
    entry(&["never-queue", "nq"], "an idle one first, else shortest-delay", |_| Box::new(never_queue())),
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
