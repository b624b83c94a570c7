//! When to ask the queue for its status, and what the answer offers.
//!
//! The queue tells a redirector nothing by itself. While flows last, it is asked
//! now and then what it holds of their services. Knows no flow.

use crate::base::address::Provider;
use crate::base::key_value;
use crate::base::service_name::ServiceName;
use crate::base::time::{Moment, Span};
use crate::protocol::message::ErrorCode;
use std::collections::HashSet;

/// How often the queue is asked. A flow that does not last so long asks nothing.
pub const POLL_INTERVAL: Span = Span::from_secs(1);

/// When to request the status.
#[derive(Debug, Default)]
pub struct StatusPoller {
    /// The next time, if there may be a flow that it concerns.
    next: Option<Moment>,
    /// Replies that are still to come.
    owed: usize,
    /// The queue refused, on this connection.
    denied: bool,
    /// The operator knows that the queue refused.
    reported: bool,
}

impl StatusPoller {
    /// A flow has got a provider.
    pub fn request_poll(&mut self, now: Moment) {
        if !self.denied {
            self.next.get_or_insert(now + POLL_INTERVAL);
        }
    }

    /// When [`is_due`](StatusPoller::is_due).
    pub fn deadline(&self) -> Option<Moment> {
        self.next
    }

    /// Whether it is time to look for flows that a status concerns.
    pub fn is_due(&self, now: Moment) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    /// Sets the next time: never without a flow that has a provider.
    pub fn schedule(&mut self, any_open: bool, now: Moment) {
        self.next = any_open.then_some(now + POLL_INTERVAL);
    }

    /// The services to ask about; none while answers are still to come. Each is asked
    /// once, in the order of their names, so that a replayed story ends the same way.
    pub fn poll_services(
        &mut self,
        services: impl Iterator<Item = ServiceName>,
    ) -> Vec<ServiceName> {
        if self.owed > 0 {
            return Vec::new();
        }
        let mut services: Vec<ServiceName> = services.collect();
        services.sort_unstable();
        services.dedup();
        self.owed = services.len();
        services
    }

    /// The queue answered.
    pub fn on_status(&mut self) {
        self.owed = self.owed.saturating_sub(1);
    }

    /// The queue answered a question without an id with an error. If it denies its
    /// status, it is not asked again on this connection. Whether the operator is to be
    /// informed of that, which is once.
    pub fn on_error(&mut self, code: ErrorCode) -> bool {
        if self.owed == 0 {
            return false;
        }
        self.owed -= 1;
        if code != ErrorCode::Denied {
            return false;
        }
        self.denied = true;
        self.next = None;
        !std::mem::replace(&mut self.reported, true)
    }

    /// Another connection: it may allow more, and owes nothing yet.
    pub fn connected(&mut self, now: Moment) {
        *self = StatusPoller {
            next: Some(now + POLL_INTERVAL),
            reported: self.reported,
            ..StatusPoller::default()
        };
    }
}

/// The providers that a status offers, of each service.
pub fn offers(lines: &str) -> HashSet<(ServiceName, Provider)> {
    lines.lines().filter_map(offer).collect()
}

/// The provider that a line of a status offers, if it does.
fn offer(line: &str) -> Option<(ServiceName, Provider)> {
    if !line.starts_with("provider ") || key_value::find(line, "capacity") == Some("0") {
        return None;
    }
    Some((
        key_value::find(line, "service")?.parse().ok()?,
        key_value::find(line, "address")?.parse().ok()?,
    ))
}
