//! One ticket queue for all threads of a process.
//!
//! Owns the lock around the machine, and who an answer is for: the loop that
//! has the control connections, or a thread that asks without a connection.
//! What is asked and what an answer means is the machine's business.

use crate::net::peer::News;
use mio::Waker;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::channel::Matched;
use pegasus_core::protocol::message::{Reply, Request};
use pegasus_core::queue::ticket_queue::{Input, Output, TicketQueue};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle of it. It is a machine too, the one of the loop that has the
/// control connections: what is theirs, and only that, comes out of it.
#[derive(Clone)]
pub struct SharedQueue(Arc<Mutex<Inner>>);

struct Inner {
    machine: TicketQueue,
    /// No thread may turn the clock back for another.
    now: Moment,
    /// Whose keys come before all others.
    members: Slab<Mailbox>,
    members_max: usize,
    /// For the loop that has the control connections.
    outputs: VecDeque<Output>,
    control: Arc<Waker>,
    /// Until when that loop sleeps.
    sleeps_until: Moment,
}

struct Mailbox {
    news: VecDeque<News<()>>,
    waker: Arc<Waker>,
}

/// A thread's own way to it, as good as a connection that is never lost.
pub struct Member {
    shared: SharedQueue,
    key: Key,
}

impl StateMachine for SharedQueue {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        let mut inner = self.lock();
        inner.handle(input, now);
        inner.sort(None);
    }

    fn handle_timeout(&mut self, now: Moment) {
        let mut inner = self.lock();
        let now = inner.at(now);
        inner.machine.handle_timeout(now);
        inner.sort(None);
    }

    fn next_timeout(&self) -> Option<Moment> {
        let mut inner = self.lock();
        let deadline = inner.machine.next_timeout();
        inner.sleeps_until = deadline.unwrap_or(Moment::NEVER);
        deadline
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.lock().outputs.pop_front()
    }
}

impl SharedQueue {
    /// `machine`, with room for so many threads besides the control
    /// connections, whose loop is woken by `control`.
    pub fn new(machine: TicketQueue, members_max: usize, control: Arc<Waker>) -> SharedQueue {
        SharedQueue(Arc::new(Mutex::new(Inner {
            machine,
            now: Moment::ZERO,
            members: Slab::default(),
            members_max,
            outputs: VecDeque::new(),
            control,
            sleeps_until: Moment::NEVER,
        })))
    }

    /// A thread joins in; `waker` tells it that somebody else's doing brought
    /// it an answer. None, if as many are there as were to come.
    pub fn join(&self, waker: Arc<Waker>, now: Moment) -> Option<Member> {
        let mut inner = self.lock();
        if inner.members.len() >= inner.members_max {
            return None;
        }
        let key = inner.members.insert(Mailbox { news: [News::Up].into(), waker });
        inner.handle(Input::LocalConnected { connection: key }, now);
        Some(Member { shared: self.clone(), key })
    }

    /// Handles an input of a control connection; what comes of it is appended.
    pub fn ask(&self, input: Input, now: Moment, outputs: &mut Vec<Output>) {
        let mut inner = self.lock();
        inner.handle(input, now);
        inner.sort(None);
        outputs.extend(inner.outputs.drain(..));
    }

    /// What is offered here, as lines for another queue.
    pub fn offers(&self) -> Vec<u8> {
        let offers = {
            let inner = self.lock();
            inner.machine.offers(inner.now)
        };
        let mut lines = Vec::new();
        offers.iter().for_each(|offer| offer.write(&"successor", &mut lines));
        lines
    }

    /// See [`TicketQueue::has_requests`].
    pub fn holds(&self, connection: Key) -> bool {
        self.lock().machine.has_requests(connection)
    }

    /// See [`TicketQueue::unsure`].
    pub fn unsure(&self, connection: Key) -> bool {
        self.lock().machine.has_unconfirmed(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The machine does not panic; if it did, its state would be no worse for others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn at(&mut self, now: Moment) -> Moment {
        self.now = self.now.max(now);
        self.now
    }

    fn handle(&mut self, input: Input, now: Moment) {
        let now = self.at(now);
        self.machine.handle_input(input, now);
    }

    /// Gives everybody what is theirs. `caller` need not be woken.
    fn sort(&mut self, caller: Option<Key>) {
        let slept = self.outputs.is_empty();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Reply { connection, reply, .. } if connection.index() < self.members_max => {
                    let Some(mailbox) = self.members.get_mut(connection) else { continue };
                    if mailbox.news.is_empty() && caller != Some(connection) {
                        let _ = mailbox.waker.wake();
                    }
                    mailbox.news.push_back(News::Answer(match reply {
                        Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } => {
                            Matched::ById(id, reply)
                        }
                        reply => Matched::InOrder((), reply),
                    }));
                }
                output => self.outputs.push_back(output),
            }
        }
        if caller.is_none() {
            return;
        }
        let sooner = self.machine.next_timeout().is_some_and(|deadline| deadline < self.sleeps_until);
        if sooner {
            self.sleeps_until = Moment::ZERO;
        }
        if sooner || (slept && !self.outputs.is_empty()) {
            let _ = self.control.wake();
        }
    }
}

impl Member {
    /// Asks. The answer, unless it has to wait, is among the next news.
    pub fn ask(&self, request: Request, now: Moment) {
        let numbered = matches!(&request, Request::Next(next) if next.id.is_some());
        let order = (!numbered).then_some(0);
        let mut inner = self.shared.lock();
        inner.handle(Input::Request { connection: self.key, slot: order, request }, now);
        inner.sort(Some(self.key));
    }

    /// The next piece of news.
    pub fn poll(&self) -> Option<News<()>> {
        self.shared.lock().members.get_mut(self.key)?.news.pop_front()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.members.remove(self.key);
        let now = inner.now;
        inner.handle(Input::Disconnected { connection: self.key }, now);
        inner.sort(Some(self.key));
    }
}

#[cfg(test)]
mod tests;
