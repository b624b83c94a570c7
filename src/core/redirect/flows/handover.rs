//! Flows that go on in the process that takes the place of this one.
//!
//! Owns which flows can, and how they begin there. Opens no socket.

use super::moved_flow::MovedFlow;
use super::{Flow, Flows};
use crate::base::outcome::Outcome;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::redirect::flows::interface::FlowKey;

impl Flows {
    /// The flows that have a provider, and what another process must know of them.
    pub fn movable(&self) -> Vec<(Key, MovedFlow)> {
        let open = self.flows.iter().filter(|(_, flow)| flow.open);
        let moved = |flow: &Flow| MovedFlow {
            client: flow.key.client,
            local: flow.key.local,
            to: flow.to,
            peer: flow.peer,
            roams: flow.roams,
            datagrams: flow.datagrams,
            replies: flow.replies,
        };
        open.map(|(key, flow)| (key, moved(flow))).collect()
    }

    /// A flow goes on in another process.
    pub fn moved(&mut self, key: Key, now: Moment) {
        self.finish(key, Outcome::Drained, now);
    }

    /// Goes on with a flow of another process, which came to `port` of this socket. The
    /// queue does not count it. None if the client has begun another flow already.
    pub fn adopt(
        &mut self,
        socket: usize,
        service: ServiceName,
        port: u16,
        moved: &MovedFlow,
        now: Moment,
    ) -> Option<Key> {
        let key = FlowKey { socket, client: moved.client, local: moved.local };
        let limits = self.options.services.get(&service).copied().unwrap_or_default();
        if self.draining || self.by_key.contains_key(&key) || limits.per_datagram {
            return None;
        }
        let flow = Flow {
            open: true,
            adopted: Some(port),
            to: moved.to,
            peer: moved.peer,
            roams: moved.roams,
            served: true,
            datagrams: moved.datagrams,
            replies: moved.replies,
            ..Flow::new(key, service, limits, now)
        };
        let (established, _) = flow.activity();
        let flow = self.insert(flow, now);
        if established {
            self.ranking.promote(flow, now);
        }
        self.watch.request_poll(now);
        self.arm(flow);
        Some(flow)
    }
}
