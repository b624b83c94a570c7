//! A system without such a supervisor.

/// Nobody is told.
pub fn ready() {}
