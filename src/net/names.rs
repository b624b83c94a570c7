//! Names to addresses, without holding the loop up.
//!
//! Owns the look-ups under way: each has a thread of its own, because the
//! system's resolver blocks, and wakes the loop when it is done. An address
//! that is written out needs neither.

use mio::Waker;
use pegasus_core::base::address::HostPort;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};

/// One look-up.
#[derive(Debug)]
pub enum Lookup {
    /// It was an address already.
    Known(SocketAddr),
    /// A thread asks the resolver.
    Asked(Arc<OnceLock<Vec<SocketAddr>>>),
}

impl Lookup {
    /// Begins to look `target` up; `waker` is woken when it is done.
    pub fn begin(target: &HostPort, waker: Arc<Waker>) -> Lookup {
        if let Some(address) = target.literal() {
            return Lookup::Known(address);
        }
        let answer = Arc::new(OnceLock::new());
        let (host, port, place) = (target.host.clone(), target.port, answer.clone());
        // If no thread can be had nobody else holds the place: no answer.
        let _ = std::thread::Builder::new().name("resolver".into()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            let _ = place.set(found);
            drop(place);
            let _ = waker.wake();
        });
        Lookup::Asked(answer)
    }

    /// The addresses, none if the name does not resolve; `None`: not done yet.
    pub fn done(&self) -> Option<Vec<SocketAddr>> {
        match self {
            Lookup::Known(address) => Some(vec![*address]),
            Lookup::Asked(answer) => {
                let over = Arc::strong_count(answer) == 1;
                answer.get().cloned().or_else(|| over.then(Vec::new))
            }
        }
    }
}
