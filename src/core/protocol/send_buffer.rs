//! Bytes on their way out of a control connection.
//!
//! Owns their order and gives back the memory of a long answer. Knows no socket.

/// Bytes that a peer may leave unread before its requests wait.
pub const OUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    /// Where more is appended.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is still to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > OUT_BYTES_MAX {
                self.bytes = Vec::new();
            }
        }
    }

    /// Whether all of it was sent.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}
