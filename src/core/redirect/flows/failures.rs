//! Flows whose provider refuses datagrams, or cannot be reached.
//!
//! Owns when a provider is taken for dead, and what becomes of its flows. The
//! [`Redirector`](crate::redirect::redirector::Redirector) reports to the queue.

use super::interface::Output;
use super::{Flow, Flows};
use crate::base::outcome::Outcome;
use crate::base::slab::Key;
use crate::base::state_machine::StateMachine;
use crate::base::time::{Moment, Span};
use crate::redirect::redirector::{self, Failure};

/// An error of the network is believed so long after a datagram was sent.
const ERROR_WITHIN: Span = Span::from_secs(1);
/// Two datagrams that are refused within this time prove that a provider is dead. Hosts
/// send such errors once a second and not more often.
const REFUSED_WITHIN: Span = Span::from_secs(3);

impl Flows {
    /// A datagram of the flow was refused, as an error of the network says. At its
    /// provider's own port that may be the death of the provider, and of all flows that
    /// lead there. Such errors can be forged: the first one only makes the flow send a
    /// datagram again.
    pub(super) fn on_unreachable(&mut self, key: Key, now: Moment) {
        // A flow without a provider hears of the one that is known to be dead.
        let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.open) else { return };
        if now.since(flow.sent_at) >= ERROR_WITHIN {
            return;
        }
        if flow.port_changed() {
            return self.finish(key, Outcome::Complete, now);
        }
        let before = flow.refused_at.replace(now);
        if before.is_none_or(|before| now.since(before) >= REFUSED_WITHIN) {
            if flow.resend.fresh(now) {
                flow.sent_at = now;
                let first = flow.datagrams == 1;
                self.outputs.push_back(Output::Probe { flow: key, to: flow.to, first });
            }
            return;
        }
        let to = flow.to;
        let same = |other: &(Key, &Flow)| {
            other.0 != key && other.1.open && other.1.to == to && !other.1.port_changed()
        };
        let others: Vec<Key> = self.flows.iter().filter(same).map(|(key, _)| key).collect();
        self.lose_provider(key, true, now);
        others.into_iter().for_each(|other| self.lose_provider(other, false, now));
    }

    /// A flow's provider is dead. If the flow kept datagrams that the provider may not
    /// have received, it moves to another provider. Otherwise it ends, and the client's
    /// next datagram starts a new one.
    fn lose_provider(&mut self, key: Key, reports: bool, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (sent, received) = (flow.sent, flow.received);
        let fresh = flow.resend.fresh(now);
        if !fresh && reports {
            self.forget(key);
            let lost = redirector::Input::ProviderLost {
                client: key,
                why: Failure::Refused,
                sent,
                received,
            };
            return self.redirector.handle_input(lost, now);
        }
        if !fresh {
            return self.finish(key, Outcome::ProviderReset, now);
        }
        flow.open = false;
        self.outputs.push_back(Output::Drop { flow: key });
        self.fail(key, now);
    }

    /// A flow's datagrams may not leave this host. A flow that was answered stays: one
    /// lost datagram, as of a full connection tracking table, is no reason to move it.
    pub(super) fn on_blocked(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.replies == 0) else { return };
        if std::mem::take(&mut flow.open) {
            self.outputs.push_back(Output::Drop { flow: key });
        }
        if flow.adopted.is_some() {
            return self.fail(key, now);
        }
        self.redirector.handle_input(redirector::Input::ConnectBlocked { client: key }, now);
    }

    /// A flow moves to another provider, if there is one.
    pub(super) fn fail(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if let Some(port) = flow.adopted.take() {
            flow.open = false;
            return self.request_provider(key, port, now);
        }
        self.redirector.handle_input(
            redirector::Input::ConnectFailed { client: key, why: Failure::Refused },
            now,
        );
    }
}
