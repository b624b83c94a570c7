//! A system without such a service manager.

/// No manager to report to.
pub fn ready() {}
