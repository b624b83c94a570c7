//! How many CPUs this process may use.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn cpus() -> f64`: CPUs that this process may use, above 0. A quota may be a fraction.
//! - `fn used() -> Option<f64>`: CPU time in seconds that its group used of a quota, or `None`
//!   where there is no quota.

#[cfg_attr(pegasus_linux, path = "cgroup.rs")]
#[cfg_attr(not(pegasus_linux), path = "parallelism.rs")]
mod backend;
pub use backend::{cpus, used};

/// Threads that can make use of these CPUs, at least 1: a fraction counts as one.
pub fn threads() -> usize {
    cpus().ceil() as usize
}
