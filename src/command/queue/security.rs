//! The encrypted connections of a queue, and the strangers among the plain ones.
//!
//! Owns the handshakes of the server, and how long and how many peers may stay without
//! having proved a key. Not responsible for what a key allows (`TicketQueue`).

use super::control_server::{Connection, ControlServer};
use super::link::{Link, Security};
use super::shared::SharedQueue;
use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::secure_link::{SecureLink, Step};
use log::{info, warn};
use pegasus_core::base::cidr::host_network;
use pegasus_core::base::slab::Key;
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::peer_key::PeerKey;
use pegasus_core::protocol::record::{self, Opening};
use pegasus_core::queue::ticket_queue::Input;
use std::sync::Arc;

/// How long a peer may take to prove its key, or a stranger to be denied.
const HANDSHAKE_TIMEOUT: Span = Span::from_secs(5);
/// Connections of addresses that no list and no key names, as long as they have not proved
/// a key. One more takes the place of one from where most of them come.
const STRANGERS_MAX: usize = 64;
/// How many of these may come from one network.
const STRANGERS_PER_NETWORK: usize = 16;
/// How often refused handshakes are reported.
const REPORT_INTERVAL: Span = Span::from_secs(60);

/// How a connection goes on after its bytes were looked at.
#[derive(PartialEq, Eq)]
enum Advance {
    /// Lines came, for the responder.
    Lines,
    /// It may be read.
    Read,
    /// Not in this turn.
    Later,
    /// It is closed.
    Closed,
}

impl ControlServer {
    /// A connection of an unknown address came.
    pub(super) fn admit_stranger(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) {
        self.set_deadline(key, cx);
        let Some(connection) = self.connections.get(key) else { return };
        let network = host_network(connection.from.ip());
        self.security.strangers_now += 1;
        self.forget_known();
        let same = self.security.strangers.iter().filter(|(_, known)| *known == network);
        let oldest = same.clone().next().copied();
        if same.count() >= STRANGERS_PER_NETWORK {
            if let Some((oldest, _)) = oldest {
                self.close(oldest, queue, cx);
            }
        } else if self.security.strangers_now > STRANGERS_MAX {
            self.displace_stranger(queue, cx);
        }
        self.security.strangers.push_back((key, network));
    }

    /// Strangers that are gone or have proved a key are none any more.
    fn forget_known(&mut self) {
        let connections = &self.connections;
        self.security.strangers.retain(|(key, _)| {
            connections.get(*key).is_some_and(|connection| connection.is_stranger)
        });
    }

    /// Makes room by closing the connection of a stranger.
    pub(super) fn displace_stranger(&mut self, queue: &mut SharedQueue, cx: &mut Context) -> bool {
        self.forget_known();
        let Some(stranger) = self.security.pop_stranger() else { return false };
        self.close(stranger, queue, cx);
        true
    }

    fn set_deadline(&mut self, key: Key, cx: &Context) {
        let deadline = cx.now + HANDSHAKE_TIMEOUT;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.deadline.is_none() {
            connection.deadline = Some(deadline);
            self.security.deadlines.push_back((deadline, key));
            if self.security.deadlines.len() > 4 * self.connections.len() + 1024 {
                let connections = &self.connections;
                self.security.deadlines.retain(|(_, key)| {
                    connections.get(*key).is_some_and(|known| known.deadline.is_some())
                });
            }
        }
    }

    /// Closes connections that did not prove a key in time.
    pub(super) fn close_unproved(&mut self, queue: &mut SharedQueue, cx: &mut Context) {
        while let Some((deadline, key)) = self.security.deadlines.front().copied() {
            if cx.now < deadline {
                return;
            }
            self.security.deadlines.pop_front();
            let connection = self.connections.get(key);
            if connection.is_some_and(|known| known.deadline == Some(deadline)) {
                self.close(key, queue, cx);
            }
        }
    }

    /// Takes bytes that were read: lines go to the responder, all else waits for
    /// [`take_records`](ControlServer::take_records).
    pub(super) fn take_bytes(&mut self, key: Key, count: usize, cx: &Context) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let bytes = &self.buffer[..count];
        match &mut connection.link {
            Link::Plain => connection.responder.receive(bytes),
            Link::Secure { link, .. } => link.push(bytes),
            Link::Undecided(held) => {
                held.extend_from_slice(bytes);
                match record::opening(held) {
                    Opening::Incomplete => {}
                    Opening::Plain => {
                        connection.responder.receive(held);
                        connection.link = Link::Plain;
                    }
                    Opening::Secure(name, end) => {
                        let mut link = Box::new(SecureLink::accept(name));
                        link.push(&held[end..]);
                        connection.link = Link::Secure { link, proved: None };
                        self.set_deadline(key, cx);
                    }
                }
            }
        }
    }

    /// Takes the next step of an encrypted connection: what is in a record goes to the
    /// responder, one record a time.
    fn advance(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) -> Advance {
        let Some(connection) = self.connections.get_mut(key) else { return Advance::Closed };
        let Security { keys, decoy, budget, lines, .. } = &mut self.security;
        let Link::Secure { link, proved } = &mut connection.link else { return Advance::Read };
        lines.clear();
        let was_up = link.is_up();
        let step = link.step(keys, decoy, budget, lines);
        let answered = link.is_up() && !was_up;
        match step {
            Step::Wait => {}
            Step::OutOfBudget => {
                self.go_on_later(key, cx);
                return Advance::Later;
            }
            Step::Failed => return self.refuse(key, queue, cx),
            Step::Lines => {
                connection.responder.receive(lines);
                if proved.is_none() {
                    let still_good = link.key().and_then(|key| keys.successor_of(key)).cloned();
                    let Some(good) = still_good else { return self.refuse(key, queue, cx) };
                    *proved = Some(Arc::clone(&good));
                    self.proved(key, good, queue, cx);
                }
                return Advance::Lines;
            }
        }
        if answered {
            self.mark_dirty(key);
        }
        Advance::Read
    }

    /// Takes what is in the records of an encrypted connection; returns whether it may be
    /// read on.
    pub(super) fn take_records(
        &mut self,
        key: Key,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) -> bool {
        loop {
            let is_full = |connection: &Connection| connection.responder.is_backpressured();
            if self.connections.get(key).is_some_and(is_full) {
                return true;
            }
            match self.advance(key, queue, cx) {
                Advance::Lines if !self.handle_requests(key, queue, cx) => return false,
                Advance::Lines => {}
                Advance::Read => return true,
                Advance::Later | Advance::Closed => return false,
            }
        }
    }

    /// A peer has proved that it has this key.
    fn proved(&mut self, key: Key, peer_key: Arc<PeerKey>, queue: &SharedQueue, cx: &Context) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.deadline = None;
        self.security.forget_stranger(&mut connection.is_stranger);
        let (name, ip) = (peer_key.name, connection.from.ip().to_canonical());
        let (from, role) = (connection.from, peer_key.role.word());
        info!(target: "queue", "connected {from} key={name} role={role}");
        let known = self.security.sources.entry(name).or_insert((ip, false));
        if known.0 != ip && !std::mem::replace(&mut known.1, true) {
            warn!(target: "queue", "key={name} is used from {} and from {ip}; each host should \
                have a key of its own", known.0);
        }
        let mut none = Vec::new();
        queue.ask(Input::Authenticated { connection: key, key: peer_key }, cx.now, &mut none);
    }

    /// Ends a connection whose peer could not prove a key, or whose bytes are forged.
    fn refuse(&mut self, key: Key, queue: &mut SharedQueue, cx: &mut Context) -> Advance {
        if let Some(connection) = self.connections.get(key) {
            if let Some(count) = self.security.refusals.allow(cx.now, REPORT_INTERVAL) {
                let others = count - 1;
                warn!(target: "queue", "{}: refused, it does not prove a key that is in key_file; \
                    {others} others since the last report", connection.from);
            }
        }
        queue.handle_input(Input::AuthenticationFailed, cx.now);
        self.close(key, queue, cx);
        Advance::Closed
    }

    /// Other keys and lists are good from now on.
    pub(super) fn reconfigure_security(
        &mut self,
        settings: &Settings,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) {
        self.security.reconfigure(settings);
        queue.handle_input(Input::KeysChanged(Arc::clone(&settings.keys)), cx.now);
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let Link::Secure { proved: Some(old), .. } = &mut connection.link else { continue };
            match settings.keys.successor_of(old) {
                Some(same) if same == old => {}
                Some(changed) => {
                    *old = Arc::clone(changed);
                    let input = Input::Authenticated { connection: key, key: Arc::clone(changed) };
                    queue.handle_input(input, cx.now);
                }
                None => {
                    let (from, name) = (connection.from, old.name);
                    info!(target: "queue", "{from}: key={name} was removed, its session ends");
                    self.close(key, queue, cx);
                }
            }
        }
    }
}

impl Connection {
    /// Whether something is to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        let encrypted = match &self.link {
            Link::Secure { link, .. } => !link.out.is_empty(),
            Link::Undecided(_) | Link::Plain => false,
        };
        encrypted || !self.responder.out.is_empty()
    }

    /// The peer will send no more.
    pub(super) fn end(&mut self) {
        match &mut self.link {
            Link::Secure { .. } => self.responder.end_at_line(),
            Link::Plain => self.responder.end(),
            Link::Undecided(held) => {
                self.responder.receive(held);
                self.link = Link::Plain;
                self.responder.end();
            }
        }
    }
}
