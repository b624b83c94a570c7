//! The subcommands: they run the state machines on the event loop.

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(not(feature = "admin"))]
#[path = "admin/none.rs"]
pub mod admin;
pub mod bounds;
#[cfg(feature = "operate")]
pub mod check;
pub mod cli;
pub mod daemon;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(feature = "export")]
pub mod export;
pub mod help;
pub mod key;
#[cfg(feature = "monitor")]
pub mod monitor;
#[cfg(feature = "monitor")]
mod names;
#[cfg(feature = "operate")]
pub mod operate;
mod options;
pub mod own_offers;
pub mod plugins;
#[cfg(feature = "queue")]
pub mod queue;
#[cfg(not(feature = "queue"))]
#[path = "queue/none.rs"]
pub mod queue;
#[cfg(feature = "redirect")]
pub mod redirect;
pub mod send;
#[cfg(any(feature = "operate", feature = "admin"))]
pub mod status_report;
pub mod terminal;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Returns a seed that differs between processes, for random choices.
pub fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Exit status, as in sysexits(3).
pub mod exit {
    /// Success.
    pub const OK: i32 = 0;
    /// A reply was an error.
    pub const ANSWER: i32 = 1;
    /// Wrong usage.
    pub const USAGE: i32 = 64;
    /// A peer or the queue cannot be reached.
    pub const UNAVAILABLE: i32 = 69;
    /// The system refused: an address in use, no descriptors.
    pub const SYSTEM: i32 = 71;
    /// What was to be printed could not be written.
    pub const OUTPUT: i32 = 74;
    /// No permission.
    pub const PERMISSION: i32 = 77;
    /// The configuration is wrong.
    pub const CONFIG: i32 = 78;

    /// Returns the exit status for an OS error.
    pub fn of(error: &std::io::Error) -> i32 {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            PERMISSION
        } else {
            SYSTEM
        }
    }

    /// Returns the exit status for the result of an event loop; logs an error under `name`.
    pub fn after(name: &'static str, result: std::io::Result<()>) -> i32 {
        result.map_or_else(
            |error| {
                log::error!(target: name, "{error}");
                SYSTEM
            },
            |()| OK,
        )
    }
}
