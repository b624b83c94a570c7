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

use super::{Ask, Event, Output, Room, TicketQueue, Timer};
use crate::base::address::Provider;
use crate::base::name::Service;
use crate::base::pairs;
use crate::base::slab::Key;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::queue::waiting::Waiter;
use crate::schedule::scheduler::Record;
use crate::wire::message::Reason;
use std::fmt::Display;

/// Candidates that a question names, the longest ago granted first.
const CANDIDATES_MAX: usize = 64;

impl TicketQueue {
    fn tell(&mut self, room: Key, line: String) {
        if let Some(room) = self.rooms.get(room).filter(|room| room.can_consult()) {
            self.outputs.push_back(Output::Tell { service: room.name, line });
        }
    }

    pub(super) fn tell_offer(&mut self, room: Key, offer: &Offer) {
        if self.rooms.get(room).is_some_and(Room::can_consult) {
            let mut line = String::from("ticket");
            pairs::push(&mut line, "provider", offer.provider);
            pairs::push(&mut line, "tickets", offer.tickets);
            pairs::push(&mut line, "capacity", offer.capacity);
            self.tell(room, line);
        }
    }

    pub(super) fn tell_event(&mut self, service: Service, provider: Provider, event: Event) {
        if let Some(room) = self.by_name.get(service).copied().filter(|_| event != Event::Registered) {
            let mut line = String::from(event.word());
            pairs::push(&mut line, "provider", provider);
            self.tell(room, line);
        }
    }

    /// Whether there is a program to ask, and something to choose.
    pub(super) fn worth_asking(&mut self, key: Key, ask: &Ask, now: Moment) -> bool {
        let counted = ask.next.id.is_some();
        let room = self.rooms.get_mut(key).filter(|room| room.can_consult());
        room.is_some_and(|room| room.book.candidates(counted, &ask.next.avoid, now).len() > 1)
    }

    /// Lets a request wait in the line while the program is asked.
    pub(super) fn consult(&mut self, key: Key, mut ask: Ask, wait: Span, now: Moment) {
        ask.consulting = true;
        let mut line = {
            let Some(room) = self.rooms.get_mut(key) else { return };
            question(&ask, &room.book.candidates(ask.next.id.is_some(), &ask.next.avoid, now))
        };
        let late = now + self.options.plugin_timeout;
        let place = self.join(key, ask, late.max(now + wait), now);
        self.timers.set(late, Timer::Advised { room: key, place });
        line.insert_str("next".len(), &format!(" id={place}"));
        self.tell(key, line);
    }

    /// The program said something.
    pub(super) fn advised(&mut self, service: Service, line: &str, now: Moment) {
        let Some(key) = self.by_name.get(service).copied() else { return };
        let place = pairs::find(line, "id").and_then(|id| id.parse().ok());
        let provider = pairs::find(line, "provider").and_then(|provider| provider.parse().ok());
        let (Some(place), Some(provider)) = (place, provider) else {
            return self.distrust(key, "it says what is no answer", now);
        };
        let Some(room) = self.rooms.get_mut(key) else { return };
        if !room.waiting.get(place).is_some_and(|waiter| waiter.what.consulting) {
            // Too late, or the asker is gone.
            return;
        }
        if !room.book.knows(provider) {
            return self.distrust(key, "it names providers that do not exist", now);
        }
        self.outputs.push_back(Output::Heeded { service });
        let Some(Waiter { since, deadline, what }) = self.leave(key, place) else { return };
        let next = &what.next;
        let granted = match self.rooms.get_mut(key) {
            Some(room) if !next.avoid.contains(&provider) => room.book.grant_at(provider, next.id.is_some(), now),
            _ => None,
        };
        match granted {
            Some((provider, grant)) => self.granted(key, &what, provider, grant, now),
            // It was a candidate when it was asked about: nobody's fault.
            None => self.decide(key, what, since, deadline, now),
        }
    }

    pub(super) fn advice_is_late(&mut self, key: Key, place: u64, now: Moment) {
        let consulting =
            self.rooms.get(key).and_then(|room| room.waiting.get(place)).is_some_and(|waiter| waiter.what.consulting);
        if consulting {
            self.distrust(key, "it takes longer than queue_plugin_timeout", now);
        }
    }

    /// The program is of no use now: all that it was asked is decided without it.
    fn distrust(&mut self, key: Key, why: &'static str, now: Moment) {
        let Some(service) = self.rooms.get(key).map(|room| room.name) else { return };
        self.outputs.push_back(Output::Restart { service, why });
        self.plugin_turned(service, false, now);
    }

    pub(super) fn plugin_turned(&mut self, service: Service, up: bool, now: Moment) {
        let Some(key) = self.by_name.get(service).copied() else { return };
        let Some(room) = self.rooms.get_mut(key) else { return };
        if let Some((_, can)) = &mut room.plugin {
            *can = up;
        }
        let asked: Vec<u64> =
            room.waiting.places().filter(|(_, waiter)| waiter.what.consulting).map(|(place, _)| place).collect();
        for place in asked.into_iter().filter(|_| !up) {
            if let Some(Waiter { since, deadline, what }) = self.leave(key, place) {
                self.decide(key, what, since, deadline, now);
            }
        }
    }

    /// Lets the default scheduler decide; a request that still may wait does.
    fn decide(&mut self, key: Key, mut ask: Ask, since: Moment, deadline: Moment, now: Moment) {
        ask.consulting = false;
        let wait = ask.next.wait.min(self.options.wait_max);
        let patient = now.since(since) < wait.part(2);
        if self.try_grant(key, &ask, patient, now) {
            return;
        }
        let place = self.join(key, ask, deadline, since);
        if wait.is_zero() || now >= since + wait {
            self.turn_away(key, place, Reason::NoTicket);
        }
    }
}

fn question(ask: &Ask, candidates: &[&Record]) -> String {
    let mut line = String::from("next");
    pairs::push(&mut line, "service", ask.next.service);
    if let Some(client) = ask.next.client {
        pairs::push(&mut line, "client", client);
    }
    let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
    pairs::push(&mut line, "candidates", list(candidates, |record| record.provider));
    pairs::push(&mut line, "tickets", list(candidates, |record| record.tickets));
    pairs::push(&mut line, "capacity", list(candidates, |record| record.capacity));
    pairs::push(&mut line, "active", list(candidates, |record| record.active));
    line
}

fn list<T: Display>(candidates: &[&Record], field: impl Fn(&Record) -> T) -> String {
    let words: Vec<String> = candidates.iter().map(|record| field(record).to_string()).collect();
    words.join(",")
}
