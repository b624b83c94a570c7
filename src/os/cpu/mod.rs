//! CPU times of the host, and the tasks that wait for a CPU.
//!
//! `build.rs` names the mechanism of each target.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn times() -> Option<Times>`: CPU times since the host started.
//! - `fn runnable() -> Option<u32>`: tasks that run or wait for a CPU now, without this thread.

#[cfg_attr(pegasus_cpu = "procfs", path = "procfs.rs")]
#[cfg_attr(pegasus_cpu = "windows", path = "windows.rs")]
#[cfg_attr(pegasus_cpu = "none", path = "none.rs")]
mod backend;
pub use backend::{runnable, times};

/// The mechanism in this binary.
pub const MECHANISM: &str = env!("PEGASUS_CPU");

/// CPU time of the whole host since it started, in the system's ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Spent working.
    pub busy: u64,
    /// Spent working or idle.
    pub total: u64,
}

impl Times {
    /// The utilisation since an earlier reading, 0..=1; none if no tick passed.
    pub fn utilisation(&self, earlier: &Times) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        Some((self.busy.saturating_sub(earlier.busy) as f64 / total as f64).min(1.0))
    }
}
