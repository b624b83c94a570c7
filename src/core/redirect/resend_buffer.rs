//! Datagrams that no provider has certainly taken.
//!
//! Owns copies of a flow's last few, and their bounds. The flow decides when they are
//! sent, and where.

use crate::base::time::{Moment, Span};
use std::collections::VecDeque;

/// Datagrams, and bytes of them, that a flow keeps.
const DATAGRAMS_MAX: usize = 8;
const FLOW_BYTES_MAX: usize = 64 * 1024;
/// Bytes that all flows keep.
const TOTAL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A datagram that was not refused for so long was taken.
pub const TAKEN_AFTER: Span = Span::from_secs(1);

/// The datagrams of one flow. `all` counts the bytes of all flows.
#[derive(Debug, Default)]
pub struct ResendBuffer {
    datagrams: VecDeque<(Moment, Box<[u8]>)>,
    bytes: usize,
}

impl ResendBuffer {
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.datagrams.iter().map(|(_, bytes)| &**bytes)
    }

    /// All of them are sent now.
    pub fn sent(&mut self, now: Moment) {
        self.datagrams.iter_mut().for_each(|(since, _)| *since = now);
    }

    /// Whether there is one that was not taken yet.
    pub fn fresh(&self, now: Moment) -> bool {
        self.datagrams.back().is_some_and(|(since, _)| now.since(*since) < TAKEN_AFTER)
    }

    /// Keeps one that is to be sent later, if there is room: the first ones wait.
    pub fn wait(&mut self, bytes: &[u8], now: Moment, all: &mut usize) {
        if !self.full(bytes) && *all + bytes.len() <= TOTAL_BYTES_MAX {
            self.bytes += bytes.len();
            *all += bytes.len();
            self.datagrams.push_back((now, bytes.into()));
        }
    }

    /// Keeps one that is sent now: the last ones may have to be sent again.
    pub fn keep(&mut self, bytes: &[u8], now: Moment, all: &mut usize) {
        while let Some((since, oldest)) = self.datagrams.front() {
            if now.since(*since) < TAKEN_AFTER && !self.full(bytes) {
                break;
            }
            self.bytes -= oldest.len();
            *all -= oldest.len();
            self.datagrams.pop_front();
        }
        self.wait(bytes, now, all);
    }

    /// They were taken, or are of no use any more.
    pub fn clear(&mut self, all: &mut usize) {
        *all -= std::mem::take(&mut self.bytes);
        self.datagrams.clear();
    }

    fn full(&self, bytes: &[u8]) -> bool {
        self.datagrams.len() >= DATAGRAMS_MAX || self.bytes + bytes.len() > FLOW_BYTES_MAX
    }
}
