//! What a redirector is told and what it wants done, and what an operator
//! chooses for it. Owns these words only.

use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Span;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Request, RequestResult};
use crate::redirect::ticket_wait::TicketWait;
use std::net::SocketAddr;

/// How many tickets of a service are asked for before clients come for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefetchSize {
    /// As many as this; 0: none.
    Fixed(u32),
    /// As many as clients will need in a moment, while the queue has enough.
    Auto,
}

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct RedirectOptions {
    /// How long a client may wait for a ticket.
    pub wait: TicketWait,
    /// How long clients wait for a queue that cannot be reached.
    pub queue_timeout: Span,
    /// Providers to try for one client.
    pub tries: u32,
    /// Per try.
    pub connect_timeout: Span,
    /// Places to have at hand for each service, before clients come for them.
    pub prefetch: PrefetchSize,
    /// Services of which it matters who asks: nothing is asked ahead for them.
    pub by_client: Vec<ServiceName>,
}

impl Default for RedirectOptions {
    fn default() -> Self {
        RedirectOptions {
            wait: Span::from_secs(1).into(),
            queue_timeout: Span::from_secs(5),
            tries: 4,
            connect_timeout: Span::from_secs(3),
            prefetch: PrefetchSize::Fixed(0),
            by_client: Vec::new(),
        }
    }
}

/// Why a provider could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It refused the connection, or no host is there.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// It reset the connection before a byte was exchanged.
    Reset,
}

impl Failure {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::TimedOut => "timed-out",
            Failure::Reset => "reset",
        }
    }
}

/// What can happen to a redirector. A client's key is its owner's.
#[derive(Debug)]
pub enum Input {
    /// A client came.
    Arrived {
        /// Its key.
        client: Key,
        /// What it wants.
        service: ServiceName,
        /// Where it comes from.
        from: SocketAddr,
        /// The port it came to.
        port: u16,
    },
    /// The queue answered the question with this id.
    QueueReply {
        /// The question.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached; what it was asked is void.
    QueueDown,
    /// The client's provider answered the call.
    Connected {
        /// The client.
        client: Key,
    },
    /// The client's provider failed, and no byte was exchanged with it.
    ConnectFailed {
        /// The client.
        client: Key,
        /// Why.
        why: Failure,
    },
    /// This host may not or cannot reach the provider now, which is not the provider's
    /// fault: no local port is left towards it, or a local firewall forbids it.
    ConnectBlocked {
        /// The client.
        client: Key,
    },
    /// This host has no socket for the client, whatever the provider.
    NoSocket {
        /// The client.
        client: Key,
    },
    /// This host has no socket for the call now: it is made later.
    ConnectDeferred {
        /// The client.
        client: Key,
    },
    /// A call that had to wait is made now.
    ConnectStarted {
        /// The client.
        client: Key,
    },
    /// The client left while it was waiting.
    ClientLeft {
        /// The client.
        client: Key,
    },
    /// The client is served: what failed before it is forgotten.
    ProviderConfirmed {
        /// The client.
        client: Key,
    },
    /// The client's provider failed, and the client needs no other one.
    ProviderLost {
        /// The client.
        client: Key,
        /// Why.
        why: Failure,
        /// Bytes to the client.
        sent: u64,
        /// Bytes from the client.
        received: u64,
    },
    /// The relay is over.
    Closed {
        /// The client.
        client: Key,
        /// How.
        outcome: Outcome,
        /// What the provider made of it, for the queue.
        result: RequestResult,
        /// Our address on the connection to the provider, if it is to be logged.
        local: Option<SocketAddr>,
        /// Bytes to the client.
        sent: u64,
        /// Bytes from the client.
        received: u64,
    },
    /// The static providers of a service, resolved.
    Fallback {
        /// Of which service.
        service: ServiceName,
        /// Perhaps none.
        addresses: Vec<SocketAddr>,
    },
    /// Other options from now on.
    Reconfigure(RedirectOptions),
}

/// What a redirector wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask or tell the queue.
    SendToQueue(Request),
    /// Call this address for the client; drop an earlier call.
    Connect {
        /// The client.
        client: Key,
        /// The client.
        to: SocketAddr,
    },
    /// Drop the client's call: it took too long. The client stays.
    AbortConnect {
        /// The client.
        client: Key,
    },
    /// Close the client's connection with a reset, and drop its call.
    ResetClient {
        /// The client.
        client: Key,
    },
    /// Tell the operator.
    Log(RedirectLog),
}

/// What an operator may want to read.
#[derive(Clone, PartialEq, Debug)]
pub enum RedirectLog {
    /// A client is gone.
    Closed {
        /// What it wanted.
        service: ServiceName,
        /// Where it came from.
        client: SocketAddr,
        /// Our address on the connection to the provider, where that is known: what the
        /// provider's own log calls its client.
        local: Option<SocketAddr>,
        /// The provider that served it, if any.
        provider: Option<Provider>,
        /// How it ended.
        outcome: Outcome,
        /// Bytes to the client.
        sent: u64,
        /// Bytes from the client.
        received: u64,
        /// From its coming to the provider's answer.
        waited: Span,
        /// From its coming to its going.
        lasted: Span,
    },
    /// A provider failed, and the client is led to another one.
    ProviderFailed {
        /// Of which service.
        service: ServiceName,
        /// Which.
        provider: Provider,
        /// Why.
        why: Failure,
    },
}
