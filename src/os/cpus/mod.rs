//! How many CPUs may this process use?
//!
//! A system answers with [`cpus`] and [`used`].

#[cfg(any(target_os = "linux", target_os = "android"))]
mod cgroup;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use cgroup::{cpus, used};

/// CPUs that this process may use, at least 1.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

/// CPU time that was used of a quota: none, as there are no quotas.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn used() -> Option<f64> {
    None
}

/// Threads that can make use of these CPUs, at least 1: a fraction counts as one.
pub fn threads() -> usize {
    cpus().ceil() as usize
}
