//! Lines out of bytes, with a ceiling.
//!
//! Owns the bytes of a connection that are not a whole line yet. Knows no
//! message and no socket.

/// The longest line of the protocol, in bytes, with its end.
pub const LINE_BYTES_MAX: usize = 1024;

/// What the buffer holds next.
#[derive(PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// A line without its LF or CRLF.
    Line(&'a [u8]),
    /// More than [`LINE_BYTES_MAX`] bytes without a line end among them.
    TooLong,
}

/// Bytes on their way to becoming lines.
#[derive(Debug, Default)]
pub struct LineDecoder {
    bytes: Vec<u8>,
    start: usize,
    ended: bool,
}

impl LineDecoder {
    /// More bytes arrived. The caller takes all lines out before the next call,
    /// or stops reading, so what is kept is bounded by one read and one line.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
        } else if self.start > 0 {
            self.bytes.drain(..self.start);
        }
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// No more bytes will come: what is left counts as a line.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Forgets what is behind the last whole line.
    pub fn discard_partial(&mut self) {
        let whole = self.bytes[self.start..].iter().rposition(|c| *c == b'\n');
        self.bytes.truncate(whole.map_or(self.start, |end| self.start + end + 1));
    }

    /// The next line, if there is a whole one.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let left = &self.bytes[self.start..];
        let window = &left[..left.len().min(LINE_BYTES_MAX)];
        let end = match window.iter().position(|c| *c == b'\n') {
            Some(end) => end,
            None if left.len() >= LINE_BYTES_MAX => {
                self.start = self.bytes.len();
                return Some(Line::TooLong);
            }
            None if self.ended && !left.is_empty() => left.len(),
            None => {
                if left.is_empty() && self.bytes.capacity() > 4 * LINE_BYTES_MAX {
                    *self = LineDecoder { ended: self.ended, ..LineDecoder::default() };
                }
                return None;
            }
        };
        let from = self.start;
        self.start = (from + end + 1).min(self.bytes.len());
        let line = &self.bytes[from..from + end];
        Some(Line::Line(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Whether no byte is left in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_however_the_bytes_come_in() {
        let text = b"one\r\n\ntwo\nrest";
        for size in 1..=text.len() {
            let (mut decoder, mut lines) = (LineDecoder::default(), Vec::new());
            for chunk in text.chunks(size) {
                decoder.push(chunk);
                while let Some(Line::Line(line)) = decoder.next_line() {
                    lines.push(line.to_vec());
                }
            }
            decoder.end();
            while let Some(Line::Line(line)) = decoder.next_line() {
                lines.push(line.to_vec());
            }
            assert_eq!(lines, [&b"one"[..], b"", b"two", b"rest"], "chunks of {size}");
        }
    }

    #[test]
    fn a_line_may_have_1024_bytes_with_its_end_and_no_more() {
        let mut decoder = LineDecoder::default();
        decoder.push(&[&[b'x'; 1023][..], b"\n"].concat());
        assert!(matches!(decoder.next_line(), Some(Line::Line(line)) if line.len() == 1023));
        decoder.push(&[b'x'; 1024]);
        assert_eq!(decoder.next_line(), Some(Line::TooLong));
        assert!(decoder.is_empty());
    }
}
