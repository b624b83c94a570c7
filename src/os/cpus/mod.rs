//! How many CPUs may this process use?
//!
//! A system answers with [`cpus`].

#[cfg(any(target_os = "linux", target_os = "android"))]
mod cgroup;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use cgroup::cpus;

/// CPUs that this process may use, at least 1.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

/// Threads that can make use of these CPUs, at least 1: a fraction counts as one.
pub fn threads() -> usize {
    cpus().ceil() as usize
}
