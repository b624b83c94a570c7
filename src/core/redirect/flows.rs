//! UDP flows: the datagrams from one client address to one listening address go to one
//! provider, and its replies come back.
//!
//! Owns which flow a datagram belongs to, the datagrams that wait for a provider, and
//! when a flow ends. The [`Redirector`] finds its provider and reports to the queue: to
//! it, a flow is a client like any other. Knows no socket.

use super::redirector::{self, Redirector};
use super::resend_buffer::{ResendBuffer, TAKEN_AFTER};
use crate::base::outcome::Outcome;
use crate::base::service_name::ServiceName;
use crate::base::slab::{Key, Slab};
use crate::base::state_machine::StateMachine;
use crate::base::time::{Moment, Span};
use crate::base::timer_queue::TimerQueue;
use crate::protocol::request::RequestResult;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use eviction::{Activity, EvictionOrder};
pub use interface::{FlowKey, FlowLimits, FlowOptions, Input, Output};
pub use moved_flow::MovedFlow;
use status_poll::StatusPoller;

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
    /// Another process found its provider, and the redirector does not know it. Its
    /// client came to this port.
    adopted: Option<u16>,
    /// Replies may come from any port of the provider.
    roams: bool,
    /// When the last datagram was sent to the provider, and when one was refused since
    /// the provider was last heard.
    sent_at: Moment,
    refused_at: Option<Moment>,
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
    /// One without a provider.
    fn new(key: FlowKey, service: ServiceName, limits: FlowLimits, now: Moment) -> Flow {
        Flow {
            key,
            service,
            limits,
            open: false,
            offered: false,
            to: key.client,
            peer: key.client,
            resend: ResendBuffer::default(),
            adopted: None,
            roams: false,
            sent_at: now,
            refused_at: None,
            served: false,
            datagrams: 0,
            replies: 0,
            sent: 0,
            received: 0,
            opened: now,
            touched: now,
            timer: Moment::NEVER,
        }
    }

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

    /// Where a flow's datagrams go now.
    pub fn peer(&self, flow: Key) -> Option<SocketAddr> {
        self.flows.get(flow).map(|flow| flow.peer)
    }

    /// Whether any port of the provider may reply: the service allows it, or the flow
    /// began with a request of TFTP, which has a port for each transfer.
    pub fn roams(&self, flow: Key) -> bool {
        self.flows.get(flow).is_some_and(|flow| flow.roams)
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
        let limits = self.options.services.get(&service).copied().unwrap_or_default();
        let roams = limits.any_port || is_tftp_request(bytes);
        let flow = Flow { roams, ..Flow::new(flow_key, service, limits, now) };
        let flow = self.insert(flow, now);
        self.request_provider(flow, port, now);
        self.on_known_flow(flow, bytes, now)
    }

    /// Adds a flow, in the place of another one if there is no room.
    fn insert(&mut self, flow: Flow, now: Moment) -> Key {
        self.evict(now);
        let flow_key = flow.key;
        let per_datagram = flow.limits.per_datagram;
        let key = self.flows.insert(flow);
        if !per_datagram {
            self.by_key.insert(flow_key, key);
        }
        self.ranking.insert(key, now);
        let flows = &self.flows;
        self.ranking.prune(|key| flows.get(key).map(Flow::activity));
        key
    }

    /// The redirector finds a provider for a flow that came to this port.
    fn request_provider(&mut self, key: Key, port: u16, now: Moment) {
        let Some(flow) = self.flows.get(key) else { return };
        let client = flow.key.client;
        let from = SocketAddr::new(client.ip().to_canonical(), client.port());
        let arrived = redirector::Input::Arrived { client: key, service: flow.service, from, port };
        self.redirector.handle_input(arrived, now);
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
        if open {
            flow.sent_at = now;
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
        let same_port = from.port() == flow.to.port();
        if from.ip().to_canonical() != flow.to.ip() || !(same_port || flow.roams) {
            return None;
        }
        flow.peer.set_port(from.port());
        flow.touched = now;
        flow.refused_at = None;
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
        flow.sent_at = now;
        flow.refused_at = None;
        flow.resend.sent(now);
        self.redirector.handle_input(redirector::Input::Connected { client: key }, now);
        self.watch.request_poll(now);
        self.arm(key);
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
                let FlowLimits { per_datagram, any_port, .. } = flow.limits;
                flow.limits = FlowLimits { per_datagram, any_port, ..*limits };
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
        let flows = &self.flows;
        self.timers.prune(|key| flows.get(key).is_some());
    }

    /// Ends the flows for which `these` holds: their time is over.
    fn drained(&mut self, these: impl Fn(&FlowKey) -> bool, now: Moment) {
        let keys: Vec<Key> =
            self.flows.iter().filter(|(_, flow)| these(&flow.key)).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.finish(key, Outcome::Drained, now));
    }

    fn finish(&mut self, key: Key, outcome: Outcome, now: Moment) {
        let Some((sent, received)) = self.flows.get(key).map(|flow| (flow.sent, flow.received))
        else {
            return;
        };
        self.forget(key);
        // One that only speaks, as loggers do, is served as far as can be known.
        let lost = sent == 0 && outcome == Outcome::ProviderReset;
        let result = if lost { RequestResult::Reset } else { RequestResult::Good };
        self.redirector.handle_input(
            redirector::Input::Closed { client: key, outcome, result, local: None, sent, received },
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
mod failures;
mod handover;
mod interface;
mod moved_flow;
mod status_poll;
mod withdrawals;

#[cfg(test)]
mod tests;
