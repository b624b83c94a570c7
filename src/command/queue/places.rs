//! Who makes room when all control connections are in use.
//!
//! Owns the choice of the connection that is closed for another one.

use super::control_server::{Connection, ControlServer};
use super::link::Link;
use super::shared::SharedQueue;
use crate::net::event_loop::Context;
use pegasus_core::base::cidr::host_network;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::ErrorCode;
use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// When all connections are in use, a new one replaces the oldest that has sent no
/// request for this time.
const SILENT_MAX: Span = Span::from_secs(1);
impl ControlServer {
    /// Makes room for a connection of `from`: a stranger gives way, or the oldest connection
    /// that has sent no allowed request, or the youngest one of the source that has by far
    /// the most. A stranger takes the place of other strangers only.
    pub(super) fn displace(
        &mut self,
        from: SocketAddr,
        for_stranger: bool,
        queue: &mut SharedQueue,
        cx: &mut Context,
    ) -> bool {
        if self.displace_stranger(queue, cx) || for_stranger {
            return self.connections.len() < self.connections_max;
        }
        let displaced = self.silent(cx.now).or_else(|| self.of_largest_source(from, queue));
        let Some(key) = displaced else { return false };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.responder.refuse(ErrorCode::Busy);
            if !matches!(connection.link, Link::Secure { .. }) {
                let _ = connection.stream.write(connection.responder.out.bytes());
            }
        }
        self.close(key, queue, cx);
        true
    }

    /// The oldest connection that has sent no allowed request, if it had the time to.
    fn silent(&mut self, now: Moment) -> Option<Key> {
        while let Some(key) = self.newcomers.front().copied() {
            match self.connections.get(key) {
                Some(connection) if !connection.has_sent => {
                    let is_silent = now.since(connection.last_active) >= SILENT_MAX;
                    return Some(key).filter(|_| is_silent);
                }
                _ => drop(self.newcomers.pop_front()),
            }
        }
        None
    }

    /// The youngest connection of the source that has most, if that is more than twice as
    /// many as `from` has: one without requests if there is one.
    fn of_largest_source(&self, from: SocketAddr, queue: &SharedQueue) -> Option<Key> {
        let source = |connection: &Connection| host_network(connection.from.ip());
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, connection) in self.connections.iter() {
            *counts.entry(source(connection)).or_default() += 1;
        }
        let own = counts.get(&host_network(from.ip())).copied().unwrap_or(0);
        let (largest, _) = counts
            .into_iter()
            .max_by_key(|(ip, count)| (*count, *ip))
            .filter(|(_, count)| *count > 2 * own + 1)?;
        let same = self.connections.iter().filter(|(_, other)| source(other) == largest);
        same.max_by_key(|(key, other)| (!queue.has_requests(*key), other.serial))
            .map(|(key, _)| key)
    }
}
