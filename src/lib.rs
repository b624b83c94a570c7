//! PEGASUS: competitive load balancing.
//!
//! Providers compete for work: each runs a *monitor* that watches its load and
//! sends *tickets* to any number of balancers; each balancer keeps a *ticket
//! queue*; for each client a *redirector* asks the queue for the next provider
//! and joins the two.
//!
//! A program with a scheduler of one's own is this library and a few lines:
//!
//! ```no_run
//! use pegasus::scheduler::SchedulerDef;
//! use pegasus::scheduler::interface::{Candidates, Placement, Scheduler};
//!
//! /// Nobody gets a second request before everybody has one.
//! struct Idlest;
//!
//! impl Scheduler for Idlest {
//!     fn choose(&mut self, candidates: &dyn Candidates, _: Placement) -> Option<usize> {
//!         candidates.iter().min_by_key(|stats| (stats.active, stats.last_grant_seq)).map(|stats| stats.slot)
//!     }
//! }
//!
//! fn main() {
//!     let idlest = SchedulerDef {
//!         names: &["idlest"],
//!         summary: "fewest active",
//!         uses_client: false,
//!         make: |_| Box::new(Idlest),
//!     };
//!     std::process::exit(pegasus::run(vec![idlest]));
//! }
//! ```
//!
//! Then `queue_scheduler=idlest` is a configuration like any other.
//!
//! This crate is the program: `command` runs the state machines of `pegasus_core`, as
//! `config` says, on the event loop of `net`, which stands on `os`. Imports point down
//! only.

// A program with fewer commands uses less of what stands below them.
#![cfg_attr(not(feature = "demo"), allow(dead_code, unused_imports))]

mod command;
mod config;
mod logging;
mod net;
mod os;
#[doc(inline)]
pub use pegasus_core::scheduler;

/// Runs the program with schedulers of one's own besides those of the table;
/// the result is its exit status.
pub fn run(own: Vec<scheduler::SchedulerDef>) -> i32 {
    scheduler::add(own);
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    command::cli::main(&arguments)
}
