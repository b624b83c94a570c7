//! PEGASUS: competitive load balancing.
//!
//! Providers compete for work. Each runs a *monitor* that measures its load and sends
//! *tickets* to any number of balancers. Each balancer keeps them in a *ticket queue*.
//! For each client a *redirector* asks the queue for the next provider and connects the
//! two.
//!
//! A program with a scheduler of your own is this library and a few lines:
//!
//! ```no_run
//! use pegasus::scheduler::SchedulerDef;
//! use pegasus::scheduler::interface::{Candidates, Placement, Scheduler};
//!
//! /// The fewest requests in progress, whatever the capacity.
//! struct Idlest;
//!
//! impl Scheduler for Idlest {
//!     fn choose(&mut self, candidates: &dyn Candidates, _: Placement) -> Option<usize> {
//!         let idlest = candidates.iter().min_by_key(|stats| (stats.active, stats.last_grant_seq));
//!         idlest.map(|stats| stats.slot)
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
//! Then `queue_scheduler=idlest` selects it.
//!
//! This crate is the program: `command` runs the state machines of `pegasus_core` on the
//! event loop of `net`, which stands on `os`; `config` has their options. Imports point
//! down only.

// A program with fewer commands leaves code below them unused.
#![cfg_attr(not(feature = "demo"), allow(dead_code, unused_imports))]

mod command;
mod config;
mod logging;
mod net;
mod os;
#[doc(inline)]
pub use pegasus_core::scheduler;

/// Runs the program with further schedulers; returns the exit status.
pub fn run(own: Vec<scheduler::SchedulerDef>) -> i32 {
    scheduler::add(own);
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let status = command::cli::main(&arguments);
    // The caller ends the process, and no check or plug-in outlives it.
    os::child::end_all();
    status
}
