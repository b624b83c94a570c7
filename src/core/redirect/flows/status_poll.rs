//! Finds providers that withdraw while flows use them.
//!
//! The queue sends no events by itself. While there are flows, its status is requested
//! now and then. Owns when that happens and what the reply means for flows.

use super::{Flows, Output};
use crate::base::address::Provider;
use crate::base::key_value;
use crate::base::outcome::Outcome;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::protocol::message::{ErrorCode, Request};
use std::collections::HashSet;

/// Time between requests. Shorter flows cause none.
const POLL_INTERVAL: Span = Span::from_secs(1);

/// When to request the status.
#[derive(Debug, Default)]
pub struct StatusPoller {
    /// The next time, if there may be a flow that it concerns.
    next: Option<Moment>,
    /// Replies that are still to come.
    owed: usize,
    /// The queue denied a request on this connection, and that was logged.
    denied: bool,
    told: bool,
}

impl StatusPoller {
    /// A flow has got a provider.
    pub fn request_poll(&mut self, now: Moment) {
        if !self.denied {
            self.next.get_or_insert(now + POLL_INTERVAL);
        }
    }

    /// When [`Flows::poll_status`] must be called.
    pub fn deadline(&self) -> Option<Moment> {
        self.next
    }

    /// The connection is new: status may be allowed on it, and no reply is due.
    pub fn connected(&mut self, now: Moment) {
        *self = StatusPoller {
            next: Some(now + POLL_INTERVAL),
            told: self.told,
            ..StatusPoller::default()
        };
    }
}

impl Flows {
    /// Requests the status of the services of all flows, if it is time.
    pub(super) fn poll_status(&mut self, now: Moment) {
        if self.watch.next.is_none_or(|next| now < next) {
            return;
        }
        let mut led = self.flows.iter().filter(|(_, flow)| flow.open).peekable();
        self.watch.next = led.peek().is_some().then_some(now + POLL_INTERVAL);
        if self.watch.owed == 0 {
            let old = led.filter(|(_, flow)| now.since(flow.opened) >= POLL_INTERVAL);
            let mut services: Vec<ServiceName> = old.map(|(_, flow)| flow.service).collect();
            // In the order of their names, so that the same story always ends the same
            // way.
            services.sort_unstable();
            services.dedup();
            self.watch.owed = services.len();
            let questions =
                services.into_iter().map(|service| Request::Status { service: Some(service) });
            self.outputs.extend(questions.map(Output::SendToQueue));
        }
    }

    /// Handles the status of a service: ends the flows whose provider offered, on this
    /// connection, and offers no more. Where no provider offers, all are full or cut off
    /// from the queue, and the flows stay. A transfer that goes on at another port stays
    /// too: no other provider could continue it.
    pub(super) fn status(&mut self, lines: &str, now: Moment) {
        self.watch.owed = self.watch.owed.saturating_sub(1);
        let offers: HashSet<(ServiceName, Provider)> = lines.lines().filter_map(offer).collect();
        let services: HashSet<ServiceName> = offers.iter().map(|(service, _)| *service).collect();
        let mut left: Vec<Key> = Vec::new();
        for key in self.flows.keys() {
            let Some(flow) = self
                .flows
                .get_mut(key)
                .filter(|flow| flow.open && services.contains(&flow.service))
            else {
                continue;
            };
            match self.redirector.granted(key) {
                Some(provider) if offers.contains(&(flow.service, provider)) => flow.offered = true,
                Some(_) if flow.offered && !flow.port_changed() => left.push(key),
                _ => {}
            }
        }
        left.into_iter().for_each(|key| self.finish(key, Outcome::Withdrawn, now));
    }

    /// The queue rejected a message. Once status is denied, none is requested on this
    /// connection.
    pub(super) fn status_denied(&mut self, code: ErrorCode) {
        if self.watch.owed == 0 {
            return;
        }
        self.watch.owed -= 1;
        if code == ErrorCode::Denied {
            (self.watch.denied, self.watch.next) = (true, None);
            if !std::mem::replace(&mut self.watch.told, true) {
                self.outputs.push_back(Output::StatusDenied);
            }
        }
    }

    /// The next status may come from a queue that has just started and does not know its
    /// providers yet.
    pub(super) fn forget_offers(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.offered = false);
    }
}

/// Parses a status line; returns the provider, if it offers any capacity.
fn offer(line: &str) -> Option<(ServiceName, Provider)> {
    if !line.starts_with("provider ") || key_value::find(line, "capacity") == Some("0") {
        return None;
    }
    Some((
        key_value::find(line, "service")?.parse().ok()?,
        key_value::find(line, "address")?.parse().ok()?,
    ))
}
