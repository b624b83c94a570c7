//! What the redirector knows of a client. Owns the record, which is small:
//! there may be very many, most of them idle.

use crate::base::provider::Provider;
use crate::base::time::Moment;
use std::net::SocketAddr;
use std::num::NonZeroU32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientState {
    /// The queue has the question with the id of its grant.
    AwaitingTicket,
    /// The queue cannot be reached.
    AwaitingQueue,
    /// The provider was called.
    Connecting,
    /// The provider is to be called once this host has a socket to spare.
    AwaitingSocket,
    /// The provider answered.
    Relaying,
}

/// A client that arrived and has not left.
#[derive(Debug)]
pub struct Client {
    /// Its number among the services that clients came for: there may be many
    /// clients, and a name is long.
    pub service: u16,
    pub from: SocketAddr,
    pub port: u16,
    pub state: ClientState,
    pub provider: Option<Provider>,
    /// The id of the question, and then of the ticket that it occupies at the queue.
    pub grant: Option<NonZeroU32>,
    pub tries: u8,
    pub arrived: Moment,
    /// Never, before it is.
    pub connected: Moment,
    /// Until when it waits for a ticket, from the first question on.
    pub wait_deadline: Moment,
    /// Until when its state may last.
    pub deadline: Moment,
    /// The earliest timer that is set for it.
    pub timer: Moment,
    /// Few need it.
    pub retry: Option<Box<RetryState>>,
}

/// What only a client has that the queue or a provider failed.
#[derive(Debug, Default)]
pub struct RetryState {
    pub avoid: Vec<Provider>,
    pub fallbacks: u32,
    /// Whose turn it was when the first of them was called: the others follow
    /// in their order, whatever other clients come meanwhile.
    pub first_fallback: usize,
    /// Until when it waits for the queue, however often that goes away.
    pub outage: Option<Moment>,
    /// Until when it waits for a socket of this host, however often there is none.
    pub stuck: Option<Moment>,
}

impl Client {
    /// One that has just come.
    pub fn new(service: u16, from: SocketAddr, port: u16, now: Moment) -> Client {
        Client {
            service,
            from,
            port,
            state: ClientState::AwaitingQueue,
            provider: None,
            grant: None,
            tries: 0,
            arrived: now,
            connected: Moment::NEVER,
            wait_deadline: Moment::NEVER,
            deadline: Moment::NEVER,
            timer: Moment::NEVER,
            retry: None,
        }
    }

    pub fn retry_state(&mut self) -> &mut RetryState {
        self.retry.get_or_insert_default()
    }

    pub fn fallbacks(&self) -> u32 {
        self.retry.as_ref().map_or(0, |retry| retry.fallbacks)
    }
}
