//! What there is not enough of for everybody: descriptors for calls to
//! providers, and places for the clients of one source.
//!
//! Owns who waits for a descriptor, in which order, and what of all that is
//! told. Calls nobody.

use log::warn;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::source_limit::{SourceKey, SourceLimiter};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How often it is told.
const TELL: Span = Span::from_secs(60);
/// After how long it is tried again, though nobody here left.
const PAUSE: Span = Span::from_millis(100);

/// See the file's head.
pub struct Scarcity {
    /// Who is to be called for whom; none of them has a descriptor for that.
    waiting: VecDeque<(Key, SocketAddr)>,
    again: Moment,
    told_waiting: LogThrottle,
    sources: Arc<Mutex<SourceLimiter>>,
    told_source: LogThrottle,
}

impl Scarcity {
    /// With the counts of all loops.
    pub fn new(sources: Arc<Mutex<SourceLimiter>>) -> Scarcity {
        let (told_waiting, told_source) = Default::default();
        Scarcity { waiting: VecDeque::new(), again: Moment::NEVER, told_waiting, sources, told_source }
    }

    /// Whether somebody waits for a descriptor.
    pub fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A client waits, behind all others. `why`: what the system said, if it was asked.
    pub fn wait(&mut self, client: Key, to: SocketAddr, why: Option<&io::Error>, now: Moment) {
        self.waiting.push_back((client, to));
        self.again = self.again.min(now + PAUSE);
        if let Some(count) = self.told_waiting.allow(now, TELL) {
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            warn!(
                target: "redirect",
                "no descriptor to spare{why}; calls that had to wait since this was told last: {count}"
            );
        }
    }

    /// The client whose turn it was goes on waiting, before all others.
    pub fn wait_on(&mut self, client: Key, to: SocketAddr, now: Moment) {
        self.waiting.push_front((client, to));
        self.again = now + PAUSE;
    }

    /// Whose turn it is, if it is worth a try.
    pub fn next(&mut self, now: Moment) -> Option<(Key, SocketAddr)> {
        if now < self.again {
            return None;
        }
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.again = Moment::NEVER;
        }
        next
    }

    /// When somebody's turn may come.
    pub fn deadline(&self) -> Option<Moment> {
        self.is_short().then_some(self.again)
    }

    /// Somebody left, and descriptors with him.
    pub fn leave(&mut self, source: Option<SourceKey>) {
        if self.is_short() {
            self.again = Moment::ZERO;
        }
        if let Some(source) = source {
            self.sources.lock().unwrap_or_else(PoisonError::into_inner).release(source);
        }
    }

    /// Somebody comes: where he is counted, if sources have a limit.
    ///
    /// # Errors
    /// His source has `most` clients here already.
    pub fn enter(&mut self, from: SocketAddr, most: usize, now: Moment) -> Result<Option<SourceKey>, ()> {
        if most == 0 {
            return Ok(None);
        }
        let source = SourceKey::from(from.ip());
        if self.sources.lock().unwrap_or_else(PoisonError::into_inner).try_acquire(source, most) {
            return Ok(Some(source));
        }
        if let Some(count) = self.told_source.allow(now, TELL) {
            let ip = from.ip().to_canonical();
            warn!(
                target: "redirect",
                "redirect_per_source_max={most}: {ip} has as many; clients reset since this was told last: {count}"
            );
        }
        Err(())
    }
}
