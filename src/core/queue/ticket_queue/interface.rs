//! What a ticket queue is told and what it wants done, and what an operator
//! chooses for it. Owns these words only.

use crate::base::cidr::Cidr;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::ticket::TICKETS_MAX;
use crate::base::time::Span;
use crate::protocol::peer_key::{KeyName, KeyTable, PeerKey};
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::protocol::responder::ReplySlot;
use crate::scheduler::SchedulerName;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// For services without their own.
    pub scheduler: SchedulerName,
    /// For these services.
    pub schedulers: Vec<(ServiceName, SchedulerName)>,
    /// Services whose clients keep their provider, and for how long after they came.
    pub affinities: Vec<(ServiceName, Span)>,
    /// How long a program that schedules may take for an answer.
    pub plugin_timeout: Span,
    /// Lease of an offer that gives none.
    pub lease: Span,
    /// The longest lease; longer ones are cut.
    pub lease_max: Span,
    /// The most tickets of a provider; more are cut.
    pub tickets_max: u32,
    /// Providers of one service that one source may offer, unless it is this host.
    pub source_providers_max: usize,
    /// The longest wait.
    pub wait_max: Span,
    /// Waiting requests per service.
    pub waiting_max: usize,
    /// Providers per service.
    pub providers_max: usize,
    /// Services.
    pub services_max: usize,
    /// Who may offer and withdraw.
    pub allow_ticket: Vec<Cidr>,
    /// Who may ask for providers and report failures.
    pub allow_next: Vec<Cidr>,
    /// Who may look.
    pub allow_status: Vec<Cidr>,
    /// Networks from which providers may be drained and resumed.
    pub allow_drain: Vec<Cidr>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            scheduler: SchedulerName::DEFAULT,
            schedulers: Vec::new(),
            affinities: Vec::new(),
            plugin_timeout: Span::from_millis(50),
            lease: Span::from_secs(30),
            lease_max: Span::from_secs(3600),
            tickets_max: TICKETS_MAX,
            source_providers_max: 64,
            wait_max: Span::from_secs(30),
            waiting_max: 10_000,
            providers_max: 4096,
            services_max: 256,
            allow_ticket: Cidr::LOOPBACK.to_vec(),
            allow_next: Cidr::LOOPBACK.to_vec(),
            allow_status: Cidr::LOOPBACK.to_vec(),
            allow_drain: Cidr::LOOPBACK.to_vec(),
        }
    }
}

/// What can happen to a ticket queue. A connection's key is its owner's.
#[derive(Debug)]
pub enum Input {
    /// A connection opened.
    Connected {
        /// Its key.
        connection: Key,
        /// The address it comes from.
        peer: IpAddr,
    },
    /// A part of the queue's own process joined in: as good as a connection
    /// from this host, and no list says what it may not.
    LocalConnected {
        /// Its key.
        connection: Key,
    },
    /// It proved that it has this key: the key alone says from now on what it may ask
    /// for. Again, when the key was given other rights.
    Authenticated {
        /// Its key in the slab.
        connection: Key,
        /// The key that it proved to have.
        key: Arc<PeerKey>,
    },
    /// A connection could not prove that it has a key, or sent a forged record.
    AuthenticationFailed,
    /// Other keys are good from now on.
    KeysChanged(Arc<KeyTable>),
    /// It asks.
    Request {
        /// Its key.
        connection: Key,
        /// To be given back with the answer.
        slot: ReplySlot,
        /// What.
        request: Request,
    },
    /// It will send no more requests, but may still read.
    ReadClosed {
        /// Its key.
        connection: Key,
    },
    /// The last reply cannot have arrived: the peer closed the connection before it.
    SendFailed {
        /// Its key.
        connection: Key,
    },
    /// It is gone: what it held is free, who waited on it is forgotten.
    Disconnected {
        /// Its key.
        connection: Key,
    },
    /// The program that schedules for a service can be asked, or not any more.
    PluginState {
        /// Which service.
        service: ServiceName,
        /// Whether it can.
        up: bool,
    },
    /// It said a line.
    PluginReply {
        /// For which service.
        service: ServiceName,
        /// What.
        line: String,
    },
    /// Other options from now on.
    Reconfigure(Box<QueueOptions>),
    /// The end is near: no request waits any more, nothing is granted.
    Drain,
}

/// What a ticket queue wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Answer a request.
    Reply {
        /// On this connection.
        connection: Key,
        /// As it was asked.
        slot: ReplySlot,
        /// With this.
        reply: Reply,
    },
    /// Start this program, which schedules for a service; none: end it.
    StartPlugin {
        /// Which service.
        service: ServiceName,
        /// The program.
        command: Option<Arc<str>>,
    },
    /// Tell the program of a service this line.
    PluginSend {
        /// Which service.
        service: ServiceName,
        /// What.
        line: String,
    },
    /// The program of a service gave an answer that is one.
    PluginOk {
        /// Which service.
        service: ServiceName,
    },
    /// The program of a service is of no use: start it anew, later. Why.
    RestartPlugin {
        /// Which service.
        service: ServiceName,
        /// In words.
        why: &'static str,
    },
    /// Tell the operator.
    Log(QueueLog),
}

/// What an operator may want to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueLog {
    /// What happened to the provider.
    pub event: ProviderEvent,
    /// Of which service.
    pub service: ServiceName,
    /// Which provider.
    pub provider: Provider,
    /// The key that it came by, if it came by one.
    pub key: Option<KeyName>,
}

/// What can happen to a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProviderEvent {
    /// It offers, and did not before.
    Registered,
    /// It withdrew.
    Withdrew,
    /// A redirector found it dead.
    Failed,
    /// It was not heard of in time.
    LeaseEnded,
    /// It gave way to one of another source, because the service was full.
    Displaced,
    /// Two connections offer it, and overwrite each other.
    Contested,
    /// An operator drained it.
    Drained,
    /// An operator resumed it.
    Resumed,
}

impl fmt::Display for QueueLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueueLog { event, service, provider, key } = self;
        write!(f, "{} service={service} provider={provider}", event.word())?;
        key.map_or(Ok(()), |key| write!(f, " key={key}"))
    }
}

impl ProviderEvent {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            ProviderEvent::Registered => "registered",
            ProviderEvent::Withdrew => "withdrew",
            ProviderEvent::Failed => "failed",
            ProviderEvent::LeaseEnded => "lease-ended",
            ProviderEvent::Displaced => "displaced",
            ProviderEvent::Contested => "contested",
            ProviderEvent::Drained => "drained",
            ProviderEvent::Resumed => "resumed",
        }
    }
}
