//! What an answerer is told and what it wants done.

use crate::base::outcome::Outcome;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::Span;
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::redirect::ticket_wait::TicketWait;
use std::net::{IpAddr, SocketAddr};

/// The most providers in an answer.
pub const PROVIDERS_MAX: usize = 8;

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// How long a question may wait for a ticket.
    pub wait: TicketWait,
    /// How long it may wait for a queue that cannot be reached or does not answer.
    pub queue_timeout: Span,
}

/// What a question wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// One provider.
    One,
    /// Addresses of these families, each once.
    Addresses {
        /// IPv4.
        v4: bool,
        /// IPv6.
        v6: bool,
    },
    /// Addresses of any family with their ports.
    Places,
    /// Whether a provider has this address. No ticket is spent for that.
    Host(IpAddr),
}

impl Wanted {
    /// Whether this address can be in the answer.
    pub(super) fn includes(self, ip: IpAddr) -> bool {
        match self {
            Wanted::One | Wanted::Places => true,
            Wanted::Addresses { v4, v6 } => {
                if ip.is_ipv4() {
                    v4
                } else {
                    v6
                }
            }
            Wanted::Host(host) => host == ip,
        }
    }
}

/// What can happen to an answerer. A question's key is its owner's.
#[derive(Debug)]
pub enum Input {
    /// A question came.
    Asked {
        /// Its key.
        question: Key,
        /// Of which service.
        service: ServiceName,
        /// Who asks.
        client: IpAddr,
        /// What for.
        wanted: Wanted,
    },
    /// Its asker is gone.
    Forget {
        /// Its key.
        question: Key,
    },
    /// The queue can be asked.
    QueueUp,
    /// The queue cannot be reached; what it was asked is void.
    QueueDown,
    /// The queue answered the oldest request that it had not answered yet.
    QueueAnswer(Reply),
    /// The static providers of a service, resolved.
    Fallback {
        /// Of which service.
        service: ServiceName,
        /// Perhaps none.
        addresses: Vec<SocketAddr>,
    },
    /// Other options from now on.
    Reconfigure(AnswerOptions),
}

/// What comes of a question.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// These providers, at least one and at most [`PROVIDERS_MAX`]; the chosen one first.
    Providers(Vec<Provider>),
    /// The service has providers, and none of a family that was wanted.
    OtherFamily,
    /// No provider has this address.
    NoSuchHost,
    /// There is none.
    Refused(Outcome),
}

/// What an answerer wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask the queue.
    SendToQueue(Request),
    /// Answer a question, which is over.
    Answer {
        /// Its key.
        question: Key,
        /// With this.
        answer: Answer,
    },
}
