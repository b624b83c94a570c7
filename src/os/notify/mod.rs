//! Reports to the service manager what this process does.
//!
//! # Required items
//!
//! A back end supplies what does nothing unless a manager asked for it:
//!
//! - `fn ready()`: reports that this process serves, with the configuration that it read;
//! - `fn reloading()`: reports that it reads its configuration; `ready` ends that;
//! - `fn stopping()`: reports that it is about to end;
//! - `fn alive()`: reports that it still works;
//! - `fn watchdog_interval()`: how often the manager wants to hear that, if at all.

#[cfg_attr(unix, path = "systemd.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
pub use backend::{alive, ready, reloading, stopping, watchdog_interval};
