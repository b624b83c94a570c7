//! Flows whose provider offers nothing any more.
//!
//! Owns which flows end then. When the queue is asked is a matter of the
//! [`StatusPoller`](super::status_poll::StatusPoller).

use super::interface::Output;
use super::status_poll::{self, POLL_INTERVAL};
use super::Flows;
use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::protocol::request::Request;
use std::collections::HashSet;

impl Flows {
    /// Asks the queue about the services that flows are of, if it is time.
    pub(super) fn poll_status(&mut self, now: Moment) {
        if !self.watch.is_due(now) {
            return;
        }
        let open = || self.flows.iter().map(|(_, flow)| flow).filter(|flow| flow.open);
        self.watch.schedule(open().next().is_some(), now);
        let old = open().filter(|flow| now.since(flow.opened) >= POLL_INTERVAL);
        for service in self.watch.poll_services(old.map(|flow| flow.service)) {
            let request = Request::Status { service: Some(service), export: None };
            self.outputs.push_back(Output::SendToQueue(request));
        }
    }

    /// What the queue holds of a service: flows end whose provider offered, on
    /// this connection, and offers no more. Where no provider does, all are full, or
    /// their monitors cut off, and another one would do no better. A transfer that goes
    /// on at another port stays, too: no other provider could go on with it.
    pub(super) fn on_status(&mut self, lines: &str, now: Moment) {
        self.watch.on_status();
        let offers = status_poll::offers(lines);
        let services: HashSet<ServiceName> = offers.iter().map(|(service, _)| *service).collect();
        let mut withdrawn: Vec<Key> = Vec::new();
        for key in self.flows.keys() {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if !flow.open || !services.contains(&flow.service) {
                continue;
            }
            let to = flow.to;
            let leads_there = |(service, provider): &(ServiceName, Provider)| {
                *service == flow.service && provider.socket(to.port()) == to
            };
            let offered = match self.redirector.granted(key) {
                Some(provider) => offers.contains(&(flow.service, provider)),
                None if flow.adopted.is_some() => offers.iter().any(leads_there),
                None => continue,
            };
            if offered {
                flow.offered = true;
            } else if flow.offered && !flow.port_changed() {
                withdrawn.push(key);
            }
        }
        withdrawn.into_iter().for_each(|key| self.finish(key, Outcome::Withdrawn, now));
    }

    /// What the queue says next may be of one that has only just started, and
    /// has not heard of its providers yet.
    pub(super) fn forget_offers(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.offered = false);
    }
}
