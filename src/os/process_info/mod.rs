//! What this process uses: descriptors, memory, processor time.
//!
//! Required items of a back end: `read`, which fills in what the system tells.

#[cfg_attr(pegasus_linux, path = "procfs.rs")]
#[cfg_attr(not(pegasus_linux), path = "none.rs")]
mod mechanism;

/// What is known; each figure only where the system tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessInfo {
    /// Open descriptors.
    pub open_descriptors: Option<u64>,
    /// The most of them.
    pub descriptors_max: Option<u64>,
    /// Memory in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time of all threads so far, in milliseconds.
    pub cpu_millis: Option<u64>,
}

/// Reads it. It costs some system calls, and more with many descriptors.
pub fn read() -> ProcessInfo {
    ProcessInfo { descriptors_max: super::limits::raise(), ..mechanism::read() }
}
