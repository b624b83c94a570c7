//! Providers that leave while flows lead to them.
//!
//! The queue tells a redirector nothing by itself. While flows last, it is asked
//! now and then what it holds of their services. Owns when it is asked, and
//! what its answer means for flows.

use super::{Flows, Output};
use crate::base::key_value;
use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::ErrorCode;
use crate::protocol::request::Request;
use std::collections::HashSet;

/// How often the queue is asked. A flow that does not last so long asks nothing.
const POLL_INTERVAL: Span = Span::from_secs(1);

/// When to ask the queue.
#[derive(Debug, Default)]
pub struct StatusPoller {
    /// The next time, if there may be a flow that it concerns.
    next: Option<Moment>,
    /// Answers that are still to come.
    owed: usize,
    /// The queue refused, on this connection; the operator knows.
    denied: bool,
    told: bool,
}

impl StatusPoller {
    /// There is a flow with a provider.
    pub fn request_poll(&mut self, now: Moment) {
        if !self.denied {
            self.next.get_or_insert(now + POLL_INTERVAL);
        }
    }

    /// When [`Flows::look`] must be called.
    pub fn deadline(&self) -> Option<Moment> {
        self.next
    }

    /// Another connection: it may know better, and owes nothing yet.
    pub fn connected(&mut self, now: Moment) {
        *self = StatusPoller {
            next: Some(now + POLL_INTERVAL),
            told: self.told,
            ..StatusPoller::default()
        };
    }
}

impl Flows {
    /// Asks the queue about the services that flows are of, if it is time.
    pub(super) fn poll_status(&mut self, now: Moment) {
        if self.watch.next.is_none_or(|next| now < next) {
            return;
        }
        let mut led = self.flows.iter().filter(|(_, flow)| flow.open).peekable();
        self.watch.next = led.peek().is_some().then_some(now + POLL_INTERVAL);
        if self.watch.owed == 0 {
            let old = led.filter(|(_, flow)| now.since(flow.opened) >= POLL_INTERVAL);
            let mut services: Vec<ServiceName> = old.map(|(_, flow)| flow.service).collect();
            // In the order of their names, so that the same story always ends the same way.
            services.sort_unstable();
            services.dedup();
            self.watch.owed = services.len();
            let questions =
                services.into_iter().map(|service| Request::Status { service: Some(service) });
            self.outputs.extend(questions.map(Output::SendToQueue));
        }
    }

    /// What the queue holds of a service: flows end whose provider offered, on
    /// this connection, and offers no more. Where nobody does, all are full, or
    /// their monitors cut off, and nobody would do better. A transfer that goes on
    /// at another port stays, too: nobody else could go on with it.
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

    /// The queue did not do something. Whoever may not see its status asks no
    /// more on this connection.
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

    /// What the queue says next may be of one that has only just started, and
    /// has not heard of its providers yet.
    pub(super) fn forget_offers(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.offered = false);
    }
}

/// What a line of a status offers, if any place.
fn offer(line: &str) -> Option<(ServiceName, Provider)> {
    if !line.starts_with("provider ") || key_value::find(line, "capacity") == Some("0") {
        return None;
    }
    Some((
        key_value::find(line, "service")?.parse().ok()?,
        key_value::find(line, "address")?.parse().ok()?,
    ))
}
