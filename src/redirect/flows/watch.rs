//! Providers that leave while flows lead to them.
//!
//! The queue tells a redirector nothing by itself. While flows last, it is asked
//! now and then what it holds of their services. Owns when it is asked, and
//! what its answer means for flows.

use super::{Flows, Output};
use crate::base::address::Provider;
use crate::base::name::Service;
use crate::base::outcome::Outcome;
use crate::base::pairs;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::wire::message::{Reason, Reply};
use std::collections::{BTreeSet, HashSet};

/// How often the queue is asked. A flow that does not last so long asks nothing.
const LOOK_EVERY: Span = Span::from_secs(1);

/// When to ask the queue.
#[derive(Debug, Default)]
pub struct Watch {
    /// The next time, if there may be a flow that it concerns.
    next: Option<Moment>,
    /// Answers that are still to come.
    owed: usize,
    /// The queue refused, on this connection; the operator knows.
    denied: bool,
    told: bool,
}

impl Watch {
    /// There is a flow with a provider.
    pub fn wanted(&mut self, now: Moment) {
        if !self.denied {
            self.next.get_or_insert(now + LOOK_EVERY);
        }
    }

    /// When [`Flows::look`] must be called.
    pub fn deadline(&self) -> Option<Moment> {
        self.next
    }

    /// Another connection: it may know better, and owes nothing yet.
    pub fn connected(&mut self, now: Moment) {
        *self = Watch { next: Some(now + LOOK_EVERY), told: self.told, ..Watch::default() };
    }
}

impl Flows {
    /// Asks the queue about the services that flows are of, if it is time.
    pub(super) fn look(&mut self, now: Moment) {
        if self.watch.next.is_none_or(|next| now < next) {
            return;
        }
        let mut led = self.flows.iter().filter(|(_, flow)| flow.open).peekable();
        self.watch.next = led.peek().is_some().then_some(now + LOOK_EVERY);
        if self.watch.owed == 0 {
            let old = led.filter(|(_, flow)| now.since(flow.opened) >= LOOK_EVERY);
            let services: BTreeSet<Service> = old.map(|(_, flow)| flow.service).collect();
            self.watch.owed = services.len();
            self.outputs.extend(services.into_iter().map(Output::Look));
        }
    }

    /// What the queue holds of a service: flows end whose provider offered, on
    /// this connection, and offers no more while others do. A transfer that goes
    /// on at another port stays: nobody else could go on with it.
    pub(super) fn status(&mut self, service: Service, reply: Reply, now: Moment) {
        self.watch.owed = self.watch.owed.saturating_sub(1);
        let lines = match reply {
            Reply::Status(lines) => lines,
            Reply::Error { refusal, .. } if refusal.reason == Reason::Denied => {
                (self.watch.denied, self.watch.next) = (true, None);
                if !std::mem::replace(&mut self.watch.told, true) {
                    self.outputs.push_back(Output::Blind);
                }
                return;
            }
            _ => return,
        };
        let offering: HashSet<Provider> = lines.lines().filter_map(offers).collect();
        if offering.is_empty() {
            // Everybody is full, or their monitors are cut off: nobody would do better.
            return;
        }
        let mut left: Vec<Key> = Vec::new();
        for key in self.flows.keys() {
            let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.open && flow.service == service) else {
                continue;
            };
            match self.redirector.granted(key) {
                Some(provider) if offering.contains(&provider) => flow.offered = true,
                Some(_) if flow.offered && !flow.follows() => left.push(key),
                _ => {}
            }
        }
        left.into_iter().for_each(|key| self.finish(key, Outcome::Withdrawn, now));
    }

    /// What the queue says next may be of one that has only just started, and
    /// has not heard of its providers yet.
    pub(super) fn forget_offers(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.offered = false);
    }
}

/// The provider in a line of a status, if it offers any place.
fn offers(line: &str) -> Option<Provider> {
    let offers = line.starts_with("provider ") && pairs::find(line, "capacity") != Some("0");
    offers.then(|| pairs::find(line, "address")?.parse().ok()).flatten()
}
