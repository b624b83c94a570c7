//! Looks names up without blocking the event loop.
//!
//! Owns the look-ups under way: each has a thread of its own, because the
//! system's resolver blocks, and wakes the loop when it is done. An address
//! that is written out needs neither.

use mio::Waker;
use pegasus_core::base::endpoint::HostPort;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};

/// One look-up.
#[derive(Debug)]
pub enum Lookup {
    /// It was an address already.
    Literal(SocketAddr),
    /// A thread asks the resolver.
    Pending(Arc<OnceLock<Vec<SocketAddr>>>),
}

impl Lookup {
    /// Begins to look `target` up; `waker` is woken when it is done.
    pub fn start(target: &HostPort, waker: Arc<Waker>) -> Lookup {
        if let Some(address) = target.literal() {
            return Lookup::Literal(address);
        }
        let result = Arc::new(OnceLock::new());
        let (host, port, cell) = (target.host.clone(), target.port, result.clone());
        // If no thread can be had nobody else holds the result: no result.
        let _ = std::thread::Builder::new().name("resolver".into()).spawn(move || {
            let found =
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            let _ = cell.set(found);
            drop(cell);
            let _ = waker.wake();
        });
        Lookup::Pending(result)
    }

    /// The addresses, none if the name does not resolve; `None`: not done yet.
    pub fn result(&self) -> Option<Vec<SocketAddr>> {
        match self {
            Lookup::Literal(address) => Some(vec![*address]),
            Lookup::Pending(result) => {
                let abandoned = Arc::strong_count(result) == 1;
                result.get().cloned().or_else(|| abandoned.then(Vec::new))
            }
        }
    }
}
