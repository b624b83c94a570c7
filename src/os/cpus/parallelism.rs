//! `std::thread::available_parallelism`.

/// CPUs that this process may use, at least 1.
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

/// No quotas are known here.
pub fn used() -> Option<f64> {
    None
}
