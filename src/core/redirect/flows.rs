//! UDP flows: the datagrams from one client address to one listening address go to one
//! provider, and its replies come back.
//!
//! Owns which flow a datagram belongs to, the datagrams that wait for a provider, and
//! when a flow ends. The [`Redirector`] finds its provider and reports to the queue: to
//! it, a flow is a client like any other. Knows no socket.

use super::redirector::{self, Failure, Redirector};
use super::resend_buffer::{ResendBuffer, TAKEN_AFTER};
use crate::base::outcome::Outcome;
use crate::base::service_name::ServiceName;
use crate::base::slab::{Key, Slab};
use crate::base::state_machine::StateMachine;
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::message::{Request, RequestResult};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use eviction::{Activity, EvictionOrder};
pub use interface::{FlowKey, FlowLimits, FlowOptions, Input, Output};
use status_poll::{StatusPoller, POLL_INTERVAL};

/// While draining a flow ends after this silence.
const DRAIN_IDLE: Span = Span::from_secs(1);
/// With this many datagrams a client is no newcomer any more.
const ESTABLISHED_AFTER: u32 = 2;

#[derive(Debug)]
struct Flow {
    key: FlowKey,
    service: ServiceName,
    limits: FlowLimits,
    /// Whether it has a provider.
    open: bool,
    /// Whether that provider offered in the last status, on this connection to the queue.
    offered: bool,
    /// The provider's address as the queue gave it, and the one that answered last,
    /// which is where the flow goes on: TFTP takes a port for each transfer.
    to: SocketAddr,
    peer: SocketAddr,
    resend: ResendBuffer,
    /// The redirector knows that the provider replied.
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
    fn port_changed(&self) -> bool {
        self.peer != self.to
    }

    fn activity(&self) -> Activity {
        (self.datagrams >= ESTABLISHED_AFTER, self.touched)
    }

    fn ends(&self) -> (Moment, Outcome) {
        let (idle, age) = (self.touched + self.limits.idle, self.opened + self.limits.age);
        (idle.min(age), if age < idle { Outcome::Aged } else { Outcome::Idle })
    }
}

/// All flows of a worker.
#[derive(Default)]
pub struct Flows {
    options: FlowOptions,
    flows: Slab<Flow>,
    by_key: HashMap<FlowKey, Key>,
    redirector: Redirector,
    /// Bytes that all flows keep.
    resend_bytes: usize,
    timers: TimerQueue<Key>,
    ranking: EvictionOrder,
    watch: StatusPoller,
    draining: bool,
    /// Sockets that are about to be closed.
    left: Vec<usize>,
    outputs: VecDeque<Output>,
}

impl StateMachine for Flows {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::QueueReply { id, reply } => {
                self.redirector.handle_input(redirector::Input::QueueReply { id, reply }, now)
            }
            Input::QueueUp => {
                self.watch.connected(now);
                self.redirector.handle_input(redirector::Input::QueueUp, now);
            }
            Input::QueueDown => {
                self.forget_offers();
                self.redirector.handle_input(redirector::Input::QueueDown, now);
            }
            Input::Status { lines } => self.on_status(&lines, now),
            Input::StatusDenied { code } => {
                if self.watch.on_error(code) {
                    self.outputs.push_back(Output::StatusDenied);
                }
            }
            Input::Opened { flow } => self.opened(flow, now),
            Input::OpenFailed { flow } => self.fail(flow, now),
            Input::ProviderUnreachable { flow } => self.on_unreachable(flow, now),
            Input::SendBlocked { flow } => self.on_blocked(flow, now),
            Input::NoSocket { flow } => {
                self.redirector.handle_input(redirector::Input::NoSocket { client: flow }, now)
            }
            Input::Fallback { service, addresses } => {
                self.redirector
                    .handle_input(redirector::Input::Fallback { service, addresses }, now);
            }
            Input::Reconfigure(options) => {
                self.redirector
                    .handle_input(redirector::Input::Reconfigure(options.redirect.clone()), now);
                self.options = options;
                self.update_limits();
            }
            Input::Drain => {
                self.draining = true;
                self.update_limits();
            }
            Input::StopNewFlows { socket } => {
                // Sockets without a flow were closed since.
                let flows = &self.flows;
                self.left.retain(|socket| flows.iter().any(|(_, flow)| flow.key.socket == *socket));
                self.left.push(socket);
            }
            Input::Close { socket } => self.drained(|flow_key| flow_key.socket == socket, now),
            Input::End => {
                self.draining = true;
                self.drained(|_| true, now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        self.redirector.handle_timeout(now);
        self.poll_status(now);
        while let Some(key) = self.timers.pop_due(now) {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            flow.timer = Moment::NEVER;
            match flow.ends() {
                // Until it has a provider, the redirector watches its time.
                _ if !flow.open => {}
                (end, _) if end > now => self.arm(key),
                (_, outcome) => self.finish(key, outcome, now),
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        [self.timers.next_deadline(), self.redirector.next_timeout(), self.watch.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            match self.redirector.poll_output()? {
                redirector::Output::SendToQueue(request) => {
                    return Some(Output::SendToQueue(request))
                }
                redirector::Output::Log(note) => return Some(Output::Log(note)),
                redirector::Output::Connect { client, to } => {
                    if let Some(flow) = self.flows.get_mut(client) {
                        (flow.to, flow.peer) = (to, to);
                        return Some(Output::Open { flow: client, to });
                    }
                }
                redirector::Output::ResetClient { client } => self.forget(client),
                redirector::Output::AbortConnect { .. } => {}
            }
        }
    }
}

impl Flows {
    /// Returns a worker's flows: none yet, and no queue.
    pub fn new(options: FlowOptions) -> Flows {
        let redirector = Redirector::new(options.redirect.clone());
        Flows { options, redirector, ..Flows::default() }
    }

    /// Flows that have not ended.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// Whether a socket has flows that have not ended.
    pub fn is_socket_used(&self, socket: usize) -> bool {
        self.flows.iter().any(|(_, flow)| flow.key.socket == socket)
    }

    /// Whether the flow has not ended.
    pub fn contains(&self, flow: Key) -> bool {
        self.flows.get(flow).is_some()
    }

    /// The key of a flow.
    pub fn key(&self, flow: Key) -> Option<FlowKey> {
        self.flows.get(flow).map(|flow| flow.key)
    }

    /// Datagrams that no provider has certainly taken, oldest first.
    pub fn unconfirmed(&self, flow: Key) -> impl Iterator<Item = &[u8]> {
        self.flows.get(flow).into_iter().flat_map(|flow| flow.resend.iter())
    }

    /// Whether a flow began with a request of TFTP, to which the answer comes from
    /// another port. It is known as long as no answer came.
    pub fn is_tftp(&self, flow: Key) -> bool {
        self.unconfirmed(flow).next().is_some_and(is_tftp_request)
    }

    /// A client sent this to `port` of ours. Where its flow has a provider, the result
    /// is the flow and the address to send it to now; otherwise the datagram waits here
    /// or is lost.
    pub fn on_datagram(
        &mut self,
        flow_key: FlowKey,
        service: ServiceName,
        port: u16,
        bytes: &[u8],
        now: Moment,
    ) -> Option<(Key, SocketAddr)> {
        if let Some(key) = self.by_key.get(&flow_key).copied() {
            let follows = self.flows.get(key).is_some_and(Flow::port_changed);
            if !(follows && is_tftp_request(bytes)) {
                return self.on_known_flow(key, bytes, now);
            }
            // A client starts its next transfer from the same port. The previous transfer
            // has ended, and its port at the provider may be closed.
            self.finish(key, Outcome::Complete, now);
        }
        if self.draining || self.left.contains(&flow_key.socket) {
            return None;
        }
        self.evict(now);
        let limits = self.options.services.get(&service).copied().unwrap_or_default();
        let flow = self.flows.insert(Flow {
            key: flow_key,
            service,
            limits,
            open: false,
            offered: false,
            to: flow_key.client,
            peer: flow_key.client,
            resend: ResendBuffer::default(),
            served: false,
            datagrams: 0,
            replies: 0,
            sent: 0,
            received: 0,
            opened: now,
            touched: now,
            timer: Moment::NEVER,
        });
        if !limits.per_datagram {
            self.by_key.insert(flow_key, flow);
        }
        self.ranking.insert(flow, now);
        let flows = &self.flows;
        self.ranking.prune(flows.len(), |key| flows.get(key).map(Flow::activity));
        let from = SocketAddr::new(flow_key.client.ip().to_canonical(), flow_key.client.port());
        self.redirector
            .handle_input(redirector::Input::Arrived { client: flow, service, from, port }, now);
        self.on_known_flow(flow, bytes, now)
    }

    fn on_known_flow(&mut self, key: Key, bytes: &[u8], now: Moment) -> Option<(Key, SocketAddr)> {
        let flow = self.flows.get_mut(key)?;
        flow.touched = now;
        flow.datagrams = flow.datagrams.saturating_add(1);
        flow.received += bytes.len() as u64;
        if flow.datagrams == ESTABLISHED_AFTER {
            self.ranking.promote(key, now);
        }
        let (open, peer) = (flow.open, flow.peer);
        if !open {
            flow.resend.wait(bytes, now, &mut self.resend_bytes);
        } else if !flow.port_changed() {
            // Another provider could not continue a transfer at this port.
            flow.resend.keep(bytes, now, &mut self.resend_bytes);
        }
        if open && now.since(flow.opened) >= TAKEN_AFTER {
            self.confirmed(key, now);
        }
        open.then_some((key, peer))
    }

    /// `from` sent so many bytes to the flow's socket. If they belong to the flow, the
    /// result is the key of the client that they are for.
    pub fn on_reply(
        &mut self,
        key: Key,
        from: SocketAddr,
        bytes: usize,
        now: Moment,
    ) -> Option<FlowKey> {
        let flow = self.flows.get_mut(key).filter(|flow| flow.open)?;
        if from.ip().to_canonical() != flow.to.ip() {
            return None;
        }
        flow.peer.set_port(from.port());
        flow.touched = now;
        flow.replies = flow.replies.saturating_add(1);
        flow.sent += bytes as u64;
        flow.resend.clear(&mut self.resend_bytes);
        let most =
            if flow.limits.per_datagram { flow.limits.replies.max(1) } else { flow.limits.replies };
        let (flow_key, over) =
            (flow.key, most > 0 && flow.replies >= flow.datagrams.saturating_mul(most));
        if over {
            self.finish(key, Outcome::Complete, now);
        } else {
            self.confirmed(key, now);
        }
        Some(flow_key)
    }

    fn confirmed(&mut self, key: Key, now: Moment) {
        if let Some(flow) = self.flows.get_mut(key).filter(|flow| !flow.served) {
            flow.served = true;
            self.redirector.handle_input(redirector::Input::ProviderConfirmed { client: key }, now);
        }
    }

    fn opened(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.open = true;
        flow.offered = true;
        flow.served = false;
        flow.opened = now;
        flow.touched = now;
        flow.resend.sent(now);
        self.redirector.handle_input(redirector::Input::Connected { client: key }, now);
        self.watch.request_poll(now);
        self.arm(key);
    }

    /// Nothing listens where a flow's datagrams went. At its provider's own port that is
    /// the death of the provider, and of all flows that lead there.
    fn on_unreachable(&mut self, key: Key, now: Moment) {
        // A flow without a provider hears of the one that is known to be dead.
        let Some(flow) = self.flows.get(key).filter(|flow| flow.open) else { return };
        if flow.port_changed() {
            return self.finish(key, Outcome::Complete, now);
        }
        let to = flow.to;
        let same = |other: &(Key, &Flow)| {
            other.0 != key && other.1.open && other.1.to == to && !other.1.port_changed()
        };
        let others: Vec<Key> = self.flows.iter().filter(same).map(|(key, _)| key).collect();
        self.lose_provider(key, true, now);
        others.into_iter().for_each(|other| self.lose_provider(other, false, now));
    }

    /// A flow's provider is dead. If the flow kept datagrams that the provider may not
    /// have received, it moves to another provider. Otherwise it ends, and the client's
    /// next datagram starts a new one.
    fn lose_provider(&mut self, key: Key, reports: bool, now: Moment) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (sent, received) = (flow.sent, flow.received);
        let fresh = flow.resend.fresh(now);
        if !fresh && reports {
            self.forget(key);
            let lost = redirector::Input::ProviderLost {
                client: key,
                why: Failure::Refused,
                sent,
                received,
            };
            return self.redirector.handle_input(lost, now);
        }
        if !fresh {
            return self.finish(key, Outcome::ProviderReset, now);
        }
        flow.open = false;
        self.outputs.push_back(Output::Drop { flow: key });
        self.fail(key, now);
    }

    /// A flow's datagrams may not leave this host. A flow that was answered stays: one
    /// lost datagram, as of a full connection tracking table, is no reason to move it.
    fn on_blocked(&mut self, key: Key, now: Moment) {
        let Some(flow) = self.flows.get_mut(key).filter(|flow| flow.replies == 0) else { return };
        if std::mem::take(&mut flow.open) {
            self.outputs.push_back(Output::Drop { flow: key });
        }
        self.redirector.handle_input(redirector::Input::ConnectBlocked { client: key }, now);
    }

    /// A flow moves to another provider, if there is one.
    fn fail(&mut self, key: Key, now: Moment) {
        self.redirector.handle_input(
            redirector::Input::ConnectFailed { client: key, why: Failure::Refused },
            now,
        );
    }

    /// Evicts flows until there is room for one more.
    fn evict(&mut self, now: Moment) {
        while self.flows.len() >= self.options.flows_max.max(1) {
            let flows = &self.flows;
            let last = self
                .ranking
                .pop_least_active(flows.len(), |key| flows.get(key).map(Flow::activity));
            let Some(key) = last else { return };
            self.finish(key, Outcome::Evicted, now);
        }
    }

    /// Flows that are here get the limits of now, but stay flows or single datagrams.
    fn update_limits(&mut self) {
        for key in self.flows.keys() {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if let Some(limits) = self.options.services.get(&flow.service) {
                flow.limits = FlowLimits { per_datagram: flow.limits.per_datagram, ..*limits };
            }
            if self.draining {
                flow.limits.idle = flow.limits.idle.min(DRAIN_IDLE);
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
        self.timers.schedule(end, key);
        if self.timers.len() > 4 * self.flows.len() + 1024 {
            let flows = &self.flows;
            self.timers.retain(|key| flows.get(key).is_some());
        }
    }

    /// Ends the flows for which `these` holds: their time is over.
    fn drained(&mut self, these: impl Fn(&FlowKey) -> bool, now: Moment) {
        let keys: Vec<Key> =
            self.flows.iter().filter(|(_, flow)| these(&flow.key)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.finish(key, Outcome::Drained, now));
    }

    /// Asks the queue about the services that flows are of, if it is time.
    fn poll_status(&mut self, now: Moment) {
        if !self.watch.is_due(now) {
            return;
        }
        let open = || self.flows.iter().map(|(_, flow)| flow).filter(|flow| flow.open);
        self.watch.schedule(open().next().is_some(), now);
        let old = open().filter(|flow| now.since(flow.opened) >= POLL_INTERVAL);
        for service in self.watch.poll_services(old.map(|flow| flow.service)) {
            let request = Request::Status { service: Some(service) };
            self.outputs.push_back(Output::SendToQueue(request));
        }
    }

    /// What the queue holds of a service: flows end whose provider offered, on
    /// this connection, and offers no more. Where no provider does, all are full, or
    /// their monitors cut off, and another one would do no better. A transfer that goes
    /// on at another port stays, too: no other provider could go on with it.
    fn on_status(&mut self, lines: &str, now: Moment) {
        self.watch.on_status();
        let offers = status_poll::offers(lines);
        let services: HashSet<ServiceName> = offers.iter().map(|(service, _)| *service).collect();
        let mut withdrawn: Vec<Key> = Vec::new();
        for key in self.flows.keys() {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if !flow.open || !services.contains(&flow.service) {
                continue;
            }
            match self.redirector.granted(key) {
                Some(provider) if offers.contains(&(flow.service, provider)) => flow.offered = true,
                Some(_) if flow.offered && !flow.port_changed() => withdrawn.push(key),
                _ => {}
            }
        }
        withdrawn.into_iter().for_each(|key| self.finish(key, Outcome::Withdrawn, now));
    }

    /// What the queue says next may be of one that has only just started, and
    /// has not heard of its providers yet.
    fn forget_offers(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.offered = false);
    }

    fn finish(&mut self, key: Key, outcome: Outcome, now: Moment) {
        let Some((sent, received)) = self.flows.get(key).map(|flow| (flow.sent, flow.received))
        else {
            return;
        };
        self.forget(key);
        // One that only speaks, as loggers do, is served as far as anybody knows.
        let lost = sent == 0 && outcome == Outcome::ProviderReset;
        let result = if lost { RequestResult::Reset } else { RequestResult::Good };
        self.redirector.handle_input(
            redirector::Input::Closed { client: key, outcome, result, sent, received },
            now,
        );
    }

    fn forget(&mut self, key: Key) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        if self.by_key.get(&flow.key) == Some(&key) {
            self.by_key.remove(&flow.key);
        }
        flow.resend.clear(&mut self.resend_bytes);
        self.ranking.remove(flow.activity().0);
        self.outputs.push_back(Output::Drop { flow: key });
    }
}

/// Whether this is a read or write request of TFTP (RFC 1350): a number, a name and a
/// mode.
fn is_tftp_request(bytes: &[u8]) -> bool {
    let Some([0, 1 | 2, rest @ ..]) = Some(bytes) else { return false };
    let mut words = rest.split(|byte| *byte == 0);
    let (name, mode) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    !name.is_empty()
        && [&b"octet"[..], b"netascii", b"mail"]
            .iter()
            .any(|known| mode.eq_ignore_ascii_case(known))
}

mod eviction;
mod interface;
mod status_poll;

#[cfg(test)]
mod tests;
