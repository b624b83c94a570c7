//! Datagrams that no provider has certainly taken.
//!
//! Owns copies of a flow's last few, and their bounds. The flow decides when they are
//! sent, and where.

use crate::base::time::{Moment, Span};
use std::collections::VecDeque;

/// Datagrams of a flow that wait for its provider. Clients open with a burst.
const WAITING_MAX: usize = 256;
/// Datagrams of a flow that are sent and may have to be sent again.
const RESENT_MAX: usize = 8;
/// Bytes that a flow keeps.
const FLOW_BYTES_MAX: usize = 64 * 1024;
/// Bytes that all flows keep, with [`OVERHEAD`] for each datagram.
const TOTAL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a datagram costs besides its bytes. Empty ones are not free.
const OVERHEAD: usize = 64;
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
        if self.datagrams.len() < WAITING_MAX {
            self.push(bytes, now, all);
        }
    }

    /// Keeps one that is sent now: the last ones may have to be sent again. What waited
    /// stays until it was taken, and gives its room to what is sent later.
    pub fn keep(&mut self, bytes: &[u8], now: Moment, all: &mut usize) {
        while self.front_since().is_some_and(|since| now.since(since) >= TAKEN_AFTER) {
            self.pop(all);
        }
        if self.datagrams.len() >= RESENT_MAX {
            self.pop(all);
        }
        while !self.datagrams.is_empty() && self.bytes + bytes.len() > FLOW_BYTES_MAX {
            self.pop(all);
        }
        self.push(bytes, now, all);
    }

    /// They were taken, or are of no use any more.
    pub fn clear(&mut self, all: &mut usize) {
        *all -= std::mem::take(&mut self.bytes) + self.datagrams.len() * OVERHEAD;
        self.datagrams.clear();
    }

    fn front_since(&self) -> Option<Moment> {
        self.datagrams.front().map(|(since, _)| *since)
    }

    fn push(&mut self, bytes: &[u8], now: Moment, all: &mut usize) {
        let cost = bytes.len() + OVERHEAD;
        if self.bytes + bytes.len() > FLOW_BYTES_MAX || *all + cost > TOTAL_BYTES_MAX {
            return;
        }
        self.bytes += bytes.len();
        *all += cost;
        self.datagrams.push_back((now, bytes.into()));
    }

    fn pop(&mut self, all: &mut usize) {
        let Some((_, oldest)) = self.datagrams.pop_front() else { return };
        self.bytes -= oldest.len();
        *all -= oldest.len() + OVERHEAD;
    }
}
