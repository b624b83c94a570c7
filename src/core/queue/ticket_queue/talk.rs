//! What a ticket queue is told and what it wants done, and what an operator
//! chooses for it. Owns these words only.

use crate::base::address::{Cidr, Provider};
use crate::base::name::Service;
use crate::base::slab::Key;
use crate::base::time::Span;
use crate::schedule::registry::SchedulerName;
use crate::wire::channel::Order;
use crate::wire::message::{Reply, Request};
use std::net::IpAddr;
use std::sync::Arc;

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// For services without their own.
    pub scheduler: SchedulerName,
    /// For these services.
    pub schedulers: Vec<(Service, SchedulerName)>,
    /// Services whose clients keep their provider, and for how long after they came.
    pub affinities: Vec<(Service, Span)>,
    /// How long a program that schedules may take for an answer.
    pub plugin_timeout: Span,
    /// Lease of an offer that gives none.
    pub lease: Span,
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
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            scheduler: SchedulerName::DEFAULT,
            schedulers: Vec::new(),
            affinities: Vec::new(),
            plugin_timeout: Span::from_millis(50),
            lease: Span::from_secs(30),
            wait_max: Span::from_secs(30),
            waiting_max: 10_000,
            providers_max: 4096,
            services_max: 256,
            allow_ticket: Cidr::LOOPBACK.to_vec(),
            allow_next: Cidr::LOOPBACK.to_vec(),
            allow_status: Cidr::LOOPBACK.to_vec(),
        }
    }
}

/// What can happen to a ticket queue. A connection's key is its owner's.
#[derive(Debug)]
pub enum Input {
    /// A connection opened.
    Came {
        /// Its key.
        connection: Key,
        /// The address it comes from.
        peer: IpAddr,
    },
    /// A part of the queue's own process joined in: as good as a connection
    /// from this host, and no list says what it may not.
    Joined {
        /// Its key.
        connection: Key,
    },
    /// It asks.
    Asked {
        /// Its key.
        connection: Key,
        /// To be given back with the answer.
        order: Order,
        /// What.
        request: Request,
    },
    /// It will ask no more, but may still read.
    Ended {
        /// Its key.
        connection: Key,
    },
    /// The last it was sent cannot have arrived: it hung up while it waited.
    Undelivered {
        /// Its key.
        connection: Key,
    },
    /// It is gone: what it held is free, who waited on it is forgotten.
    Gone {
        /// Its key.
        connection: Key,
    },
    /// The program that schedules for a service can be asked, or not any more.
    Plugin {
        /// Which service.
        service: Service,
        /// Whether it can.
        up: bool,
    },
    /// It said a line.
    Advice {
        /// For which service.
        service: Service,
        /// What.
        line: String,
    },
    /// Other options from now on.
    Reconfigure(Box<QueueOptions>),
    /// The end is near: nobody waits any more, nothing is granted.
    Drain,
}

/// What a ticket queue wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Answer a request.
    Answer {
        /// On this connection.
        connection: Key,
        /// As it was asked.
        order: Order,
        /// With this.
        reply: Reply,
    },
    /// Start this program, which schedules for a service; none: end it.
    Engage {
        /// Which service.
        service: Service,
        /// The program.
        command: Option<Arc<str>>,
    },
    /// Tell the program of a service this line.
    Tell {
        /// Which service.
        service: Service,
        /// What.
        line: String,
    },
    /// The program of a service gave an answer that is one.
    Heeded {
        /// Which service.
        service: Service,
    },
    /// The program of a service is of no use: start it anew, later. Why.
    Restart {
        /// Which service.
        service: Service,
        /// In words.
        why: &'static str,
    },
    /// Tell the operator.
    Note(Note),
}

/// What an operator may want to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What happened to the provider.
    pub event: Event,
    /// Of which service.
    pub service: Service,
    /// Which provider.
    pub provider: Provider,
}

/// What can happen to a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It offers, and did not before.
    Registered,
    /// It withdrew.
    Withdrew,
    /// A redirector found it dead.
    Failed,
    /// It was not heard of in time.
    LeaseEnded,
    /// Two connections offer it, and overwrite each other.
    Contested,
}

impl Event {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Event::Registered => "registered",
            Event::Withdrew => "withdrew",
            Event::Failed => "failed",
            Event::LeaseEnded => "lease-ended",
            Event::Contested => "contested",
        }
    }
}
