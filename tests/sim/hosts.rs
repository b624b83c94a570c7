//! The hosts of the simulation: real machines, and the hands that a program
//! would be to them.
//!
//! Owns what a host remembers. What reaches a host and when is the world's.

use super::ledger::Ledger;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::time::Moment;
use pegasus_core::monitor::monitor::Monitor;
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::requester::Requester;
use pegasus_core::protocol::responder::Responder;
use pegasus_core::queue::ticket_queue::TicketQueue;
use pegasus_core::redirect::redirector::Redirector;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// A connection at a queue.
pub struct Caller {
    /// The network's key of it.
    pub link: Key,
    /// Where it comes from.
    pub peer: IpAddr,
    /// Its lines.
    pub channel: Responder,
    /// It sends no more.
    pub ended: bool,
}

/// A balancer's queue.
pub struct QueueHost {
    /// The machine, and who listens; none while the host is down.
    pub running: Option<(TicketQueue, Ledger)>,
    /// Who is connected.
    pub callers: Slab<Caller>,
    /// The simulation's own connection.
    pub observer: Key,
}

/// A client, as the hand of a redirector knows it.
pub struct Visitor {
    /// The first of its kind is 1.
    pub number: u32,
    /// What it wants.
    pub service: ServiceName,
    /// When something last happened to it, or to the way to its queue.
    pub since: Moment,
    /// Calls made for it; a call but the last was dropped.
    pub calls: u32,
    /// Its bytes run.
    pub relaying: bool,
    /// The machine said to turn it away.
    pub turned_away: bool,
    /// The machine was told that its relay is over.
    pub closed: bool,
    /// Who failed it.
    pub failed: Vec<SocketAddr>,
}

/// A redirector.
pub struct RedirectHost {
    /// The machine.
    pub machine: Redirector,
    /// How often the host began anew.
    pub life: u32,
    /// Its queue.
    pub queue: usize,
    /// The connection to it.
    pub link: Option<Key>,
    /// The lines of that.
    pub asking: Requester<()>,
    /// Its clients.
    pub visitors: Slab<Visitor>,
}

/// A monitor and its machine.
pub struct MonitorHost {
    /// The state machine; none while it does not run.
    pub machine: Option<Monitor>,
    /// How often it began anew.
    pub life: u32,
    /// The connections to the queues.
    pub links: Vec<Option<Key>>,
    /// The lines of those, with the service that an answer is about.
    pub asking: Vec<Requester<usize>>,
    /// Requests that run here.
    pub running: u32,
    /// How it takes calls.
    pub health: Health,
}

/// How a provider takes calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It serves.
    Well,
    /// It refuses.
    Dead,
    /// It does not answer.
    Silent,
}

/// What somebody without a redirector waits for, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// A provider of the service, or an error.
    Provider(u16),
    /// `ok discarded=N`.
    Discarded,
    /// An error, of a line that is none.
    Mistake,
    /// `ok`, or an error where the id is not in use.
    Ended,
}

impl Expected {
    /// Whether this answer is what was waited for.
    pub fn fits(self, reply: &Reply) -> bool {
        match self {
            Expected::Provider(port) => match reply {
                Reply::Provider { provider: Provider { port: found, .. }, id: None } => {
                    *found == Some(port)
                }
                _ => matches!(reply, Reply::Error { id: None, .. }),
            },
            Expected::Discarded => matches!(reply, Reply::Discarded(_)),
            Expected::Mistake => matches!(reply, Reply::Error { id: None, .. }),
            Expected::Ended => matches!(reply, Reply::Ok | Reply::Error { id: None, .. }),
        }
    }
}

/// Somebody who asks a queue by hand.
#[derive(Default)]
pub struct PlainHost {
    /// Its connection.
    pub link: Option<Key>,
    /// The lines of that.
    pub asking: Requester<Expected>,
    /// How many answers it waits for.
    pub waiting: usize,
    /// Ids it used on this connection, and whether each was answered.
    pub ids: HashMap<u32, bool>,
    /// It said that it will ask no more.
    pub ended: bool,
}
