//! Asking a program of the operator's who serves next.
//!
//! Owns the dialogue: what the program is told and asked, and what its answers
//! are worth. The request waits in the wait queue meanwhile, marked, for
//! at most the plug-in's time; then the default scheduler decides. Starts no
//! program: lines are outputs, answers inputs.
//!
//! ```text
//! ticket provider=10.0.0.7:80 tickets=4 capacity=16 service=web
//! failed provider=10.0.0.7:80 service=web
//! next id=5 service=web client=192.0.2.1 candidates=10.0.0.7:80,10.0.0.8:80 (on one line)
//!     tickets=4,4 capacity=16,16 active=1,0
//! ```
//!
//! The last is a question; the answer is `id=5 provider=10.0.0.8:80`.

use super::grants::avoid;
use super::{Output, PendingNext, ProviderEvent, ServiceState, TicketQueue, Timer};
use crate::base::key_value;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{ErrorCode, ProtocolError};
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
            self.push_service(key, &mut line);
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
            self.push_service(key, &mut line);
            self.send_to_plugin(key, line);
        }
    }

    /// One program may schedule for several services.
    fn push_service(&self, key: Key, line: &mut String) {
        if let Some(state) = self.services.get(key) {
            key_value::push(line, "service", state.name);
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
        let number = self.questions_asked;
        self.questions_asked += 1;
        pending.question = Some(number);
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
        // One that does not want to wait still does for the advice.
        let deadline = if wait.is_zero() { late } else { now + wait };
        let position = self.enqueue(key, pending, deadline, now);
        self.questions.insert(number, (key, position));
        self.timers.schedule(late, Timer::PluginTimeout { service: key, position });
        self.timers.schedule(deadline, Timer::WaitTimeout { service: key, position });
        line.insert_str("next".len(), &format!(" id={number}"));
        self.send_to_plugin(key, line);
    }

    /// The program said something.
    pub(super) fn plugin_replied(&mut self, service: ServiceName, line: &str, now: Moment) {
        let Some(asked) = self.by_name.get(&service).copied() else { return };
        let number: Option<u64> = key_value::find(line, "id").and_then(|id| id.parse().ok());
        let provider = key_value::find(line, "provider").and_then(|provider| provider.parse().ok());
        let (Some(number), Some(provider)) = (number, provider) else {
            return self.fail_plugin(asked, "it says what is no answer", now);
        };
        let Some((key, position)) = self.questions.get(&number).copied() else {
            // Too late, or the connection is gone.
            return;
        };
        let command = |key: Key| {
            let plugin = self.services.get(key)?.plugin.as_ref();
            plugin.map(|(command, _)| command.clone())
        };
        if command(key) != command(asked) {
            return;
        }
        let Some(state) = self.services.get_mut(key) else { return };
        if !state.pool.contains(provider) {
            return self.fail_plugin(key, "it names providers that do not exist", now);
        }
        let service = state.name;
        self.outputs.push_back(Output::PluginOk { service });
        let ServiceState { pool, waiting, .. } = state;
        let Some(next) = waiting.get(position).map(|waiter| &waiter.request.next) else { return };
        let granted = if next.avoid.contains(&provider) {
            None
        } else {
            pool.grant_at(provider, next.id.is_some(), now)
        };
        match granted {
            Some((provider, grant)) => {
                if let Some(waiter) = self.dequeue(key, position) {
                    self.granted(key, &waiter.request, provider, grant, now);
                }
            }
            // It was a candidate when the question was asked: no fault of the program.
            None => self.decide_without_plugin(key, position, now),
        }
    }

    /// The time of a waiting request is over. One for which a program is still asked is
    /// decided now.
    pub(super) fn wait_timed_out(&mut self, key: Key, position: u64, now: Moment) {
        let waiter = self.services.get(key).and_then(|state| state.waiting.get(position));
        match waiter.map(|waiter| waiter.request.question) {
            Some(Some(_)) => self.decide_without_plugin(key, position, now),
            _ => self.reject(key, position, ErrorCode::NoTicket),
        }
    }

    pub(super) fn plugin_timed_out(&mut self, key: Key, position: u64, now: Moment) {
        let consulting = self
            .services
            .get(key)
            .and_then(|state| state.waiting.get(position))
            .is_some_and(|waiter| waiter.request.question.is_some());
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
            .filter(|(_, waiter)| waiter.request.question.is_some())
            .map(|(position, _)| position)
            .collect();
        if !up {
            asked.into_iter().for_each(|position| self.decide_without_plugin(key, position, now));
        }
    }

    /// Lets the default scheduler decide; a request that still may wait keeps its place.
    fn decide_without_plugin(&mut self, key: Key, position: u64, now: Moment) {
        let waiter = self.services.get(key).and_then(|state| state.waiting.get(position));
        let Some(connection) = waiter.map(|waiter| waiter.request.connection) else { return };
        let peer = self.peer(connection);
        let Some(state) = self.services.get_mut(key) else { return };
        let Some(waiter) = state.waiting.get_mut(position) else { return };
        if let Some(question) = waiter.request.question.take() {
            self.questions.remove(&question);
        }
        let wait = waiter.request.next.wait.min(self.options.wait_max);
        let (patient, is_over) = (now < waiter.half_time(), now >= waiter.since + wait);
        let next = &waiter.request.next;
        let counted = next.id.is_some();
        let avoid = avoid(&state.pool, next, peer, now).0.into_owned();
        if state.pool.has_candidate(counted, patient && !is_over, &avoid, now) {
            let Some(waiter) = self.dequeue(key, position) else { return };
            if !self.try_grant(key, &waiter.request, patient && !is_over, now) {
                self.refuse(&waiter.request, ProtocolError::new(ErrorCode::NoTicket, ""));
            }
        } else if is_over {
            self.reject(key, position, ErrorCode::NoTicket);
        } else {
            self.watch_newcomer(key, position, now);
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
