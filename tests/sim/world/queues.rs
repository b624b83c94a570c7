//! The hand of a ticket queue: it begins, hears, answers and ends.

use super::super::hosts::{Caller, QueueHost};
use super::super::ledger::Ledger;
use super::super::network::{Arrival, End};
use super::{everybody, no_key, Event, World, WAIT_MAX};
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::protocol::responder::Responder;
use pegasus_core::queue::ticket_queue::{self, TicketQueue};
use std::net::IpAddr;

impl World {
    pub(super) fn queue_begins(&mut self, queue: usize) {
        let options = everybody(&mut self.random);
        let host = &mut self.queues[queue];
        let caller = Caller {
            link: no_key(),
            peer: IpAddr::from([127, 0, 0, 1]),
            channel: Responder::default(),
            ended: false,
        };
        host.observer = host.callers.insert(caller);
        let mut machine = TicketQueue::new(options, queue as u64);
        let came = ticket_queue::Input::Connected {
            connection: host.observer,
            peer: IpAddr::from([127, 0, 0, 1]),
        };
        machine.handle_input(came, self.now);
        host.running = Some((machine, Ledger::default()));
    }

    pub(super) fn queue_ends(&mut self, queue: usize) {
        if let Some((_, ledger)) = self.queues[queue].running.take() {
            (0..2).for_each(|kind| self.answers[kind] += ledger.answers[kind]);
            for link in self.network.of_queue(queue) {
                self.cut(link);
                self.network.close(link, End::Queue);
            }
            self.queues[queue].callers = Slab::default();
            let outage = if self.one_in(4) { 10_000 } else { 2000 };
            self.within(outage, Event::QueueBegins(queue));
        }
    }

    pub(super) fn requests(&mut self, queue: usize, connection: Key) {
        loop {
            let host = &mut self.queues[queue];
            let Some(caller) = host.callers.get_mut(connection) else { return };
            let request = caller.channel.next_request();
            let peer = caller.peer;
            let Some((order, request)) = request else { break };
            let Some((machine, ledger)) = &mut host.running else { return };
            ledger.asked(connection, order, peer, &request, WAIT_MAX, self.now);
            machine.handle_input(
                ticket_queue::Input::Request { connection, slot: order, request },
                self.now,
            );
            self.act_queue(queue);
        }
        self.flush(queue, connection);
    }

    pub(super) fn act_queue(&mut self, queue: usize) {
        let host = &mut self.queues[queue];
        let Some((machine, ledger)) = &mut host.running else { return };
        let mut touched = Vec::new();
        while let Some(output) = machine.poll_output() {
            let ticket_queue::Output::Reply { connection, slot: order, reply } = output else {
                continue;
            };
            ledger.answered(connection, order, &reply, self.now);
            if let Some(caller) = host.callers.get_mut(connection) {
                caller.channel.reply(order, reply);
                touched.push(connection);
            }
        }
        touched.dedup();
        for connection in touched {
            self.flush(queue, connection);
        }
        self.check(queue);
    }

    /// Sends what is to be sent, and closes who has all that was asked for.
    pub(super) fn flush(&mut self, queue: usize, connection: Key) {
        let Some(caller) = self.queues[queue].callers.get_mut(connection) else { return };
        let (link, bytes) = (caller.link, caller.channel.out.bytes().to_vec());
        caller.channel.out.sent(bytes.len());
        let finished = caller.channel.finished();
        self.send(link, End::Asker, &bytes);
        let holds = |queue: &QueueHost| {
            queue.running.as_ref().is_some_and(|(machine, _)| machine.has_requests(connection))
        };
        if finished && !holds(&self.queues[queue]) {
            if let Some(at) = self.network.half_close(link, End::Asker, &mut self.random, self.now)
            {
                self.at(at, Event::Arrives(link, End::Asker, Arrival::Half));
            }
            self.caller_gone(queue, connection);
        }
    }

    pub(super) fn caller_gone(&mut self, queue: usize, connection: Key) {
        if let Some(caller) = self.queues[queue].callers.remove(connection) {
            self.network.close(caller.link, End::Queue);
            if let Some((machine, ledger)) = &mut self.queues[queue].running {
                ledger.hung_up(connection, true, self.now);
                machine.handle_input(ticket_queue::Input::Disconnected { connection }, self.now);
            }
            self.act_queue(queue);
        }
    }

    pub(super) fn status(&mut self, queue: usize) -> String {
        let host = &mut self.queues[queue];
        let Some((machine, _)) = &mut host.running else {
            return String::from("queue waiting=0 \n");
        };
        let (connection, order) = (host.observer, Some(0));
        let request = Request::Status { service: None, export: None };
        machine.handle_input(
            ticket_queue::Input::Request { connection, slot: order, request },
            self.now,
        );
        match machine.poll_output() {
            Some(ticket_queue::Output::Reply { reply: Reply::Status(status), .. }) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn check(&mut self, queue: usize) {
        let now = self.now;
        let status = self.status(queue);
        if let Some((machine, ledger)) = &mut self.queues[queue].running {
            ledger.check_status(&status, now);
            // A hold may end in this very moment.
            if machine.next_timeout().is_none_or(|deadline| deadline > now) {
                ledger.check_waiting(now);
            }
        }
    }
}
