//! Asking a program of the operator's who serves next.
//!
//! Owns the dialogue: what the program is told and asked, and what its answers
//! are worth. Whoever is asked about waits in the line meanwhile, marked, for
//! at most the plug-in's time; then the default scheduler decides. Starts no
//! program: lines are outputs, answers inputs.
//!
//! ```text
//! ticket provider=10.0.0.7:80 tickets=4 capacity=16
//! failed provider=10.0.0.7:80
//! next id=5 service=web client=192.0.2.1 candidates=10.0.0.7:80,10.0.0.8:80 tickets=4,4 capacity=16,16 active=1,0
//! ```
//!
//! The last is a question; the answer is `id=5 provider=10.0.0.8:80`.

use super::{Output, PendingNext, ProviderEvent, ServiceState, TicketQueue, Timer};
use crate::base::address::Provider;
use crate::base::key_value;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::message::ErrorCode;
use crate::queue::wait_queue::Waiter;
use crate::scheduler::scheduler::ProviderStats;
use std::fmt::Display;

/// Candidates that a question names, the longest ago granted first.
const CANDIDATES_MAX: usize = 64;

impl TicketQueue {
    fn send_to_plugin(&mut self, room: Key, line: String) {
        if let Some(room) = self.services.get(room).filter(|room| room.plugin_ready()) {
            self.outputs.push_back(Output::PluginSend { service: room.name, line });
        }
    }

    pub(super) fn send_offer(&mut self, room: Key, offer: &Offer) {
        if self.services.get(room).is_some_and(ServiceState::plugin_ready) {
            let mut line = String::from("ticket");
            key_value::push(&mut line, "provider", offer.provider);
            key_value::push(&mut line, "tickets", offer.tickets);
            key_value::push(&mut line, "capacity", offer.capacity);
            self.send_to_plugin(room, line);
        }
    }

    pub(super) fn send_event(&mut self, service: ServiceName, provider: Provider, event: ProviderEvent) {
        if let Some(room) = self.by_name.get(service).copied().filter(|_| event != ProviderEvent::Registered) {
            let mut line = String::from(event.word());
            key_value::push(&mut line, "provider", provider);
            self.send_to_plugin(room, line);
        }
    }

    /// Whether there is a program to ask, and something to choose.
    pub(super) fn worth_asking_plugin(&mut self, key: Key, ask: &PendingNext, now: Moment) -> bool {
        let counted = ask.next.id.is_some();
        let room = self.services.get_mut(key).filter(|room| room.plugin_ready());
        room.is_some_and(|room| room.pool.candidates(counted, &ask.next.avoid, now).len() > 1)
    }

    /// Lets a request wait in the line while the program is asked.
    pub(super) fn ask_plugin(&mut self, key: Key, mut ask: PendingNext, wait: Span, now: Moment) {
        ask.asking_plugin = true;
        let mut line = {
            let Some(room) = self.services.get_mut(key) else { return };
            question(&ask, &room.pool.candidates(ask.next.id.is_some(), &ask.next.avoid, now))
        };
        let late = now + self.options.plugin_timeout;
        let place = self.enqueue(key, ask, late.max(now + wait), now);
        self.timers.schedule(late, Timer::PluginTimeout { room: key, place });
        line.insert_str("next".len(), &format!(" id={place}"));
        self.send_to_plugin(key, line);
    }

    /// The program said something.
    pub(super) fn plugin_replied(&mut self, service: ServiceName, line: &str, now: Moment) {
        let Some(key) = self.by_name.get(service).copied() else { return };
        let place = key_value::find(line, "id").and_then(|id| id.parse().ok());
        let provider = key_value::find(line, "provider").and_then(|provider| provider.parse().ok());
        let (Some(place), Some(provider)) = (place, provider) else {
            return self.fail_plugin(key, "it says what is no answer", now);
        };
        let Some(room) = self.services.get_mut(key) else { return };
        if !room.waiting.get(place).is_some_and(|waiter| waiter.request.asking_plugin) {
            // Too late, or the asker is gone.
            return;
        }
        if !room.pool.contains(provider) {
            return self.fail_plugin(key, "it names providers that do not exist", now);
        }
        self.outputs.push_back(Output::PluginOk { service });
        let Some(Waiter { since, deadline, request: what }) = self.dequeue(key, place) else { return };
        let next = &what.next;
        let granted = match self.services.get_mut(key) {
            Some(room) if !next.avoid.contains(&provider) => room.pool.grant_at(provider, next.id.is_some(), now),
            _ => None,
        };
        match granted {
            Some((provider, grant)) => self.granted(key, &what, provider, grant, now),
            // It was a candidate when it was asked about: nobody's fault.
            None => self.decide_without_plugin(key, what, since, deadline, now),
        }
    }

    pub(super) fn plugin_timed_out(&mut self, key: Key, place: u64, now: Moment) {
        let consulting = self
            .services
            .get(key)
            .and_then(|room| room.waiting.get(place))
            .is_some_and(|waiter| waiter.request.asking_plugin);
        if consulting {
            self.fail_plugin(key, "it takes longer than queue_plugin_timeout", now);
        }
    }

    /// The program is of no use now: all that it was asked is decided without it.
    fn fail_plugin(&mut self, key: Key, why: &'static str, now: Moment) {
        let Some(service) = self.services.get(key).map(|room| room.name) else { return };
        self.outputs.push_back(Output::RestartPlugin { service, why });
        self.set_plugin_up(service, false, now);
    }

    pub(super) fn set_plugin_up(&mut self, service: ServiceName, up: bool, now: Moment) {
        let Some(key) = self.by_name.get(service).copied() else { return };
        let Some(room) = self.services.get_mut(key) else { return };
        if let Some((_, can)) = &mut room.plugin {
            *can = up;
        }
        let asked: Vec<u64> = room
            .waiting
            .positions()
            .filter(|(_, waiter)| waiter.request.asking_plugin)
            .map(|(place, _)| place)
            .collect();
        for place in asked.into_iter().filter(|_| !up) {
            if let Some(Waiter { since, deadline, request: what }) = self.dequeue(key, place) {
                self.decide_without_plugin(key, what, since, deadline, now);
            }
        }
    }

    /// Lets the default scheduler decide; a request that still may wait does.
    fn decide_without_plugin(&mut self, key: Key, mut ask: PendingNext, since: Moment, deadline: Moment, now: Moment) {
        ask.asking_plugin = false;
        if self.try_grant(key, &ask, now) {
            return;
        }
        let wait = ask.next.wait.min(self.options.wait_max);
        let place = self.enqueue(key, ask, deadline, since);
        if wait.is_zero() || now >= since + wait {
            self.reject(key, place, ErrorCode::NoTicket);
        }
    }
}

fn question(ask: &PendingNext, candidates: &[&ProviderStats]) -> String {
    let mut line = String::from("next");
    key_value::push(&mut line, "service", ask.next.service);
    if let Some(client) = ask.next.client {
        key_value::push(&mut line, "client", client);
    }
    let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
    key_value::push(&mut line, "candidates", list(candidates, |record| record.provider));
    key_value::push(&mut line, "tickets", list(candidates, |record| record.tickets));
    key_value::push(&mut line, "capacity", list(candidates, |record| record.capacity));
    key_value::push(&mut line, "active", list(candidates, |record| record.active));
    line
}

fn list<T: Display>(candidates: &[&ProviderStats], field: impl Fn(&ProviderStats) -> T) -> String {
    let words: Vec<String> = candidates.iter().map(|record| field(record).to_string()).collect();
    words.join(",")
}
