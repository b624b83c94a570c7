//! Bytes that one side gave and the other has not taken yet.
//!
//! Owns their order, a header of ours before them, and the count of what is
//! sent. Knows no socket.

/// Bytes that wait for the sink.
#[derive(Debug)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    /// So many of the first are a header of ours, which is not counted.
    header: usize,
}

impl Pending {
    /// These bytes, of which the first `header` are a header of ours.
    pub(super) fn new(bytes: Vec<u8>, header: usize) -> Pending {
        Pending { bytes, sent: 0, header }
    }

    /// What is still to be sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// More bytes come behind them.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// So many more are sent. Returns how many of these were no header.
    pub(super) fn on_sent(&mut self, count: usize) -> usize {
        let before = self.sent.max(self.header);
        self.sent += count;
        self.sent.max(self.header) - before
    }

    /// Whether all of it is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whether this is a header that waits for the first bytes, to leave with them.
    pub(super) fn is_only_header(&self) -> bool {
        self.sent == 0 && self.bytes.len() == self.header
    }

    /// The bytes without the header, whether it was sent or not; none if nothing is left.
    pub(super) fn without_header(mut self) -> Option<Pending> {
        if self.header > 0 {
            self.bytes.drain(..self.header.max(self.sent));
            self.sent = 0;
            self.header = 0;
        }
        (!self.bytes.is_empty()).then_some(self)
    }
}
