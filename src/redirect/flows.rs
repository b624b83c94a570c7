//! Datagrams, as flows: what one client sends to one address goes to one
//! provider, and what that answers comes back.
//!
//! Owns which flow a datagram belongs to, the datagrams that wait for a
//! provider, and when a flow ends. Whom a flow is led to, and what the queue is
//! told, is the [`Redirector`]'s business, for which a flow is a client like
//! any other. Knows no socket.

use super::kept::{Kept, TAKEN_AFTER};
use super::redirector::{self, Failure, Note, RedirectOptions, Redirector};
use crate::base::machine::Machine;
use crate::base::name::Service;
use crate::base::outcome::Outcome;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Moment, Span};
use crate::base::timers::Timers;
use crate::wire::message::{Reply, Request};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// At the end a flow is over after so much silence.
const DRAIN_IDLE: Span = Span::from_secs(1);

/// When the flows of a service end.
#[derive(Clone, Copy, Debug)]
pub struct FlowTerms {
    /// After this silence.
    pub idle: Span,
    /// After so many replies to each datagram; 0: any number.
    pub replies: u32,
    /// At this age.
    pub age: Span,
    /// Every datagram is a flow of its own.
    pub single: bool,
}

impl Default for FlowTerms {
    fn default() -> Self {
        FlowTerms { idle: Span::from_secs(30), replies: 0, age: Span::from_secs(3600), single: false }
    }
}

/// What an operator chooses.
#[derive(Clone, Debug, Default)]
pub struct FlowOptions {
    /// How a flow finds its provider.
    pub redirect: RedirectOptions,
    /// Flows at once; one more ends the one that was silent for the longest time.
    pub flows_max: usize,
    /// The terms of services that have some of their own.
    pub services: HashMap<Service, FlowTerms>,
}

/// Between whom a flow is, as far as the client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// The number of the socket it came to.
    pub door: usize,
    /// Where it comes from.
    pub client: SocketAddr,
    /// The address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
}

/// What can happen, besides datagrams.
#[derive(Debug)]
pub enum Input {
    /// The queue answered the question with this id.
    Told {
        /// The question.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached.
    QueueDown,
    /// The flow has a socket, and what it kept was sent.
    Opened {
        /// The flow.
        flow: Key,
    },
    /// Nobody takes the flow's datagrams.
    Refused {
        /// The flow.
        flow: Key,
    },
    /// This host has no socket for the flow.
    Stuck {
        /// The flow.
        flow: Key,
    },
    /// The static providers of a service, resolved.
    Fallback {
        /// Of which service.
        service: Service,
        /// Perhaps none.
        addresses: Vec<SocketAddr>,
    },
    /// Other options from now on.
    Reconfigure(FlowOptions),
    /// No new flows, and the others shall end.
    Drain,
    /// No new flows of a door that is about to be closed.
    Leave {
        /// Which.
        door: usize,
    },
    /// All flows end now.
    End,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask or tell the queue.
    Say(Request),
    /// Open a socket for the flow, in the place of one that it had, and send
    /// what it [kept](Flows::kept) to this address.
    Open {
        /// The flow.
        flow: Key,
        /// Whom.
        to: SocketAddr,
    },
    /// Close the flow's socket, if it has one.
    Drop {
        /// The flow.
        flow: Key,
    },
    /// Tell the operator.
    Note(Note),
}

#[derive(Debug)]
struct Flow {
    path: Path,
    terms: FlowTerms,
    /// Whether it has a provider.
    open: bool,
    /// The provider's address as it was told, and the one that answered last,
    /// which is where a stream of datagrams goes on: TFTP takes a port for each.
    to: SocketAddr,
    peer: SocketAddr,
    kept: Kept,
    /// The redirector knows that it is served.
    served: bool,
    datagrams: u32,
    replies: u32,
    sent: u64,
    received: u64,
    opened: Moment,
    touched: Moment,
    /// The earliest timer that is set for it.
    timer: Moment,
    /// How long ago it was touched, as the ranking knows.
    ranked: Moment,
}

impl Flow {
    fn follows(&self) -> bool {
        self.peer != self.to
    }

    fn ends(&self) -> (Moment, Outcome) {
        let (idle, age) = (self.touched + self.terms.idle, self.opened + self.terms.age);
        (idle.min(age), if age < idle { Outcome::Aged } else { Outcome::Idle })
    }
}

/// See the file's head.
#[derive(Default)]
pub struct Flows {
    options: FlowOptions,
    flows: Slab<Flow>,
    by_path: HashMap<Path, Key>,
    redirector: Redirector,
    /// Of what all of them keep.
    kept_bytes: usize,
    timers: Timers<Key>,
    /// By when they were last touched, or earlier.
    ranking: Timers<Key>,
    draining: bool,
    /// Doors that are about to be closed.
    left: HashSet<usize>,
    outputs: VecDeque<Output>,
}

impl Machine for Flows {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Moment) {
        match input {
            Input::Told { id, reply } => self.redirector.handle(redirector::Input::Told { id, reply }, now),
            Input::QueueUp => self.redirector.handle(redirector::Input::QueueUp, now),
            Input::QueueDown => self.redirector.handle(redirector::Input::QueueDown, now),
            Input::Opened { flow } => self.opened(flow, now),
            Input::Refused { flow } => self.refused(flow, now),
            Input::Stuck { flow } => self.redirector.handle(redirector::Input::Stuck { client: flow }, now),
            Input::Fallback { service, addresses } => {
                self.redirector.handle(redirector::Input::Fallback { service, addresses }, now);
            }
            Input::Reconfigure(options) => {
                self.redirector.handle(redirector::Input::Reconfigure(options.redirect.clone()), now);
                self.options = options;
            }
            Input::Drain => {
                self.draining = true;
                for key in self.flows.keys() {
                    if let Some(flow) = self.flows.get_mut(key) {
                        flow.terms.idle = flow.terms.idle.min(DRAIN_IDLE);
                        self.timers.set(flow.ends().0, key);
                    }
                }
            }
            Input::Leave { door } => {
                // Of those before, whoever has no flow any more was closed.
                let flows = &self.flows;
                self.left.retain(|door| flows.iter().any(|(_, flow)| flow.path.door == *door));
                self.left.insert(door);
            }
            Input::End => {
                self.draining = true;
                for key in self.flows.keys() {
                    self.finish(key, Outcome::Drained, now);
                }
            }
        }
    }

    fn expire(&mut self, now: Moment) {
        self.redirector.expire(now);
        while let Some(key) = self.timers.due(now) {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            flow.timer = Moment::NEVER;
            match flow.ends() {
                // Until it has a provider its time is the redirector's business.
                _ if !flow.open => {}
                (end, _) if end > now => self.arm(key),
                (_, outcome) => self.finish(key, outcome, now),
            }
        }
    }

    fn deadline(&self) -> Option<Moment> {
        self.timers.next().into_iter().chain(self.redirector.deadline()).min()
    }

    fn poll(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            match self.redirector.poll()? {
                redirector::Output::Say(request) => return Some(Output::Say(request)),
                redirector::Output::Note(note) => return Some(Output::Note(note)),
                redirector::Output::Connect { client, to } => {
                    if let Some(flow) = self.flows.get_mut(client) {
                        (flow.to, flow.peer) = (to, to);
                        return Some(Output::Open { flow: client, to });
                    }
                }
                redirector::Output::TurnAway { client } => self.forget(client),
                redirector::Output::HangUp { .. } => {}
            }
        }
    }
}

impl Flows {
    /// Without a flow, and without a queue yet.
    pub fn new(options: FlowOptions) -> Flows {
        let redirector = Redirector::new(options.redirect.clone());
        Flows { options, redirector, ..Flows::default() }
    }

    /// Flows that are not over.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// Whether a door has flows that are not over.
    pub fn used(&self, door: usize) -> bool {
        self.flows.iter().any(|(_, flow)| flow.path.door == door)
    }

    /// Whether the flow is not over yet.
    pub fn lives(&self, flow: Key) -> bool {
        self.flows.get(flow).is_some()
    }

    /// What nobody has taken for certain, oldest first.
    pub fn kept(&self, flow: Key) -> impl Iterator<Item = &[u8]> {
        self.flows.get(flow).into_iter().flat_map(|flow| flow.kept.iter())
    }

    /// A client sent this to `port` of ours. Where its flow has a provider, the
    /// answer is by which flow, and to whom, it is to be sent now; otherwise it
    /// waits here or is lost.
    pub fn datagram(
        &mut self,
        path: Path,
        service: Service,
        port: u16,
        bytes: &[u8],
        now: Moment,
    ) -> Option<(Key, SocketAddr)> {
        if let Some(key) = self.by_path.get(&path).copied() {
            let follows = self.flows.get(key).is_some_and(Flow::follows);
            if !(follows && asks_for_a_file(bytes)) {
                return self.further(key, bytes, now);
            }
            // The next transfer of a client that keeps its port: the one before
            // has ended, and its port at the provider may be gone.
            self.finish(key, Outcome::Complete, now);
        }
        if self.draining || self.left.contains(&path.door) {
            return None;
        }
        self.make_room(now);
        let terms = self.options.services.get(&service).copied().unwrap_or_default();
        let flow = self.flows.insert(Flow {
            path,
            terms,
            open: false,
            to: path.client,
            peer: path.client,
            kept: Kept::default(),
            served: false,
            datagrams: 0,
            replies: 0,
            sent: 0,
            received: 0,
            opened: now,
            touched: now,
            timer: Moment::NEVER,
            ranked: now,
        });
        if !terms.single {
            self.by_path.insert(path, flow);
        }
        self.rank(now, flow);
        let from = SocketAddr::new(path.client.ip().to_canonical(), path.client.port());
        self.redirector.handle(redirector::Input::Arrived { client: flow, service, from, port }, now);
        self.further(flow, bytes, now)
    }

    fn further(&mut self, key: Key, bytes: &[u8], now: Moment) -> Option<(Key, SocketAddr)> {
        let flow = self.flows.get_mut(key)?;
        flow.touched = now;
        flow.datagrams = flow.datagrams.saturating_add(1);
        flow.received += bytes.len() as u64;
        let (open, peer) = (flow.open, flow.peer);
        if !open {
            flow.kept.wait(bytes, now, &mut self.kept_bytes);
        } else if !flow.follows() {
            // The next port of a stream could not be asked of another provider.
            flow.kept.keep(bytes, now, &mut self.kept_bytes);
        }
        if open && now.since(flow.opened) >= TAKEN_AFTER {
            self.served(key, now);
        }
        open.then_some((key, peer))
    }

    /// `from` sent so many bytes to the flow's socket. The answer is to whom
    /// they are to be sent, if they belong to the flow.
    pub fn answer(&mut self, key: Key, from: SocketAddr, bytes: usize, now: Moment) -> Option<Path> {
        let flow = self.flows.get_mut(key).filter(|flow| flow.open)?;
        if from.ip().to_canonical() != flow.to.ip() {
            return None;
        }
        flow.peer.set_port(from.port());
        flow.touched = now;
        flow.replies = flow.replies.saturating_add(1);
        flow.sent += bytes as u64;
        flow.kept.clear(&mut self.kept_bytes);
        let most = if flow.terms.single { flow.terms.replies.max(1) } else { flow.terms.replies };
        let (path, over) = (flow.path, most > 0 && flow.replies >= flow.datagrams.saturating_mul(most));
        if over {
            self.finish(key, Outcome::Complete, now);
        } else {
            self.served(key, now);
        }
        Some(path)
    }

    fn served(&mut self, key: Key, now: Moment) {
        if let Some(flow) = self.flows.get_mut(key).filter(|flow| !flow.served) {
            flow.served = true;
            self.redirector.handle(redirector::Input::Served { client: key }, now);
        }
    }

    fn opened(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.open = true;
        flow.served = false;
        flow.opened = now;
        flow.touched = now;
        flow.kept.sent(now);
        self.redirector.handle(redirector::Input::Connected { client: key }, now);
        self.arm(key);
    }

    /// Nobody is where a flow's datagrams went. At its provider's own port that
    /// is the death of the provider, and of all flows that lead there.
    fn refused(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.open) else {
            // It could not even be opened.
            return self.redirector.handle(redirector::Input::Failed { client: key, why: Failure::Refused }, now);
        };
        if flow.follows() {
            return self.finish(key, Outcome::Complete, now);
        }
        let to = flow.to;
        let same = |other: &(Key, &Flow)| other.0 != key && other.1.open && other.1.to == to && !other.1.follows();
        let others: Vec<Key> = self.flows.iter().filter(same).map(|(key, _)| key).collect();
        self.lose(key, true, now);
        others.into_iter().for_each(|other| self.lose(other, false, now));
    }

    /// A flow's provider is dead. With datagrams that it cannot have taken the
    /// flow goes on to another one; otherwise it is over, and its next datagram
    /// begins a new one.
    fn lose(&mut self, key: Key, reports: bool, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (sent, received) = (flow.sent, flow.received);
        let fresh = flow.kept.fresh(now);
        if !fresh && reports {
            self.forget(key);
            let lost = redirector::Input::Lost { client: key, why: Failure::Refused, sent, received };
            return self.redirector.handle(lost, now);
        }
        if !fresh {
            return self.finish(key, Outcome::ProviderReset, now);
        }
        flow.open = false;
        self.outputs.push_back(Output::Drop { flow: key });
        self.redirector.handle(redirector::Input::Failed { client: key, why: Failure::Refused }, now);
    }

    /// Ends flows until there is room for one more.
    fn make_room(&mut self, now: Moment) {
        while self.flows.len() >= self.options.flows_max.max(1) {
            // Every flow is ranked; the loop ends with the ranking at the latest.
            let Some(key) = self.ranking.due(now) else { return };
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if flow.touched > flow.ranked {
                flow.ranked = flow.touched;
                self.ranking.set(flow.ranked, key);
            } else {
                self.finish(key, Outcome::Evicted, now);
            }
        }
    }

    fn rank(&mut self, at: Moment, key: Key) {
        self.ranking.set(at, key);
        if self.ranking.len() > 2 * self.flows.len() + 1024 {
            let flows = &self.flows;
            self.ranking.retain(|key| flows.get(key).is_some());
        }
    }

    fn arm(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (end, _) = flow.ends();
        if end >= flow.timer {
            return;
        }
        flow.timer = end;
        self.timers.set(end, key);
        if self.timers.len() > 4 * self.flows.len() + 1024 {
            let flows = &self.flows;
            self.timers.retain(|key| flows.get(key).is_some());
        }
    }

    fn finish(&mut self, key: Key, outcome: Outcome, now: Moment) {
        let Some((sent, received)) = self.flows.get(key).map(|flow| (flow.sent, flow.received)) else { return };
        self.forget(key);
        self.redirector.handle(redirector::Input::Closed { client: key, outcome, sent, received }, now);
    }

    fn forget(&mut self, key: Key) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        if self.by_path.get(&flow.path) == Some(&key) {
            self.by_path.remove(&flow.path);
        }
        flow.kept.clear(&mut self.kept_bytes);
        self.outputs.push_back(Output::Drop { flow: key });
    }
}

/// Whether this is a read or write request of TFTP (RFC 1350): a number, a
/// name and a mode.
fn asks_for_a_file(bytes: &[u8]) -> bool {
    let Some([0, 1 | 2, rest @ ..]) = Some(bytes) else { return false };
    let mut words = rest.split(|byte| *byte == 0);
    let (name, mode) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    !name.is_empty() && [&b"octet"[..], b"netascii", b"mail"].iter().any(|known| mode.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
