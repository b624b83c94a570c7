//! Providers that cannot be reached from this host although nothing is wrong with them.
//!
//! Owns which errors mean that, and how often they are logged.

use crate::os::socket::{has_address_for, is_port_exhausted};
use log::error;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::time::{Moment, Span};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

/// How often such errors are logged.
const LOG_INTERVAL: Span = Span::from_secs(60);

/// Whether this host is to blame for an error to connect: no local port is left towards
/// this address, or a local firewall or policy forbids it. A host that has no address of
/// that family at all can never reach it, which is the same as a dead provider.
pub fn is_blocked(error: &io::Error, to: SocketAddr) -> bool {
    is_forbidden(error) || (is_port_exhausted(error) && has_address_for(to))
}

/// Whether a local firewall or policy forbids to send there.
pub fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Logs such errors, a line a minute.
#[derive(Default)]
pub struct BlockedLog(LogThrottle);

impl BlockedLog {
    /// Logs that a provider was passed over.
    pub fn log(&mut self, to: SocketAddr, why: &dyn Display, now: Moment) {
        if let Some(count) = self.0.allow(now, LOG_INTERVAL) {
            error!(
                target: "redirect",
                "provider {to} cannot be reached from this host: {why}; \
                 attempts since the last report: {count}"
            );
        }
    }
}
