//! Who is connected to whom, and what arrives there.

use super::super::hosts::{Caller, PlainHost};
use super::super::network::{Arrival, Asker, End};
use super::{no_key, peer, Event, World};
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::monitor::monitor;
use pegasus_core::protocol::requester::{Matched, Requester};
use pegasus_core::protocol::responder::Responder;
use pegasus_core::queue::ticket_queue;
use pegasus_core::redirect::redirector;

impl World {
    pub(super) fn dial(&mut self, asker: Asker) {
        let queue = match asker {
            Asker::Redirector(redirector) if self.redirectors[redirector].link.is_some() => return,
            Asker::Redirector(redirector) => self.redirectors[redirector].queue,
            Asker::Monitor(monitor, queue) if self.monitors[monitor].links[queue].is_some() => {
                return
            }
            Asker::Monitor(monitor, _) if self.monitors[monitor].machine.is_none() => return,
            Asker::Monitor(_, queue) => queue,
            Asker::Plain(_) if self.quiet => return,
            Asker::Plain(_) => self.random.below(self.queues.len()),
        };
        if self.queues[queue].running.is_none() {
            match asker {
                Asker::Redirector(redirector) => {
                    self.tell_redirector(redirector, redirector::Input::QueueDown)
                }
                Asker::Monitor(monitor, balancer) => {
                    self.tell_monitor(monitor, monitor::Input::Down { balancer })
                }
                Asker::Plain(_) => {}
            }
            return self.within(800, Event::Dial(asker));
        }
        let now = self.now;
        let caller = Caller {
            link: no_key(),
            peer: peer(asker),
            channel: Responder::default(),
            ended: false,
        };
        let connection = self.queues[queue].callers.insert(caller);
        let link = self.network.open(asker, queue, connection, now);
        if let Some(caller) = self.queues[queue].callers.get_mut(connection) {
            caller.link = link;
        }
        if let Some((machine, _)) = &mut self.queues[queue].running {
            machine.handle_input(
                ticket_queue::Input::Connected { connection, peer: peer(asker) },
                now,
            );
        }
        match asker {
            Asker::Redirector(redirector) => {
                let host = &mut self.redirectors[redirector];
                (host.link, host.asking) = (Some(link), Requester::default());
                self.queue_turned(redirector);
                self.tell_redirector(redirector, redirector::Input::QueueUp);
            }
            Asker::Monitor(monitor, balancer) => {
                let host = &mut self.monitors[monitor];
                (host.links[balancer], host.asking[balancer]) = (Some(link), Requester::default());
                self.tell_monitor(monitor, monitor::Input::Up { balancer });
            }
            Asker::Plain(plain) => {
                self.plains[plain] = PlainHost { link: Some(link), ..PlainHost::default() };
                self.soon(Event::PlainAsks(plain));
            }
        }
    }

    pub(super) fn send(&mut self, link: Key, to: End, bytes: &[u8]) {
        for (at, arrival) in self.network.send(link, to, bytes, &mut self.random, self.now) {
            self.at(at, Event::Arrives(link, to, arrival));
        }
    }

    pub(super) fn cut(&mut self, link: Key) {
        for (at, end) in self.network.cut(link, &mut self.random, self.now) {
            self.at(at, Event::Arrives(link, end, Arrival::Over));
        }
    }

    pub(super) fn arrives(&mut self, key: Key, end: End, arrival: Arrival) {
        if !self.network.arrives(key, end, &arrival) {
            return;
        }
        let Some(link) = self.network.link(key) else { return };
        let (asker, queue, connection) = (link.asker, link.queue, link.connection);
        match (end, arrival) {
            (End::Queue, Arrival::Bytes(bytes)) => {
                if let Some(caller) = self.queues[queue].callers.get_mut(connection) {
                    caller.channel.receive(&bytes);
                }
                self.requests(queue, connection);
            }
            (End::Queue, Arrival::Half) => {
                if let Some(caller) = self.queues[queue].callers.get_mut(connection) {
                    caller.channel.end();
                    caller.ended = true;
                }
                self.requests(queue, connection);
                if let Some((machine, ledger)) = &mut self.queues[queue].running {
                    ledger.hung_up(connection, false, self.now);
                    machine.handle_input(ticket_queue::Input::ReadClosed { connection }, self.now);
                }
                self.act_queue(queue);
            }
            (End::Queue, Arrival::Over) => self.caller_gone(queue, connection),
            (End::Asker, Arrival::Bytes(bytes)) => self.answers(asker, &bytes),
            (End::Asker, _) => {
                self.network.close(key, End::Asker);
                self.asker_lost(asker);
            }
        }
    }

    pub(super) fn asker_lost(&mut self, asker: Asker) {
        match asker {
            Asker::Redirector(redirector) => {
                self.redirectors[redirector].link = None;
                self.queue_turned(redirector);
                self.tell_redirector(redirector, redirector::Input::QueueDown);
            }
            Asker::Monitor(monitor, balancer) => {
                self.monitors[monitor].links[balancer] = None;
                self.tell_monitor(monitor, monitor::Input::Down { balancer });
            }
            Asker::Plain(plain) => self.plains[plain].link = None,
        }
        self.within(800, Event::Dial(asker));
    }

    pub(super) fn answers(&mut self, asker: Asker, bytes: &[u8]) {
        match asker {
            Asker::Redirector(redirector) => {
                self.redirectors[redirector].asking.receive(bytes);
                while let Some(answer) =
                    self.redirectors[redirector].asking.next_reply().expect("an answer")
                {
                    if let Matched::ById(id, reply) = answer {
                        self.tell_redirector(
                            redirector,
                            redirector::Input::QueueReply { id, reply },
                        );
                    }
                }
            }
            Asker::Monitor(monitor, balancer) => {
                self.monitors[monitor].asking[balancer].receive(bytes);
                while let Some(answer) =
                    self.monitors[monitor].asking[balancer].next_reply().expect("an answer")
                {
                    let Matched::InOrder(service, reply) = answer else {
                        panic!("a number that no monitor gave")
                    };
                    self.tell_monitor(
                        monitor,
                        monitor::Input::QueueReply { balancer, service, reply },
                    );
                }
            }
            Asker::Plain(plain) => {
                let host = &mut self.plains[plain];
                host.asking.receive(bytes);
                while let Some(answer) = host.asking.next_reply().expect("an answer") {
                    host.waiting -= 1;
                    match answer {
                        Matched::ById(id, _) => {
                            assert_eq!(
                                host.ids.insert(id, true),
                                Some(false),
                                "two answers for one id"
                            );
                        }
                        Matched::InOrder(expected, reply) => {
                            assert!(
                                expected.fits(&reply),
                                "{reply} where {expected:?} was expected"
                            );
                        }
                    }
                }
            }
        }
    }
}
