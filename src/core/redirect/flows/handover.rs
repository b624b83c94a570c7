//! Flows that go on in the process that takes the place of this one.
//!
//! Owns what the other process must know of a flow, as a line of text. The socket that
//! leads to the provider goes with it. Opens no socket.

use super::{Activity, Flow, Flows, Outcome};
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::redirect::flows::FlowKey;
use crate::redirect::resend_buffer::ResendBuffer;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What goes with a flow. How long it was silent and how old it is starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovedFlow {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client sends to, where the system reports it.
    pub local: Option<IpAddr>,
    /// The provider's address.
    pub to: SocketAddr,
    /// The one that replied last: of the provider, perhaps another port.
    pub peer: SocketAddr,
    /// Replies may come from any port of the provider.
    pub roams: bool,
    /// Datagrams from the client, and replies.
    pub datagrams: u32,
    /// See there.
    pub replies: u32,
}

impl fmt::Display for MovedFlow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let MovedFlow { client, to, peer, datagrams, replies, .. } = self;
        let local = self.local.map_or("-".to_string(), |ip| ip.to_string());
        let roams = u8::from(self.roams);
        write!(f, "{client} {local} {to} {peer} {roams} {datagrams} {replies}")
    }
}

impl FromStr for MovedFlow {
    type Err = ();

    /// Words that follow are of a newer program.
    fn from_str(line: &str) -> Result<MovedFlow, ()> {
        fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Result<T, ()> {
            words.next().and_then(|word| word.parse().ok()).ok_or(())
        }
        let words = &mut line.split(' ');
        Ok(MovedFlow {
            client: next(words)?,
            local: match words.next().ok_or(())? {
                "-" => None,
                ip => Some(ip.parse().map_err(drop)?),
            },
            to: next(words)?,
            peer: next(words)?,
            roams: next::<u8>(words)? != 0,
            datagrams: next(words)?,
            replies: next(words)?,
        })
    }
}

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
        let flow = self.insert(
            Flow {
                open: true,
                adopted: Some(port),
                to: moved.to,
                peer: moved.peer,
                resend: ResendBuffer::default(),
                roams: moved.roams,
                served: true,
                datagrams: moved.datagrams,
                replies: moved.replies,
                ..Flow::new(key, service, limits, now)
            },
            now,
        );
        let is_established = |(established, _): Activity| established;
        if self.flows.get(flow).is_some_and(|flow| is_established(flow.activity())) {
            self.ranking.promote(flow, now);
        }
        self.watch.request_poll(now);
        self.arm(flow);
        Some(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_flow_is() {
        for line in [
            "192.0.2.1:5060 - 10.0.0.1:5060 10.0.0.1:5060 0 7 5",
            "[::1]:4000 ::ffff:127.0.0.1 [fe80::1%2]:69 [fe80::1%2]:4001 1 4294967295 0",
        ] {
            assert_eq!(line.parse::<MovedFlow>().unwrap().to_string(), line);
            assert!(format!("{line} more").parse::<MovedFlow>().is_ok());
            let cut = line.rsplit_once(' ').unwrap().0;
            assert!(cut.parse::<MovedFlow>().is_err(), "{cut}");
        }
    }
}
