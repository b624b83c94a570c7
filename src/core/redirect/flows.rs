//! Datagrams, as flows: what one client sends to one address goes to one
//! provider, and what that answers comes back.
//!
//! Owns which flow a datagram belongs to, the datagrams that wait for a
//! provider, and when a flow ends. Whom a flow is led to, and what the queue is
//! told, is the [`Redirector`]'s business, for which a flow is a client like
//! any other. Knows no socket.

use super::kept::{Kept, TAKEN_AFTER};
use super::redirector::{self, Failure, Redirector};
use crate::base::machine::Machine;
use crate::base::name::Service;
use crate::base::outcome::Outcome;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Moment, Span};
use crate::base::timers::Timers;
use crate::wire::message::RequestResult;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use ranking::{Ranking, Standing};
pub use talk::{FlowOptions, FlowTerms, Input, Output, Path};
use watch::Watch;

/// At the end a flow is over after so much silence.
const DRAIN_IDLE: Span = Span::from_secs(1);
/// With so many datagrams a client is no stranger any more.
const REGULAR: u32 = 2;

#[derive(Debug)]
struct Flow {
    path: Path,
    service: Service,
    terms: FlowTerms,
    /// Whether it has a provider.
    open: bool,
    /// Whether that offered when the queue was last heard, since it is connected.
    offered: bool,
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
}

impl Flow {
    fn follows(&self) -> bool {
        self.peer != self.to
    }

    fn standing(&self) -> Standing {
        (self.datagrams >= REGULAR, self.touched)
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
    ranking: Ranking,
    watch: Watch,
    draining: bool,
    /// Doors that are about to be closed.
    left: Vec<usize>,
    outputs: VecDeque<Output>,
}

impl Machine for Flows {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Moment) {
        match input {
            Input::Told { id, reply } => self.redirector.handle(redirector::Input::Told { id, reply }, now),
            Input::QueueUp => {
                self.watch.connected(now);
                self.redirector.handle(redirector::Input::QueueUp, now);
            }
            Input::QueueDown => {
                self.forget_offers();
                self.redirector.handle(redirector::Input::QueueDown, now);
            }
            Input::Status { lines } => self.status(&lines, now),
            Input::Refusal { reason } => self.watch_refused(reason),
            Input::Opened { flow } => self.opened(flow, now),
            Input::Unopened { flow } => self.fail(flow, now),
            Input::Refused { flow } => self.refused(flow, now),
            Input::Stuck { flow } => self.redirector.handle(redirector::Input::Stuck { client: flow }, now),
            Input::Fallback { service, addresses } => {
                self.redirector.handle(redirector::Input::Fallback { service, addresses }, now);
            }
            Input::Reconfigure(options) => {
                self.redirector.handle(redirector::Input::Reconfigure(options.redirect.clone()), now);
                self.options = options;
                self.renew_terms();
            }
            Input::Drain => {
                self.draining = true;
                self.renew_terms();
            }
            Input::Leave { door } => {
                // Of those before, whoever has no flow any more was closed.
                let flows = &self.flows;
                self.left.retain(|door| flows.iter().any(|(_, flow)| flow.path.door == *door));
                self.left.push(door);
            }
            Input::Close { door } => self.drained(|path| path.door == door, now),
            Input::End => {
                self.draining = true;
                self.drained(|_| true, now);
            }
        }
    }

    fn expire(&mut self, now: Moment) {
        self.redirector.expire(now);
        self.look(now);
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
        [self.timers.next(), self.redirector.deadline(), self.watch.deadline()].into_iter().flatten().min()
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

    /// Between whom a flow is.
    pub fn path(&self, flow: Key) -> Option<Path> {
        self.flows.get(flow).map(|flow| flow.path)
    }

    /// What nobody has taken for certain, oldest first.
    pub fn kept(&self, flow: Key) -> impl Iterator<Item = &[u8]> {
        self.flows.get(flow).into_iter().flat_map(|flow| flow.kept.iter())
    }

    /// Whether a flow began with a request of TFTP, to which the answer comes from
    /// another port. It is known as long as nobody answered.
    pub fn asked_for_a_file(&self, flow: Key) -> bool {
        self.kept(flow).next().is_some_and(asks_for_a_file)
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
        let terms = self.options.services.get(service).copied().unwrap_or_default();
        let flow = self.flows.insert(Flow {
            path,
            service,
            terms,
            open: false,
            offered: false,
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
        });
        if !terms.single {
            self.by_path.insert(path, flow);
        }
        self.ranking.enter(flow, now);
        let flows = &self.flows;
        self.ranking.prune(flows.len(), |key| flows.get(key).map(Flow::standing));
        let from = SocketAddr::new(path.client.ip().to_canonical(), path.client.port());
        self.redirector.handle(redirector::Input::Arrived { client: flow, service, from, port }, now);
        self.further(flow, bytes, now)
    }

    fn further(&mut self, key: Key, bytes: &[u8], now: Moment) -> Option<(Key, SocketAddr)> {
        let flow = self.flows.get_mut(key)?;
        flow.touched = now;
        flow.datagrams = flow.datagrams.saturating_add(1);
        flow.received += bytes.len() as u64;
        if flow.datagrams == REGULAR {
            self.ranking.promote(key, now);
        }
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
        flow.offered = true;
        flow.served = false;
        flow.opened = now;
        flow.touched = now;
        flow.kept.sent(now);
        self.redirector.handle(redirector::Input::Connected { client: key }, now);
        self.watch.wanted(now);
        self.arm(key);
    }

    /// Nobody is where a flow's datagrams went. At its provider's own port that
    /// is the death of the provider, and of all flows that lead there.
    fn refused(&mut self, key: Key, now: Moment) {
        // What a flow hears that is on its way to another provider, it hears of
        // the one that is known to be dead.
        let Some(flow) = self.flows.get(key).filter(|flow| flow.open) else { return };
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
        self.fail(key, now);
    }

    /// A flow goes on to another provider, if there is one.
    fn fail(&mut self, key: Key, now: Moment) {
        self.redirector.handle(redirector::Input::Failed { client: key, why: Failure::Refused }, now);
    }

    /// Ends flows until there is room for one more.
    fn make_room(&mut self, now: Moment) {
        while self.flows.len() >= self.options.flows_max.max(1) {
            let flows = &self.flows;
            let last = self.ranking.last(flows.len(), |key| flows.get(key).map(Flow::standing));
            let Some(key) = last else { return };
            self.finish(key, Outcome::Evicted, now);
        }
    }

    /// Flows that are here end as it is wanted now; what one is stays.
    fn renew_terms(&mut self) {
        for key in self.flows.keys() {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if let Some(terms) = self.options.services.get(flow.service) {
                flow.terms = FlowTerms { single: flow.terms.single, ..*terms };
            }
            if self.draining {
                flow.terms.idle = flow.terms.idle.min(DRAIN_IDLE);
            }
            self.arm(key);
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

    /// No more time is left for flows between these.
    fn drained(&mut self, these: impl Fn(&Path) -> bool, now: Moment) {
        let keys: Vec<Key> = self.flows.iter().filter(|(_, flow)| these(&flow.path)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.finish(key, Outcome::Drained, now));
    }

    fn finish(&mut self, key: Key, outcome: Outcome, now: Moment) {
        let Some((sent, received)) = self.flows.get(key).map(|flow| (flow.sent, flow.received)) else { return };
        self.forget(key);
        // One that only speaks, as loggers do, is served as far as anybody knows.
        let lost = sent == 0 && outcome == Outcome::ProviderReset;
        let result = if lost { RequestResult::Reset } else { RequestResult::Good };
        self.redirector.handle(redirector::Input::Closed { client: key, outcome, result, sent, received }, now);
    }

    fn forget(&mut self, key: Key) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        if self.by_path.get(&flow.path) == Some(&key) {
            self.by_path.remove(&flow.path);
        }
        flow.kept.clear(&mut self.kept_bytes);
        self.ranking.leave(flow.standing().0);
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

mod ranking;
mod talk;
mod watch;

#[cfg(test)]
mod tests;
