//! Asking a program of the operator's who serves next.
//!
//! Owns the dialogue: what the program is told and asked, and what its answers
//! are worth. The request waits in the wait queue meanwhile, marked, for
//! at most the plug-in's time; then the default scheduler decides. Starts no
//! program: lines are outputs, answers inputs.
//!
//! ```text
//! ticket provider=10.0.0.7:80 tickets=4 capacity=16
//! failed provider=10.0.0.7:80
//! next id=5 service=web client=192.0.2.1 candidates=10.0.0.7:80,10.0.0.8:80 (on one line)
//!     tickets=4,4 capacity=16,16 active=1,0
//! ```
//!
//! The last is a question; the answer is `id=5 provider=10.0.0.8:80`.

use super::{Output, PendingNext, ProviderEvent, ServiceState, TicketQueue, Timer};
use crate::base::key_value;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::ErrorCode;
use crate::queue::wait_queue::Waiter;
use crate::scheduler::interface::ProviderStats;
use std::fmt::Display;

/// Candidates that a question names, the longest ago granted first.
const CANDIDATES_MAX: usize = 64;

impl TicketQueue {
    fn send_to_plugin(&mut self, key: Key, line: String) {
        if let Some(state) = self.services.get(key).filter(|state| state.plugin_ready()) {
            self.outputs.push_back(Output::PluginSend { service: state.name, line });
        }
    }

    pub(super) fn send_offer(&mut self, key: Key, offer: &Offer) {
        if self.services.get(key).is_some_and(ServiceState::plugin_ready) {
            let mut line = String::from("ticket");
            key_value::push(&mut line, "provider", offer.provider);
            key_value::push(&mut line, "tickets", offer.tickets);
            key_value::push(&mut line, "capacity", offer.capacity);
            self.send_to_plugin(key, line);
        }
    }

    pub(super) fn send_event(
        &mut self,
        service: ServiceName,
        provider: Provider,
        event: ProviderEvent,
    ) {
        if let Some(key) =
            self.by_name.get(&service).copied().filter(|_| event != ProviderEvent::Registered)
        {
            let mut line = String::from(event.word());
            key_value::push(&mut line, "provider", provider);
            self.send_to_plugin(key, line);
        }
    }

    /// Whether there is a program to ask, and something to choose.
    pub(super) fn worth_asking_plugin(
        &mut self,
        key: Key,
        pending: &PendingNext,
        now: Moment,
    ) -> bool {
        let counted = pending.next.id.is_some();
        let state = self.services.get_mut(key).filter(|state| state.plugin_ready());
        state.is_some_and(|state| state.pool.has_choice(counted, &pending.next.avoid, now))
    }

    /// Lets a request wait in the line while the program is asked.
    pub(super) fn ask_plugin(
        &mut self,
        key: Key,
        mut pending: PendingNext,
        wait: Span,
        now: Moment,
    ) {
        pending.asking_plugin = true;
        let mut line = {
            let Some(state) = self.services.get_mut(key) else { return };
            question(
                &pending,
                &state.pool.candidates(
                    pending.next.id.is_some(),
                    &pending.next.avoid,
                    CANDIDATES_MAX,
                    now,
                ),
            )
        };
        let late = now + self.options.plugin_timeout;
        let position = self.enqueue(key, pending, late.max(now + wait), now);
        self.timers.schedule(late, Timer::PluginTimeout { service: key, position });
        line.insert_str("next".len(), &format!(" id={position}"));
        self.send_to_plugin(key, line);
    }

    /// The program said something.
    pub(super) fn plugin_replied(&mut self, service: ServiceName, line: &str, now: Moment) {
        let Some(key) = self.by_name.get(&service).copied() else { return };
        let position = key_value::find(line, "id").and_then(|id| id.parse().ok());
        let provider = key_value::find(line, "provider").and_then(|provider| provider.parse().ok());
        let (Some(position), Some(provider)) = (position, provider) else {
            return self.fail_plugin(key, "it says what is no answer", now);
        };
        let Some(state) = self.services.get_mut(key) else { return };
        if !state.waiting.get(position).is_some_and(|waiter| waiter.request.asking_plugin) {
            // Too late, or the connection is gone.
            return;
        }
        if !state.pool.contains(provider) {
            return self.fail_plugin(key, "it names providers that do not exist", now);
        }
        self.outputs.push_back(Output::PluginOk { service });
        let Some(Waiter { since, deadline, request: what }) = self.dequeue(key, position) else {
            return;
        };
        let next = &what.next;
        let granted = match self.services.get_mut(key) {
            Some(state) if !next.avoid.contains(&provider) => {
                state.pool.grant_at(provider, next.id.is_some(), now)
            }
            _ => None,
        };
        match granted {
            Some((provider, grant)) => self.granted(key, &what, provider, grant, now),
            // It was a candidate when the question was asked: no fault of the program.
            None => self.decide_without_plugin(key, what, since, deadline, now),
        }
    }

    pub(super) fn plugin_timed_out(&mut self, key: Key, position: u64, now: Moment) {
        let consulting = self
            .services
            .get(key)
            .and_then(|state| state.waiting.get(position))
            .is_some_and(|waiter| waiter.request.asking_plugin);
        if consulting {
            self.fail_plugin(key, "it takes longer than queue_plugin_timeout", now);
        }
    }

    /// The program is of no use now: all that it was asked is decided without it.
    fn fail_plugin(&mut self, key: Key, why: &'static str, now: Moment) {
        let Some(service) = self.services.get(key).map(|state| state.name) else { return };
        self.outputs.push_back(Output::RestartPlugin { service, why });
        self.set_plugin_up(service, false, now);
    }

    pub(super) fn set_plugin_up(&mut self, service: ServiceName, up: bool, now: Moment) {
        let Some(key) = self.by_name.get(&service).copied() else { return };
        let Some(state) = self.services.get_mut(key) else { return };
        if let Some((_, can)) = &mut state.plugin {
            *can = up;
        }
        let asked: Vec<u64> = state
            .waiting
            .positions()
            .filter(|(_, waiter)| waiter.request.asking_plugin)
            .map(|(position, _)| position)
            .collect();
        for position in asked.into_iter().filter(|_| !up) {
            if let Some(Waiter { since, deadline, request: what }) = self.dequeue(key, position) {
                self.decide_without_plugin(key, what, since, deadline, now);
            }
        }
    }

    /// Lets the default scheduler decide; a request that still may wait does.
    fn decide_without_plugin(
        &mut self,
        key: Key,
        mut pending: PendingNext,
        since: Moment,
        deadline: Moment,
        now: Moment,
    ) {
        pending.asking_plugin = false;
        let wait = pending.next.wait.min(self.options.wait_max);
        let patient = now.since(since) < wait.part(2);
        if self.try_grant(key, &pending, patient, now) {
            return;
        }
        let position = self.enqueue(key, pending, deadline, since);
        if wait.is_zero() || now >= since + wait {
            self.reject(key, position, ErrorCode::NoTicket);
        }
    }
}

fn question(pending: &PendingNext, candidates: &[&ProviderStats]) -> String {
    let mut line = String::from("next");
    key_value::push(&mut line, "service", pending.next.service);
    if let Some(client) = pending.next.client {
        key_value::push(&mut line, "client", client);
    }
    key_value::push(&mut line, "candidates", list(candidates, |stats| stats.provider));
    key_value::push(&mut line, "tickets", list(candidates, |stats| stats.tickets));
    key_value::push(&mut line, "capacity", list(candidates, |stats| stats.capacity));
    key_value::push(&mut line, "active", list(candidates, |stats| stats.active));
    line
}

fn list<T: Display>(candidates: &[&ProviderStats], field: impl Fn(&ProviderStats) -> T) -> String {
    let words: Vec<String> = candidates.iter().map(|stats| field(stats).to_string()).collect();
    words.join(",")
}
