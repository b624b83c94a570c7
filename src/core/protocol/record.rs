//! The framing of the encrypted control channel: its first line, and records.
//!
//! Owns the notations and their bounds. Knows no cipher: what a record holds is
//! opaque here.

use super::peer_key::KeyName;

/// The longest record, in bytes after its length: one message of the cipher.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What the cipher adds to what is sent.
pub const TAG_BYTES: usize = 16;
/// The most bytes of protocol lines in one record.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX - TAG_BYTES;
/// Each of the two messages of a handshake: a public key and a tag.
pub const HANDSHAKE_BYTES: usize = 48;
/// The bytes of a record's length, big-endian.
pub const LENGTH_BYTES: usize = 2;

/// How the first line begins, up to the name of the key.
const OPENING: &str = "secure NNpsk0 ";
/// The longest first line, in bytes.
pub const OPENING_BYTES_MAX: usize = OPENING.len() + KeyName::BYTES_MAX + 1;

/// The first line without its LF: the handshake is bound to it.
pub fn opening_line(name: KeyName) -> String {
    format!("{OPENING}{name}")
}

/// What the first bytes of a connection are.
#[derive(PartialEq, Eq, Debug)]
pub enum Opening {
    /// They may still become the line of a secure connection.
    Incomplete,
    /// They are plain protocol lines.
    Plain,
    /// The line of a secure connection; it ends before this byte.
    Secure(KeyName, usize),
}

/// Looks at the first bytes of a connection.
pub fn opening(bytes: &[u8]) -> Opening {
    let start = &bytes[..bytes.len().min(OPENING.len())];
    if !OPENING.as_bytes().starts_with(start) {
        return Opening::Plain;
    }
    let window = &bytes[..bytes.len().min(OPENING_BYTES_MAX)];
    match window.iter().position(|c| *c == b'\n') {
        Some(end) if end > OPENING.len() => {
            let name = std::str::from_utf8(&bytes[OPENING.len()..end]).ok();
            let name = name.and_then(|name| name.parse().ok());
            name.map_or(Opening::Plain, |name| Opening::Secure(name, end + 1))
        }
        None if bytes.len() < OPENING_BYTES_MAX => Opening::Incomplete,
        _ => Opening::Plain,
    }
}

/// Appends the length that goes before `record_bytes` bytes of a record.
pub fn write_length(record_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(record_bytes as u16).to_be_bytes());
}

/// A record beyond [`RECORD_BYTES_MAX`], or below a tag: the peer is none of ours.
#[derive(PartialEq, Eq, Debug)]
pub struct BadLength;

/// Bytes on their way to becoming records.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    bytes: Vec<u8>,
    start: usize,
}

impl RecordDecoder {
    /// More bytes arrived. The caller takes all records out before the next call, or
    /// stops reading, so what is kept is bounded by one read and one record.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next record, if there is a whole one; its bytes may be used as scratch.
    ///
    /// # Errors
    /// A length that no record has.
    pub fn next_record(&mut self) -> Result<Option<&mut [u8]>, BadLength> {
        let left = &self.bytes[self.start..];
        let Some(length) = left.first_chunk::<LENGTH_BYTES>() else {
            if left.is_empty() && self.bytes.capacity() > RECORD_BYTES_MAX / 4 {
                *self = RecordDecoder::default();
            }
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if !(TAG_BYTES..=RECORD_BYTES_MAX).contains(&length) {
            return Err(BadLength);
        }
        let from = self.start + LENGTH_BYTES;
        if self.bytes.len() < from + length {
            return Ok(None);
        }
        self.start = from + length;
        Ok(Some(&mut self.bytes[from..from + length]))
    }

    /// Bytes that are not a record yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether no record has begun.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_told_from_plain_ones() {
        let line = b"secure NNpsk0 web3\nrest";
        for length in 0..=line.len() {
            let expected = match length {
                0..=18 => Opening::Incomplete,
                _ => Opening::Secure("web3".parse().unwrap(), 19),
            };
            assert_eq!(opening(&line[..length]), expected, "{length}");
        }
        let long = format!("secure NNpsk0 {}", "x".repeat(33));
        for plain in ["pegasus://b/next\n", "\n", "secure NNpsk1 a\n", "secure NNpsk0 \n", &long] {
            assert_eq!(opening(plain.as_bytes()), Opening::Plain, "{plain}");
        }
    }

    #[test]
    fn records_come_out_however_the_bytes_come_in() {
        let mut bytes = Vec::new();
        for length in [16, 17, RECORD_BYTES_MAX] {
            write_length(length, &mut bytes);
            bytes.extend(std::iter::repeat_n(length as u8, length));
        }
        for size in [1, 2, 3, 19, 1000, bytes.len()] {
            let mut decoder = RecordDecoder::default();
            let mut lengths = Vec::new();
            for chunk in bytes.chunks(size) {
                decoder.push(chunk);
                while let Some(record) = decoder.next_record().unwrap() {
                    assert!(record.iter().all(|byte| *byte == record.len() as u8));
                    lengths.push(record.len());
                }
            }
            assert_eq!(lengths, [16, 17, RECORD_BYTES_MAX], "chunks of {size}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn a_length_that_no_record_has_is_an_error() {
        for length in [0u16, 15, RECORD_BYTES_MAX as u16 + 1, u16::MAX] {
            let mut decoder = RecordDecoder::default();
            decoder.push(&length.to_be_bytes());
            assert_eq!(decoder.next_record(), Err(BadLength), "{length}");
        }
    }
}
