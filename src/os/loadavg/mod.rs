//! The load average, as `getloadavg(3)` returns it.
//!
//! `build.rs` names the mechanism of each target. On Linux the tests compile the others too.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn averages() -> Option<[f64; 3]>`: of the last 1, 5 and 15 minutes.

#[cfg(pegasus_load = "getloadavg")]
mod getloadavg;
#[cfg(pegasus_load = "getloadavg")]
pub use getloadavg::averages;

#[cfg(any(pegasus_load = "procfs", all(test, target_os = "linux")))]
mod procfs;
#[cfg(pegasus_load = "procfs")]
pub use procfs::averages;

#[cfg(any(pegasus_load = "sysinfo", all(test, target_os = "linux")))]
mod sysinfo;
#[cfg(pegasus_load = "sysinfo")]
pub use sysinfo::averages;

#[cfg(any(pegasus_load = "sampled", all(test, target_os = "linux")))]
mod sampled;
#[cfg(pegasus_load = "sampled")]
pub use sampled::averages;

#[cfg(pegasus_load = "none")]
mod none;
#[cfg(pegasus_load = "none")]
pub use none::averages;

/// The mechanism in this binary.
pub const MECHANISM: &str = env!("PEGASUS_LOAD");
