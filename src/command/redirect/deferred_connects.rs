//! Limits that clients share: connects to providers that wait for a file
//! descriptor, and the clients of one source.
//!
//! Owns the connects that wait, their order, and what of all that is logged.
//! Connects nothing.

use log::warn;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::source_limit::{SourceKey, SourceLimiter};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How often it is logged.
const LOG_INTERVAL: Span = Span::from_secs(60);
/// After how long it is tried again, though nobody here left.
const RETRY_INTERVAL: Span = Span::from_millis(100);

/// See the file's head.
pub struct DeferredConnects {
    /// Clients and the providers to connect them to, for want of descriptors.
    waiting: VecDeque<(Key, SocketAddr)>,
    retry_at: Moment,
    waiting_log: LogThrottle,
    source_limiter: Arc<Mutex<SourceLimiter>>,
    source_log: LogThrottle,
}

impl DeferredConnects {
    /// With the counts of all loops.
    pub fn new(source_limiter: Arc<Mutex<SourceLimiter>>) -> DeferredConnects {
        let (waiting_log, source_log) = Default::default();
        DeferredConnects {
            waiting: VecDeque::new(),
            retry_at: Moment::NEVER,
            waiting_log,
            source_limiter,
            source_log,
        }
    }

    /// Whether a connect waits for a descriptor.
    pub fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A client waits, behind all others. `why`: what the system said, if it was asked.
    pub fn defer(&mut self, client: Key, to: SocketAddr, why: Option<&io::Error>, now: Moment) {
        self.waiting.push_back((client, to));
        self.retry_at = self.retry_at.min(now + RETRY_INTERVAL);
        if let Some(count) = self.waiting_log.allow(now, LOG_INTERVAL) {
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            warn!(
                target: "redirect",
                "no descriptor to spare{why}; calls that had to wait since this was told last: {count}"
            );
        }
    }

    /// The client whose turn it was goes on waiting, before all others.
    pub fn defer_first(&mut self, client: Key, to: SocketAddr, now: Moment) {
        self.waiting.push_front((client, to));
        self.retry_at = now + RETRY_INTERVAL;
    }

    /// Whose turn it is, if it is worth a try.
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

    /// When somebody's turn may come.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.any_waiting().then_some(self.retry_at)
    }

    /// Somebody left, and descriptors with him.
    pub fn client_left(&mut self, source: Option<SourceKey>) {
        if self.any_waiting() {
            self.retry_at = Moment::ZERO;
        }
        if let Some(source) = source {
            self.source_limiter.lock().unwrap_or_else(PoisonError::into_inner).release(source);
        }
    }

    /// Somebody comes: where he is counted, if sources have a limit.
    ///
    /// # Errors
    /// His source has `most` clients here already.
    pub fn count_source(
        &mut self,
        from: SocketAddr,
        most: usize,
        now: Moment,
    ) -> Result<Option<SourceKey>, ()> {
        if most == 0 {
            return Ok(None);
        }
        let source = SourceKey::from(from.ip());
        if self
            .source_limiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_acquire(source, most)
        {
            return Ok(Some(source));
        }
        if let Some(count) = self.source_log.allow(now, LOG_INTERVAL) {
            let ip = from.ip().to_canonical();
            warn!(
                target: "redirect",
                "redirect_per_source_max={most}: {ip} has as many; clients reset since this was told last: {count}"
            );
        }
        Err(())
    }
}
