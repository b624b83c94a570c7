//! The ticket law, kept by a listener: what a queue is asked and what it answers.
//!
//! Owns the questions under way on each connection, and that each gets exactly one
//! answer in time. What an answer may be, the reference model says.

use crate::reference_model::status::number;
use crate::reference_model::{Ask, Expected, Model, Terms};
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::{ErrorCode, Reply};
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::responder::ReplySlot;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug)]
struct Pending {
    ask: Ask,
    deadline: Moment,
    given_up: bool,
}

/// What a `next` goes by: its place in the order of answers, or its id.
type Question = (Key, Result<u64, u32>);

/// What a request other than a `next` should be answered.
#[derive(Debug)]
struct Owed {
    request: Request,
    /// The feedback on an offer.
    expected: Option<Expected>,
    /// Tickets that a withdrawal or a failure takes away.
    discarded: u64,
}

/// Checks every answer of a queue against the reference model.
#[derive(Default)]
pub struct Ledger {
    model: Model,
    pending: BTreeMap<Question, Pending>,
    owed: BTreeMap<(Key, u64), Owed>,
    /// Nothing waits and nothing is granted any more.
    pub draining: bool,
    /// Grants and errors of all times, to see that something happened.
    pub answers: [u64; 2],
}

impl Ledger {
    /// The queue hears a request. `wait_max` is the longest wait.
    pub fn asked(
        &mut self,
        key: Key,
        order: ReplySlot,
        peer: IpAddr,
        request: &Request,
        wait_max: Span,
        now: Moment,
    ) {
        let (mut expected, mut discarded) = (None, 0);
        match request {
            Request::Next(next) => {
                let question = (key, next.id.map_or(Ok(order.unwrap_or(0)), Err));
                let ask = Ask {
                    service: next.service,
                    asker: peer,
                    counted: next.id.is_some(),
                    avoid: next.avoid.clone(),
                    since: now,
                    wait: next.wait.min(wait_max),
                };
                let pending = Pending { deadline: ask.deadline(), ask, given_up: false };
                let before = self.pending.insert(question, pending);
                assert!(before.is_none(), "a question twice at once");
                return;
            }
            Request::Ticket { provider, service, tickets, capacity, weight, lease } => {
                let terms = Terms {
                    tickets: *tickets,
                    capacity: *capacity,
                    weighted: weight.is_some(),
                    lease: lease.unwrap_or_default(),
                };
                assert!(lease.is_some() || *capacity == 0, "monitors say their lease");
                expected = self.model.offer(key, (*service, provider.resolve(peer)), terms, now);
            }
            Request::Withdraw { provider, service } => {
                discarded = self.model.withdraw(key, (*service, provider.resolve(peer)), now);
            }
            Request::Done { id, result } => {
                self.gives_up(key, *id);
                self.model.done(key, *id, *result, now);
            }
            Request::Failure { provider, service, id } => {
                id.iter().for_each(|id| self.gives_up(key, *id));
                let place = (*service, provider.resolve(peer));
                discarded = self.model.fail(key, peer, place, *id, now);
            }
            // No host of the simulation drains.
            Request::Drain { .. } | Request::Resume { .. } | Request::Status { .. } => {}
        }
        let order = order.expect("only a next has no order");
        self.owed.insert((key, order), Owed { request: request.clone(), expected, discarded });
    }

    /// The wait of a counted request is over, if it still waits.
    fn gives_up(&mut self, key: Key, id: u32) {
        if let Some(pending) = self.pending.get_mut(&(key, Err(id))) {
            pending.given_up = true;
        }
    }

    /// The queue answers.
    pub fn answered(&mut self, key: Key, order: ReplySlot, reply: &Reply, now: Moment) {
        let id = match reply {
            Reply::Provider { id, .. } | Reply::Error { id, .. } => *id,
            _ => None,
        };
        let question = (key, id.map_or(Ok(order.unwrap_or(0)), Err));
        assert_eq!(order.is_none(), id.is_some(), "an id instead of an order: {reply}");
        if let Some(pending) = self.pending.remove(&question) {
            return self.settled(key, id, &pending, reply, now);
        }
        let owed = order
            .and_then(|order| self.owed.remove(&(key, order)))
            .unwrap_or_else(|| panic!("answered twice: {reply}"));
        match (&owed.request, reply) {
            (Request::Ticket { .. }, Reply::Feedback(feedback)) => match owed.expected {
                Some(expected) => {
                    assert_eq!(feedback.granted, expected.granted, "grants in {reply}");
                    let off = (feedback.active - expected.active).abs();
                    assert!(off < 1e-6, "{expected:?}, not {reply}");
                }
                None => assert_eq!(feedback.granted, 0, "told to another than the owner: {reply}"),
            },
            (Request::Withdraw { .. } | Request::Failure { .. }, Reply::Discarded(tickets)) => {
                assert_eq!(*tickets, owed.discarded, "{:?}", owed.request);
            }
            (Request::Done { .. }, Reply::Ok | Reply::Error { .. }) => {}
            (Request::Status { .. }, Reply::Status(_)) => {}
            _ => panic!("{:?} was answered with {reply}", owed.request),
        }
    }

    fn settled(
        &mut self,
        key: Key,
        id: Option<u32>,
        pending: &Pending,
        reply: &Reply,
        now: Moment,
    ) {
        match reply {
            Reply::Provider { provider, .. } => {
                let late = self.draining || pending.given_up || now > pending.deadline;
                assert!(!late, "a grant too late");
                self.model.grant(key, id, &pending.ask, *provider, now);
                self.answers[0] += 1;
            }
            Reply::Error { error: refusal, .. } => {
                match refusal.code {
                    ErrorCode::NoTicket if pending.given_up => {}
                    ErrorCode::NoTicket => {
                        assert!(now >= pending.deadline, "an error before its time");
                        let places = self.model.candidates(&pending.ask, now);
                        assert!(places.is_empty(), "an error although there is a place");
                    }
                    ErrorCode::Draining => assert!(self.draining),
                    _ => panic!("{reply}"),
                }
                self.answers[1] += 1;
            }
            _ => panic!("a next was answered with {reply}"),
        }
    }

    /// The queue hears that a connection will ask no more; `gone`: nor read.
    pub fn hung_up(&mut self, key: Key, gone: bool, now: Moment) {
        for ((of, by), pending) in &mut self.pending {
            if *of == key && by.is_err() {
                // It cannot say `done` any more: its answer is due now.
                (pending.given_up, pending.deadline) = (true, now);
            }
        }
        if gone {
            self.pending.retain(|(of, _), _| *of != key);
            self.owed.retain(|(of, _), _| *of != key);
        }
        self.model.hung_up(key, gone, now);
    }

    /// Time passed.
    pub fn expired(&mut self, now: Moment) {
        self.model.pass(now);
    }

    /// No question is overdue, and none waits for what is there.
    pub fn check_waiting(&mut self, now: Moment) {
        for (question, pending) in &self.pending {
            assert!(now <= pending.deadline, "{question:?} got no answer in time");
            let places = self.model.candidates(&pending.ask, now);
            assert!(places.is_empty(), "{question:?} waits although there is a place");
        }
        assert!(self.owed.is_empty(), "not answered at once: {:?}", self.owed);
    }

    /// The queue's own account agrees with this one.
    pub fn check_status(&self, status: &str, now: Moment) {
        self.model.check_status(status, now);
        let line = status.lines().next().unwrap_or_default();
        assert_eq!(number(line, "waiting"), self.pending.len() as u64, "{line}");
    }
}
