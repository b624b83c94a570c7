//! How busy are the CPUs, and how many tasks wait for one?

#[cfg(pegasus_cpu = "procfs")]
mod procfs;
#[cfg(pegasus_cpu = "procfs")]
pub use procfs::{runnable, times};

#[cfg(pegasus_cpu = "windows")]
mod windows;
#[cfg(pegasus_cpu = "windows")]
pub use windows::{runnable, times};

#[cfg(pegasus_cpu = "none")]
mod none;
#[cfg(pegasus_cpu = "none")]
pub use none::{runnable, times};

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
