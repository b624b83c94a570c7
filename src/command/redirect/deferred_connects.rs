//! Connects to providers that wait for a file descriptor.
//!
//! Owns the connects that wait, their order, and what is logged about them. Makes
//! no connect itself.

use log::warn;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// How often the lack of descriptors is logged.
const LOG_INTERVAL: Span = Span::from_secs(60);
/// When a connect is tried again although no client of this worker left.
const RETRY_INTERVAL: Span = Span::from_millis(100);

/// The connects that wait, oldest first: at most one for each client.
pub struct DeferredConnects {
    waiting: VecDeque<(Key, SocketAddr)>,
    retry_at: Moment,
    log: LogThrottle,
}

impl Default for DeferredConnects {
    fn default() -> Self {
        DeferredConnects {
            waiting: VecDeque::new(),
            retry_at: Moment::NEVER,
            log: LogThrottle::default(),
        }
    }
}

impl DeferredConnects {
    /// Whether a connect waits for a descriptor.
    pub fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Queues a client's connect behind all others. `why`: the OS error, if the
    /// connect was tried.
    pub fn defer(&mut self, client: Key, to: SocketAddr, why: Option<&io::Error>, now: Moment) {
        self.waiting.push_back((client, to));
        self.retry_at = self.retry_at.min(now + RETRY_INTERVAL);
        if let Some(count) = self.log.allow(now, LOG_INTERVAL) {
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            warn!(
                target: "redirect",
                "no descriptor to spare{why}; connects deferred since the last report: {count}"
            );
        }
    }

    /// Puts a connect that was popped back before all others.
    pub fn defer_first(&mut self, client: Key, to: SocketAddr, now: Moment) {
        self.waiting.push_front((client, to));
        self.retry_at = now + RETRY_INTERVAL;
    }

    /// The next connect to try, if it is time.
    pub fn pop_ready(&mut self, now: Moment) -> Option<(Key, SocketAddr)> {
        if now < self.retry_at {
            return None;
        }
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.retry_at = Moment::NEVER;
        }
        next
    }

    /// When [`pop_ready`](DeferredConnects::pop_ready) may have a connect.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.any_waiting().then_some(self.retry_at)
    }

    /// A client left and its descriptors are free: the next connect may be tried.
    pub fn descriptors_freed(&mut self) {
        if self.any_waiting() {
            self.retry_at = Moment::ZERO;
        }
    }
}
