//! What is the load average? The shim `getloadavg`; `build.rs` names the
//! mechanism of the target. The others are compiled for the tests where the
//! system has them.

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

#[cfg(any(target_os = "linux", target_os = "android"))]
mod share;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use share::cpus;

/// CPUs that this process may use, at least 1.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

/// Threads that can make use of these CPUs, at least 1: a fraction counts as one.
pub fn threads() -> usize {
    cpus().ceil() as usize
}
