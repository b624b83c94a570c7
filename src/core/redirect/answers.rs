//! The answerer: providers for those who are told where to go, and go there themselves:
//! questions for a name (DNS), requests that are redirected (HTTP).
//!
//! One ticket is spent for each answer: `next` without an id, as in the paper, since nobody
//! sees when a client is done. Owns which question waits for what. An answer with several
//! providers has the chosen one first; the others are from the queue's status, which is
//! asked when a question comes and what is known is older than `LIST_AGE_MAX`. Knows no
//! socket and no message of a client.

use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::state_machine::StateMachine;
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::reply::{ErrorCode, Reply};
use crate::protocol::request::{Next, Request, AVOID_MAX};
pub use interface::{Answer, AnswerOptions, Input, Output, Wanted, PROVIDERS_MAX};
use offers::{distinct, Offers};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// How old the list of a service's providers may be.
const LIST_AGE_MAX: Span = Span::from_millis(250);
/// How often a ticket is asked for while questions wait for one. What waits at the queue
/// without an id would hold up all answers behind its own.
const RETRY_INTERVAL: Span = Span::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum QueueStatus {
    /// It was not heard of yet.
    Unknown,
    Up,
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    AwaitsQueue,
    AwaitsList,
    /// The queue was asked for a ticket.
    Asked,
    /// There was none: it waits in its service's line.
    InLine,
}

#[derive(Debug)]
struct Question {
    service: ServiceName,
    client: IpAddr,
    wanted: Wanted,
    state: State,
    /// Until when it waits for a ticket.
    wait_until: Moment,
    /// Until when it waits for the queue.
    give_up: Moment,
}

/// What is known of a service.
#[derive(Debug, Default)]
struct Service {
    /// Its providers, and since when; none where the queue denies its status.
    offers: Option<Offers>,
    listed: Option<Moment>,
    list_asked: bool,
    fallback: Vec<Provider>,
    /// Whose turn it is of these.
    turn: usize,
    /// Questions for which there was no ticket; some may be over.
    line: VecDeque<Key>,
    /// The first of the line has asked again.
    line_asked: bool,
    retry: Option<Moment>,
}

/// What an answer of the queue is for.
#[derive(Debug)]
enum Pending {
    /// The list of a service's providers.
    List(ServiceName),
    /// A ticket.
    Ticket { service: ServiceName, question: Key },
}

/// Finds the providers that answer a question, as a state machine.
#[derive(Debug)]
pub struct Answerer {
    options: AnswerOptions,
    queue: QueueStatus,
    /// In the order of their keys, so that a replayed story ends the same way.
    questions: BTreeMap<Key, Question>,
    services: BTreeMap<ServiceName, Service>,
    /// What the queue was asked and has not answered.
    pending: VecDeque<Pending>,
    timers: TimerQueue<Key>,
    outputs: VecDeque<Output>,
}

impl StateMachine for Answerer {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Asked { question, service, client, wanted } => {
                self.asked(question, service, client, wanted, now);
            }
            Input::Forget { question } => drop(self.questions.remove(&question)),
            Input::QueueUp => self.queue_up(now),
            Input::QueueDown => self.queue_down(),
            Input::QueueAnswer(reply) => self.queue_answered(reply, now),
            Input::Fallback { service, addresses } => {
                self.service(service).fallback =
                    addresses.into_iter().map(Provider::from).collect();
            }
            Input::Reconfigure(options) => self.options = options,
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        while let Some(key) = self.timers.pop_due(now) {
            let Some(question) = self.questions.get(&key) else { continue };
            if question.state == State::InLine && now >= question.wait_until {
                self.refuse(key, Outcome::NoTicket);
            } else if now >= question.give_up {
                self.refuse(key, Outcome::QueueUnreachable);
            }
        }
        let due = |service: &Service| service.retry.is_some_and(|retry| now >= retry);
        let services = self.services.iter().filter(|(_, service)| due(service));
        for name in services.map(|(name, _)| *name).collect::<Vec<_>>() {
            self.service(name).retry = None;
            self.ask_for_line(name);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        let retries = self.services.values().filter_map(|service| service.retry);
        retries.chain(self.timers.next_deadline()).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

impl Answerer {
    /// One without a question, before the queue was heard of.
    pub fn new(options: AnswerOptions) -> Answerer {
        Answerer {
            options,
            queue: QueueStatus::Unknown,
            questions: BTreeMap::new(),
            services: BTreeMap::new(),
            pending: VecDeque::new(),
            timers: TimerQueue::default(),
            outputs: VecDeque::new(),
        }
    }

    /// How many questions wait.
    pub fn count(&self) -> usize {
        self.questions.len()
    }

    /// Whether it wants something done.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    fn service(&mut self, name: ServiceName) -> &mut Service {
        self.services.entry(name).or_default()
    }

    fn send(&mut self, request: Request, pending: Pending) {
        self.pending.push_back(pending);
        self.outputs.push_back(Output::SendToQueue(request));
    }

    fn set_state(&mut self, key: Key, state: State) {
        if let Some(question) = self.questions.get_mut(&key) {
            question.state = state;
        }
    }

    fn asked(
        &mut self,
        key: Key,
        service: ServiceName,
        client: IpAddr,
        wanted: Wanted,
        now: Moment,
    ) {
        let wait = self.options.wait.of(service);
        let wait_until = now + wait;
        let give_up = now + self.options.queue_timeout.max(wait);
        let state = State::AwaitsQueue;
        let question = Question { service, client, wanted, state, wait_until, give_up };
        self.questions.insert(key, question);
        for deadline in [wait_until, give_up] {
            self.timers.schedule(deadline, key);
        }
        let questions = &self.questions;
        self.timers.prune(|key| questions.contains_key(&key));
        match self.queue {
            QueueStatus::Up => self.start(key, now),
            QueueStatus::Down if self.has_fallback(key) => {
                self.refuse(key, Outcome::QueueUnreachable);
            }
            QueueStatus::Down | QueueStatus::Unknown => {}
        }
    }

    /// Asks the queue what this question needs first.
    fn start(&mut self, key: Key, now: Moment) {
        let Some(&Question { service: name, wanted, .. }) = self.questions.get(&key) else {
            return;
        };
        let service = self.service(name);
        let is_fresh = |at: Moment| now.since(at) < LIST_AGE_MAX;
        if wanted == Wanted::One {
            return self.ask_ticket(key, now);
        }
        if service.listed.is_some_and(is_fresh) {
            return self.on_list(key, now);
        }
        let first = !std::mem::replace(&mut service.list_asked, true);
        self.set_state(key, State::AwaitsList);
        if first {
            self.send(Request::Status { service: Some(name), export: None }, Pending::List(name));
        }
    }

    /// The list of the providers is here, as far as the queue gives one.
    fn on_list(&mut self, key: Key, now: Moment) {
        let Some(&Question { service: name, wanted, .. }) = self.questions.get(&key) else {
            return;
        };
        let offers = self.service(name).offers.as_ref();
        let found = offers.map(|offers| (offers.is_empty(), offers.any(wanted)));
        match (wanted, found) {
            (Wanted::Host(_), None) => self.refuse(key, Outcome::QueueRefused),
            (Wanted::Host(ip), Some((_, true))) => {
                self.answer(key, Answer::Providers(vec![Provider { ip, port: None }]));
            }
            (Wanted::Host(_), Some(_)) if self.has_fallback(key) => {
                self.refuse(key, Outcome::NoTicket);
            }
            (Wanted::Host(_), Some(_)) => self.answer(key, Answer::NoSuchHost),
            (_, Some((false, false))) => self.answer(key, Answer::OtherFamily),
            _ => self.ask_ticket(key, now),
        }
    }

    /// Asks the queue for a ticket; where others wait for one, behind them.
    fn ask_ticket(&mut self, key: Key, now: Moment) {
        let Some(&Question { service: name, wait_until, .. }) = self.questions.get(&key) else {
            return;
        };
        if now < wait_until && self.any_in_line(name) {
            self.service(name).line.push_back(key);
            return self.set_state(key, State::InLine);
        }
        self.send_next(key);
    }

    fn send_next(&mut self, key: Key) {
        let Some(&Question { service: name, wanted, client, .. }) = self.questions.get(&key) else {
            return;
        };
        // A ticket of a provider that cannot be in the answer would be lost.
        let offers = self.service(name).offers.as_ref();
        let avoid = offers.map(|offers| offers.others(wanted).take(AVOID_MAX).collect());
        let next = Next {
            service: name,
            wait: Span::ZERO,
            id: None,
            client: Some(client),
            avoid: avoid.unwrap_or_default(),
        };
        self.set_state(key, State::Asked);
        self.send(Request::Next(next), Pending::Ticket { service: name, question: key });
    }

    /// Whether a question waits in the line; those that are over leave it.
    fn any_in_line(&mut self, name: ServiceName) -> bool {
        let questions = &self.questions;
        let service = self.services.entry(name).or_default();
        while let Some(first) = service.line.front() {
            if questions.contains_key(first) {
                return true;
            }
            service.line.pop_front();
        }
        service.line_asked
    }

    /// The first of the line asks again.
    fn ask_for_line(&mut self, name: ServiceName) {
        if self.queue != QueueStatus::Up || !self.any_in_line(name) {
            return;
        }
        let service = self.service(name);
        if service.line_asked {
            return;
        }
        if let Some(key) = service.line.pop_front() {
            service.line_asked = true;
            self.send_next(key);
        }
    }

    fn queue_answered(&mut self, reply: Reply, now: Moment) {
        match self.pending.pop_front() {
            Some(Pending::List(name)) => self.listed(name, reply, now),
            Some(Pending::Ticket { service, question }) => {
                self.ticket_answered(service, question, reply, now);
            }
            None => {}
        }
    }

    fn listed(&mut self, name: ServiceName, reply: Reply, now: Moment) {
        let service = self.service(name);
        service.list_asked = false;
        service.listed = Some(now);
        service.offers = match reply {
            Reply::Status(lines) => Some(Offers::parse(&lines, name)),
            _ => None,
        };
        let waits =
            |question: &Question| question.service == name && question.state == State::AwaitsList;
        let waiting = self.questions.iter().filter(|(_, question)| waits(question));
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.on_list(key, now);
        }
    }

    fn ticket_answered(&mut self, name: ServiceName, key: Key, reply: Reply, now: Moment) {
        let was_first = std::mem::take(&mut self.service(name).line_asked);
        match reply {
            Reply::Provider { provider, .. } => {
                // The asker may be gone: the next one is served.
                let key = self.questions.contains_key(&key).then_some(key);
                let key = key.or_else(|| self.service(name).line.pop_front());
                if let Some(key) = key {
                    self.chosen(name, key, provider, now);
                }
                self.ask_for_line(name);
            }
            Reply::Error { error, .. } => match error.code {
                ErrorCode::NoTicket | ErrorCode::Crowded | ErrorCode::Draining => {
                    self.stand_in_line(name, key, was_first, now);
                }
                _ => {
                    self.refuse(key, Outcome::QueueRefused);
                    self.ask_for_line(name);
                }
            },
            _ => self.refuse(key, Outcome::QueueRefused),
        }
    }

    /// The queue chose a provider and gave one of its tickets away.
    fn chosen(&mut self, name: ServiceName, key: Key, provider: Provider, now: Moment) {
        let Some(wanted) = self.questions.get(&key).map(|question| question.wanted) else {
            return;
        };
        let service = self.service(name);
        let found = match &mut service.offers {
            Some(offers) => {
                offers.spend(provider);
                offers.behind(provider, wanted)
            }
            None => distinct([provider].into_iter(), wanted),
        };
        if !found.is_empty() {
            self.answer(key, Answer::Providers(found));
        } else if self.service(name).offers.is_none() {
            self.answer(key, Answer::OtherFamily);
        } else {
            self.stand_in_line(name, key, true, now);
        }
    }

    /// There is no ticket for this question: it waits, as long as it may.
    fn stand_in_line(&mut self, name: ServiceName, key: Key, first: bool, now: Moment) {
        let Some(question) = self.questions.get(&key) else {
            return self.retry_later(name, now);
        };
        if now >= question.wait_until {
            self.refuse(key, Outcome::NoTicket);
            return self.retry_later(name, now);
        }
        self.set_state(key, State::InLine);
        let line = &mut self.service(name).line;
        if first {
            line.push_front(key);
        } else {
            line.push_back(key);
        }
        self.retry_later(name, now);
    }

    fn retry_later(&mut self, name: ServiceName, now: Moment) {
        if self.any_in_line(name) {
            self.service(name).retry.get_or_insert(now + RETRY_INTERVAL);
        }
    }

    fn queue_up(&mut self, now: Moment) {
        self.forget_queue(QueueStatus::Up);
        for key in self.questions.keys().copied().collect::<Vec<_>>() {
            self.start(key, now);
        }
    }

    fn queue_down(&mut self) {
        self.forget_queue(QueueStatus::Down);
        for key in self.questions.keys().copied().collect::<Vec<_>>() {
            self.set_state(key, State::AwaitsQueue);
            if self.has_fallback(key) {
                self.refuse(key, Outcome::QueueUnreachable);
            }
        }
    }

    /// What was asked on the last connection is void.
    fn forget_queue(&mut self, queue: QueueStatus) {
        self.queue = queue;
        self.pending.clear();
        for service in self.services.values_mut() {
            *service = Service {
                fallback: std::mem::take(&mut service.fallback),
                turn: service.turn,
                ..Service::default()
            };
        }
    }

    fn has_fallback(&self, key: Key) -> bool {
        let Some(question) = self.questions.get(&key) else { return false };
        let service = self.services.get(&question.service);
        let fallback = service.into_iter().flat_map(|service| &service.fallback);
        fallback.into_iter().any(|provider| question.wanted.includes(provider.ip))
    }

    /// The queue has no provider for this question: the static ones are the answer, in turn.
    fn refuse(&mut self, key: Key, outcome: Outcome) {
        let Some(&Question { service: name, wanted, .. }) = self.questions.get(&key) else {
            return;
        };
        let service = self.service(name);
        let start = service.turn % service.fallback.len().max(1);
        let (before, after) = service.fallback.split_at(start);
        let mut found = distinct(after.iter().chain(before).copied(), wanted);
        service.turn = start + 1;
        if wanted == Wanted::One {
            found.truncate(1);
        }
        let answer =
            if found.is_empty() { Answer::Refused(outcome) } else { Answer::Providers(found) };
        self.answer(key, answer);
    }

    fn answer(&mut self, key: Key, answer: Answer) {
        if self.questions.remove(&key).is_some() {
            self.outputs.push_back(Output::Answer { question: key, answer });
        }
    }
}

mod interface;
mod offers;
#[cfg(test)]
mod tests;
