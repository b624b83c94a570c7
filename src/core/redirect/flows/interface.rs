//! What flows are told and what they want done, and what an operator chooses
//! for them. Owns these words only.

use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Span;
use crate::protocol::reply::{ErrorCode, Reply};
use crate::protocol::request::Request;
use crate::redirect::redirector::{RedirectLog, RedirectOptions};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// When the flows of a service end.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// After this silence.
    pub idle: Span,
    /// After so many replies to each datagram; 0: any number.
    pub replies: u32,
    /// At this age.
    pub age: Span,
    /// Every datagram is a flow of its own.
    pub per_datagram: bool,
}

impl Default for FlowLimits {
    fn default() -> Self {
        FlowLimits {
            idle: Span::from_secs(30),
            replies: 0,
            age: Span::from_secs(3600),
            per_datagram: false,
        }
    }
}

/// What an operator chooses.
#[derive(Clone, Debug, Default)]
pub struct FlowOptions {
    /// How a flow finds its provider.
    pub redirect: RedirectOptions,
    /// Flows at once; one more ends another one.
    pub flows_max: usize,
    /// The limits of services that have some of their own.
    pub services: HashMap<ServiceName, FlowLimits>,
}

/// Between whom a flow is, as far as the client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// The number of the socket it came to.
    pub socket: usize,
    /// Where it comes from.
    pub client: SocketAddr,
    /// The address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
}

/// What can happen, besides datagrams.
#[derive(Debug)]
pub enum Input {
    /// The queue answered the question with this id.
    QueueReply {
        /// The question.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached.
    QueueDown,
    /// What the queue holds of a service.
    Status {
        /// The lines of the answer.
        lines: String,
    },
    /// The queue did not do something that it was told, or asked for a status.
    StatusDenied {
        /// Why.
        code: ErrorCode,
    },
    /// The flow has a socket, and what it kept was sent.
    Opened {
        /// The flow.
        flow: Key,
    },
    /// The flow's socket cannot be opened, and this host is not to blame.
    OpenFailed {
        /// The flow.
        flow: Key,
    },
    /// Nobody takes the flow's datagrams.
    ProviderUnreachable {
        /// The flow.
        flow: Key,
    },
    /// This host has no socket for the flow.
    NoLocalPort {
        /// The flow.
        flow: Key,
    },
    /// The static providers of a service, resolved.
    Fallback {
        /// Of which service.
        service: ServiceName,
        /// Perhaps none.
        addresses: Vec<SocketAddr>,
    },
    /// Other options from now on.
    Reconfigure(FlowOptions),
    /// No new flows, and the others shall end.
    Drain,
    /// No new flows of a socket that is about to be closed.
    StopNewFlows {
        /// Which.
        socket: usize,
    },
    /// The flows of a socket end now, as it is closed.
    Close {
        /// Which.
        socket: usize,
    },
    /// All flows end now.
    End,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask or tell the queue.
    SendToQueue(Request),
    /// Tell the operator that the queue does not tell its status.
    StatusDenied,
    /// Open a socket for the flow, in the place of one that it had, and send
    /// what it [kept](super::Flows::unconfirmed) to this address.
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
    Log(RedirectLog),
}
