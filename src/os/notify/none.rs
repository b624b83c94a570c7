//! A system without such a service manager.

use std::time::Duration;

/// No manager to report to.
pub fn ready() {}

/// No manager to report to.
pub fn reloading() {}

/// No manager to report to.
pub fn stopping() {}

/// No manager to report to.
pub fn alive() {}

/// No manager that wants to hear.
pub fn watchdog_interval() -> Option<Duration> {
    None
}
