//! One ticket queue for all threads of a process.
//!
//! Owns the lock around the queue and the routing of replies: to the event loop of the
//! control connections, or to a thread that sends requests without a connection.

use crate::net::event_loop;
use crate::net::queue_connection::QueueEvent;
use mio::Waker;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::requester::Matched;
use pegasus_core::protocol::responder::ReplySlot;
use pegasus_core::queue::ticket_queue::{Input, Output, TicketQueue};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A shared reference to the queue. For the event loop of the control connections it is
/// a state machine, which returns only the outputs for these connections.
#[derive(Clone)]
pub struct SharedQueue(Arc<Mutex<Inner>>);

struct Inner {
    queue: TicketQueue,
    /// The latest time that any thread has passed in: time must not go back.
    now: Moment,
    /// One for each [`LocalHandle`]. Their keys precede those of control connections.
    inboxes: Slab<Inbox>,
    local_handles_max: usize,
    /// Outputs for the event loop of the control connections.
    outputs: VecDeque<Output>,
    server_waker: Arc<Waker>,
    /// When that loop wakes by itself.
    sleeps_until: Moment,
}

struct Inbox {
    events: VecDeque<QueueEvent<()>>,
    waker: Arc<Waker>,
    /// Replies in the order of their requests: those that are not there yet, and those that
    /// have to wait for an earlier one.
    in_order: VecDeque<Option<Reply>>,
    /// The number of the first of them.
    first: u64,
}

impl Inbox {
    fn new(waker: Arc<Waker>) -> Inbox {
        Inbox { events: [QueueEvent::Up].into(), waker, in_order: VecDeque::new(), first: 0 }
    }

    /// The slot of a request that is answered in order.
    fn reserve(&mut self) -> u64 {
        self.in_order.push_back(None);
        self.first + self.in_order.len() as u64 - 1
    }

    /// A reply came. One to a request that another program schedules may come late.
    fn reply(&mut self, slot: ReplySlot, reply: Reply) {
        let Some(slot) = slot else {
            if let Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = reply
            {
                self.events.push_back(QueueEvent::Answer(Matched::ById(id, reply)));
            }
            return;
        };
        let place = usize::try_from(slot.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(place) = self.in_order.get_mut(place) {
            *place = Some(reply);
        }
        while let Some(Some(_)) = self.in_order.front() {
            self.first += 1;
            let reply = self.in_order.pop_front().flatten();
            self.events.extend(reply.map(|reply| QueueEvent::Answer(Matched::InOrder((), reply))));
        }
    }
}

/// A thread's handle to the queue: like a connection that is never lost.
pub struct LocalHandle {
    shared: SharedQueue,
    key: Key,
}

impl StateMachine for SharedQueue {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        let mut inner = self.lock();
        inner.handle(input, now);
        inner.dispatch(None);
    }

    fn handle_timeout(&mut self, now: Moment) {
        let mut inner = self.lock();
        let now = inner.advance_clock(now);
        inner.queue.handle_timeout(now);
        inner.dispatch(None);
    }

    fn next_timeout(&self) -> Option<Moment> {
        let mut inner = self.lock();
        let deadline = inner.queue.next_timeout();
        inner.sleeps_until = deadline.unwrap_or(Moment::NEVER);
        deadline
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.lock().outputs.pop_front()
    }
}

impl SharedQueue {
    /// Shares `queue` between at most `local_handles_max` threads and the event loop of
    /// the control connections, which `server_waker` wakes.
    pub fn new(
        queue: TicketQueue,
        local_handles_max: usize,
        server_waker: Arc<Waker>,
    ) -> SharedQueue {
        SharedQueue(Arc::new(Mutex::new(Inner {
            queue,
            now: Moment::ZERO,
            inboxes: Slab::default(),
            local_handles_max,
            outputs: VecDeque::new(),
            server_waker,
            sleeps_until: Moment::NEVER,
        })))
    }

    /// Adds a thread; `waker` wakes it for replies to earlier requests. Returns none if
    /// there are `local_handles_max` already.
    pub fn join(&self, waker: Arc<Waker>, now: Moment) -> Option<LocalHandle> {
        let mut inner = self.lock();
        if inner.inboxes.len() >= inner.local_handles_max {
            return None;
        }
        let key = inner.inboxes.insert(Inbox::new(waker));
        inner.handle(Input::LocalConnected { connection: key }, now);
        Some(LocalHandle { shared: self.clone(), key })
    }

    /// Handles an input from a control connection and appends the outputs.
    pub fn ask(&self, input: Input, now: Moment, outputs: &mut Vec<Output>) {
        let mut inner = self.lock();
        inner.handle(input, now);
        inner.dispatch(None);
        outputs.extend(inner.outputs.drain(..));
    }

    /// Returns the current offers as `ticket` lines for another queue.
    pub fn offers(&self) -> Vec<u8> {
        let offers = {
            let inner = self.lock();
            inner.queue.offers(inner.now)
        };
        let mut lines = Vec::new();
        offers.iter().for_each(|offer| offer.write(&"successor", &mut lines));
        lines
    }

    /// The lines of `status`, of all services.
    pub fn status(&self) -> String {
        let inner = self.lock();
        inner.queue.status(None, inner.now.max(event_loop::now()))
    }

    /// See [`TicketQueue::has_requests`].
    pub fn has_requests(&self, connection: Key) -> bool {
        self.lock().queue.has_requests(connection)
    }

    /// See [`TicketQueue::has_unconfirmed`].
    pub fn has_unconfirmed(&self, connection: Key) -> bool {
        self.lock().queue.has_unconfirmed(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The queue does not panic; if it did, its state would be no worse for others.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn advance_clock(&mut self, now: Moment) -> Moment {
        self.now = self.now.max(now);
        self.now
    }

    fn handle(&mut self, input: Input, now: Moment) {
        let now = self.advance_clock(now);
        self.queue.handle_input(input, now);
    }

    /// Moves each output to its receiver. `caller` need not be woken.
    fn dispatch(&mut self, caller: Option<Key>) {
        let slept = self.outputs.is_empty();
        while let Some(output) = self.queue.poll_output() {
            match output {
                Output::Reply { connection, slot, reply }
                    if connection.index() < self.local_handles_max =>
                {
                    let Some(inbox) = self.inboxes.get_mut(connection) else { continue };
                    if inbox.events.is_empty() && caller != Some(connection) {
                        let _ = inbox.waker.wake();
                    }
                    inbox.reply(slot, reply);
                }
                output => self.outputs.push_back(output),
            }
        }
        if caller.is_none() {
            return;
        }
        let sooner = self.queue.next_timeout().is_some_and(|deadline| deadline < self.sleeps_until);
        if sooner {
            self.sleeps_until = Moment::ZERO;
        }
        if sooner || (slept && !self.outputs.is_empty()) {
            let _ = self.server_waker.wake();
        }
    }
}

impl LocalHandle {
    /// Sends a request. The reply, unless it has to wait, is among the next events.
    pub fn ask(&self, request: Request, now: Moment) {
        let numbered = matches!(&request, Request::Next(next) if next.id.is_some());
        let mut inner = self.shared.lock();
        let Some(inbox) = inner.inboxes.get_mut(self.key) else { return };
        let slot = (!numbered).then(|| inbox.reserve());
        inner.handle(Input::Request { connection: self.key, slot, request }, now);
        inner.dispatch(Some(self.key));
    }

    /// Returns the next event.
    pub fn poll_event(&self) -> Option<QueueEvent<()>> {
        self.shared.lock().inboxes.get_mut(self.key)?.events.pop_front()
    }
}

impl Drop for LocalHandle {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.inboxes.remove(self.key);
        let now = inner.now;
        inner.handle(Input::Disconnected { connection: self.key }, now);
        inner.dispatch(Some(self.key));
    }
}

#[cfg(test)]
mod tests;
