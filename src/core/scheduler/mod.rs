//! How a provider is chosen: the scheduler interface, the table of schedulers, and one
//! file per algorithm.
//!
//! A new scheduler is its file, its `mod` line and its row in the table below, from which
//! configuration, help and error messages are made. A scheduler chooses among candidates;
//! it cannot change anything else.

// The interface, and what algorithms share.
pub mod interface;
pub mod key_index;
pub mod load_index;
pub mod rotation;

// The algorithms.
pub mod competitive;
pub mod fifo;
pub mod first;
pub mod least_loaded;
pub mod never_queue;
pub mod random_two;
pub mod round_robin;
pub mod shortest_delay;
pub mod source_hash;
pub mod weighted;

use competitive::Competitive;
use fifo::fifo;
use first::first;
use interface::Scheduler;
use least_loaded::LeastLoaded;
use never_queue::never_queue;
use random_two::RandomTwo;
use round_robin::round_robin;
use shortest_delay::shortest_delay;
use source_hash::SourceHash;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use weighted::Weighted;

/// One row of the table.
pub struct SchedulerDef {
    /// The name, then its aliases.
    pub names: &'static [&'static str],
    /// One sentence for people.
    pub summary: &'static str,
    /// Its choice depends on the client, so that no ticket can be had before there
    /// is one.
    pub uses_client: bool,
    /// A fresh one; the seed is for those that throw dice.
    pub make: fn(u64) -> Box<dyn Scheduler>,
}

/// Those of a program that uses this library.
static OWN: OnceLock<Vec<SchedulerDef>> = OnceLock::new();

/// Adds schedulers of one's own to the table, once, before the configuration is
/// read. Names that exist already keep their meaning.
pub fn add(own: Vec<SchedulerDef>) {
    let _ = OWN.set(own);
}

/// The whole table.
pub fn definitions() -> impl Iterator<Item = &'static SchedulerDef> {
    SCHEDULERS.iter().chain(OWN.get().into_iter().flatten())
}

/// Returns a row of the table. A program without the queue needs only the names: its rows
/// cannot make a scheduler, so that no scheduler is linked.
const fn define(
    names: &'static [&'static str],
    sentence: &'static str,
    make: fn(u64) -> Box<dyn Scheduler>,
) -> SchedulerDef {
    let make = if cfg!(any(feature = "queue", test)) { make } else { |_| unreachable!("no queue") };
    SchedulerDef { names, summary: sentence, uses_client: false, make }
}

impl SchedulerDef {
    /// The same row of a scheduler that looks at the client.
    const fn by_client(self) -> SchedulerDef {
        SchedulerDef { uses_client: true, ..self }
    }
}

/// Every scheduler; the first is the default.
pub const SCHEDULERS: &[SchedulerDef] = &[
    define(&["competitive"], "the quickest providers first, then fewest active per ticket", |_| {
        Box::<Competitive>::default()
    }),
    define(&["least-loaded", "leastconn", "lc", "wlc"], "fewest active per slot", |_| {
        Box::<LeastLoaded>::default()
    }),
    define(&["source-hash", "sh", "mh"], "a client address stays with its provider", |_| {
        Box::<SourceHash>::default()
    })
    .by_client(),
    define(&["first"], "fill the provider with the lowest address, then the next", |_| {
        Box::new(first())
    }),
    define(&["weighted", "wrr"], "smooth turns in proportion to tickets", |_| {
        Box::<Weighted>::default()
    }),
    define(&["round-robin", "rr"], "equal turns", |_| Box::new(round_robin())),
    define(&["fifo"], "the oldest ticket first", |_| Box::new(fifo())),
    define(&["random-two", "random"], "the less loaded of two random providers", |seed| {
        Box::new(RandomTwo::new(seed))
    }),
    define(&["shortest-delay", "sed"], "fewest (active + 1) per ticket, as in LVS", |_| {
        Box::new(shortest_delay())
    }),
    define(&["never-queue", "nq"], "an idle provider first, else shortest-delay", |_| {
        Box::new(never_queue())
    }),
];

/// A scheduler that exists, by its name, or a program of the operator's
/// (`exec:COMMAND`), for which the default stands in while it is away.
#[derive(Clone)]
pub struct SchedulerName {
    definition: &'static SchedulerDef,
    command: Option<Arc<str>>,
}

impl PartialEq for SchedulerName {
    fn eq(&self, other: &Self) -> bool {
        self.definition.names == other.definition.names && self.command == other.command
    }
}

/// What names a program.
const EXEC: &str = "exec:";

impl SchedulerName {
    /// What is used where nothing is configured.
    pub const DEFAULT: SchedulerName = SchedulerName { definition: &SCHEDULERS[0], command: None };

    /// The program to ask, where it is one.
    pub fn command(&self) -> Option<&Arc<str>> {
        self.command.as_ref()
    }

    /// Whether its choice depends on the client, as far as is known: a program may
    /// look at it.
    pub fn uses_client(&self) -> bool {
        self.command.is_some() || self.definition.uses_client
    }

    /// A fresh scheduler of this kind; for a program, the one that stands in.
    /// Two of the same seed choose alike.
    pub fn make(&self, seed: u64) -> Box<dyn Scheduler> {
        (self.definition.make)(seed)
    }
}

impl FromStr for SchedulerName {
    type Err = String;

    fn from_str(text: &str) -> Result<SchedulerName, String> {
        if let Some(command) = text.strip_prefix(EXEC).filter(|command| !command.trim().is_empty())
        {
            return Ok(SchedulerName {
                command: Some(command.trim().into()),
                ..SchedulerName::DEFAULT
            });
        }
        let known = definitions().find(|entry| entry.names.contains(&text));
        known.map(|entry| SchedulerName { definition: entry, command: None }).ok_or_else(|| {
            let names: Vec<_> = definitions().map(|entry| entry.names[0]).collect();
            format!("no such scheduler ({}, exec:COMMAND)", names.join(", "))
        })
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "{EXEC}{command}"),
            None => f.write_str(self.definition.names[0]),
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
        for (entry, name) in
            SCHEDULERS.iter().flat_map(|entry| entry.names.iter().map(move |name| (entry, name)))
        {
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
