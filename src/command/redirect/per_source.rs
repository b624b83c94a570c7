//! The limit on clients of one source (`redirect_per_source_max`).
//!
//! Owns the lock around the counts, which all workers share, and what is logged
//! about clients over the limit. Not responsible for resetting them.

use log::warn;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::source_key::SourceKey;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::source_limit::SourceLimiter;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How often clients over the limit are logged.
const LOG_INTERVAL: Span = Span::from_secs(60);

/// A worker's view of the clients of each source.
pub struct PerSourceLimit {
    limiter: Arc<Mutex<SourceLimiter>>,
    log: LogThrottle,
}

impl PerSourceLimit {
    /// A limit on these counts, which other workers may share.
    pub fn new(limiter: Arc<Mutex<SourceLimiter>>) -> PerSourceLimit {
        PerSourceLimit { limiter, log: LogThrottle::default() }
    }

    /// Counts a client from this address. With `max` 0 sources have no limit and
    /// nothing is counted; otherwise the result is what to
    /// [`release`](PerSourceLimit::release) when the client is gone.
    ///
    /// # Errors
    /// The source has `max` clients already.
    pub fn try_acquire(
        &mut self,
        from: SocketAddr,
        max: usize,
        now: Moment,
    ) -> Result<Option<SourceKey>, ()> {
        if max == 0 {
            return Ok(None);
        }
        let source = SourceKey::from(from.ip());
        if self.limiter.lock().unwrap_or_else(PoisonError::into_inner).try_acquire(source, max) {
            return Ok(Some(source));
        }
        if let Some(count) = self.log.allow(now, LOG_INTERVAL) {
            let ip = from.ip().to_canonical();
            warn!(
                target: "redirect",
                "redirect_per_source_max={max}: {ip} has that many; \
                 clients reset since the last report: {count}"
            );
        }
        Err(())
    }

    /// A client of this source is gone.
    pub fn release(&mut self, source: SourceKey) {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).release(source);
    }
}
