//! Looks names up without blocking the event loop.
//!
//! The system's resolver blocks, so each look-up has a thread of its own. A literal
//! address needs none.

use super::one_shot::OneShot;
use mio::Waker;
use pegasus_core::base::address::HostPort;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// One look-up.
#[derive(Debug)]
pub enum Lookup {
    /// The target was an address.
    Literal(SocketAddr),
    /// A thread asks the resolver.
    Pending(OneShot<Vec<SocketAddr>>),
}

impl Lookup {
    /// Begins to look `target` up; `waker` is woken when it is done.
    pub fn start(target: &HostPort, waker: Arc<Waker>) -> Lookup {
        if let Some(address) = target.literal() {
            return Lookup::Literal(address);
        }
        let HostPort { host, port } = target.clone();
        Lookup::Pending(OneShot::spawn("resolver", waker, move || {
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
        }))
    }

    /// Takes the addresses, none if the name does not resolve; `None`: not done yet.
    pub fn result(&self) -> Option<Vec<SocketAddr>> {
        match self {
            Lookup::Literal(address) => Some(vec![*address]),
            Lookup::Pending(found) => found.take().map(|found| found.unwrap_or_default()),
        }
    }
}
