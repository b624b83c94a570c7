//! The inputs and outputs of flows, and the options that an operator sets. Owns these
//! types only.

use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Span;
use crate::protocol::reply::{ErrorCode, Reply};
use crate::protocol::request::Request;
use crate::redirect::redirector::{RedirectLog, RedirectOptions};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// When the flows of a service end.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// After this time without a datagram.
    pub idle: Span,
    /// After this many replies to each datagram; 0: never.
    pub replies: u32,
    /// At this age.
    pub age: Span,
    /// Every datagram is a flow of its own.
    pub per_datagram: bool,
    /// Any port of the provider may reply.
    pub any_port: bool,
}

impl Default for FlowLimits {
    fn default() -> Self {
        FlowLimits {
            idle: Span::from_secs(30),
            replies: 0,
            age: Span::from_secs(3600),
            per_datagram: false,
            any_port: false,
        }
    }
}

/// The options of the flows, from the configuration.
#[derive(Clone, Debug, Default)]
pub struct FlowOptions {
    /// How a flow finds its provider.
    pub redirect: RedirectOptions,
    /// Most flows at once; a further one evicts another.
    pub flows_max: usize,
    /// The limits of services whose limits are not the default.
    pub services: HashMap<ServiceName, FlowLimits>,
}

/// What identifies a flow: its two ends as the client sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// The number of the socket that received it.
    pub socket: usize,
    /// The client's address.
    pub client: SocketAddr,
    /// The address it was sent to, where the system reports it.
    pub local: Option<IpAddr>,
}

/// In three writes instead of nine: the key of each datagram is hashed.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        state.write_u128(bits(self.client.ip()));
        state.write_u128(self.local.map_or(0, bits));
        state.write_u64((self.socket as u64) << 16 | u64::from(self.client.port()));
    }
}

/// What can happen, besides datagrams.
#[derive(Debug)]
pub enum Input {
    /// The queue replied to the request with this id.
    QueueReply {
        /// The id.
        id: u32,
        /// The reply.
        reply: Reply,
    },
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached.
    QueueDown,
    /// The queue's status of a service.
    Status {
        /// The lines of the reply.
        lines: String,
    },
    /// The queue answered a request without an id with an error.
    StatusDenied {
        /// Why.
        code: ErrorCode,
    },
    /// The flow's socket is open, and the datagrams that it kept were sent.
    Opened {
        /// The flow.
        flow: Key,
    },
    /// The flow's socket cannot be opened, for a reason that is not on this host.
    OpenFailed {
        /// The flow.
        flow: Key,
    },
    /// The provider's host refused one of the flow's datagrams. Reported for each.
    ProviderUnreachable {
        /// The flow.
        flow: Key,
    },
    /// This host may not or cannot send to the provider now, which is not the provider's
    /// fault: a local firewall forbids it, or no local port is left towards it.
    SendBlocked {
        /// The flow.
        flow: Key,
    },
    /// This host has no socket for the flow.
    NoSocket {
        /// The flow.
        flow: Key,
    },
    /// The resolved addresses of a service's fallback.
    Fallback {
        /// The service.
        service: ServiceName,
        /// May be empty.
        addresses: Vec<SocketAddr>,
    },
    /// New options.
    Reconfigure(FlowOptions),
    /// Drain: no new flows, and the others end as soon as they are silent.
    Drain,
    /// No new flows of a socket that is about to close.
    StopNewFlows {
        /// The socket.
        socket: usize,
    },
    /// The flows of a socket end now, because it closes.
    Close {
        /// The socket.
        socket: usize,
    },
    /// All flows end now.
    End,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this request to the queue.
    SendToQueue(Request),
    /// Tell the operator that the queue denies its status.
    StatusDenied,
    /// Open a socket for the flow, instead of an earlier one, and send the datagrams that
    /// it [kept](super::Flows::unconfirmed) to this address.
    Open {
        /// The flow.
        flow: Key,
        /// The provider's address.
        to: SocketAddr,
    },
    /// Send the last of what the flow [kept](super::Flows::unconfirmed) to this address
    /// again: whether that is refused, too, shows whether the provider is dead.
    Probe {
        /// The flow.
        flow: Key,
        /// The provider's address.
        to: SocketAddr,
        /// It is the flow's first datagram, and its only one.
        first: bool,
    },
    /// Close the flow's socket, if it has one.
    Drop {
        /// The flow.
        flow: Key,
    },
    /// Log this event.
    Log(RedirectLog),
}
