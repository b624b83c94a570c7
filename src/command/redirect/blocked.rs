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
use std::sync::{Arc, Mutex, PoisonError};

/// How often such errors are logged.
const LOG_INTERVAL: Span = Span::from_secs(60);

/// Why a provider that is a listener of this process is passed over.
pub const OWN_LISTENER: &str = "it is a listen address of this process";

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

/// Logs such errors, a line a minute; clones share the minute.
#[derive(Clone, Default)]
pub struct BlockedLog(Arc<Mutex<LogThrottle>>);

impl BlockedLog {
    /// Logs that a provider was passed over.
    pub fn log(&self, to: SocketAddr, why: &dyn Display, now: Moment) {
        let mut throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = throttle.allow(now, LOG_INTERVAL) {
            error!(
                target: "redirect",
                "provider {to} cannot be reached from this host: {why}; \
                 attempts since the last report: {count}"
            );
        }
    }
}
