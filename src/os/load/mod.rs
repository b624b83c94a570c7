//! What is the load average? The shim `getloadavg`; `build.rs` names the
//! mechanism of the target.

#[cfg(pegasus_load = "getloadavg")]
mod getloadavg;
#[cfg(pegasus_load = "getloadavg")]
pub use getloadavg::averages;

#[cfg(pegasus_load = "procfs")]
mod procfs;
#[cfg(pegasus_load = "procfs")]
pub use procfs::averages;

#[cfg(pegasus_load = "none")]
mod none;
#[cfg(pegasus_load = "none")]
pub use none::averages;

/// The mechanism in this binary.
pub const MECHANISM: &str = env!("PEGASUS_LOAD");

/// CPUs that this process may use, at least 1 (affinity and quota respected).
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}
