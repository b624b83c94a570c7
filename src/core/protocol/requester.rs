//! The asking side of a control connection, without its socket.
//!
//! Requests come in, bytes go out; bytes come in, replies go out, each with what
//! it is for. Owns the buffers and their bounds. Knows no socket and no clock.

use super::line_decoder::{Line, LineDecoder};
use super::reply::Reply;
use super::request::Request;
use super::send_buffer::SendBuffer;
use crate::base::printable::printable;
use std::collections::VecDeque;
use std::fmt::Display;

/// The longest answer to `status` that an asker takes, in bytes.
pub const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the lines of a status begin; a numbered answer may come before them.
const STATUS_KINDS: [&[u8]; 3] = [b"queue ", b"service ", b"provider "];

/// The asking side of a connection. `T` tells what a reply in order is for.
#[derive(Debug)]
pub struct Requester<T> {
    decoder: LineDecoder,
    /// What is to be sent.
    pub out: SendBuffer,
    /// What each reply in order is for, and whether it is a status.
    pending: VecDeque<(T, bool)>,
    /// The lines of a status, as far as they are here.
    status: String,
    /// An error that answers nothing: why the queue does not want the connection.
    pub refusal: Option<String>,
}

impl<T> Default for Requester<T> {
    fn default() -> Self {
        Requester {
            decoder: LineDecoder::default(),
            out: SendBuffer::default(),
            pending: VecDeque::new(),
            status: String::new(),
            refusal: None,
        }
    }
}

/// An answer, and what it is for: an id, or what was said when asking.
#[derive(Debug, PartialEq)]
pub enum Matched<T> {
    /// To the `next` with this id.
    ById(u32, Reply),
    /// To the oldest other request.
    InOrder(T, Reply),
}

impl<T> Requester<T> {
    /// Asks. A `next` with an id is answered by number, all else in order,
    /// together with `purpose`.
    pub fn send(&mut self, balancer: &dyn Display, request: &Request, purpose: T) {
        request.write(balancer, self.out.tail());
        if !matches!(request, Request::Next(next) if next.id.is_some()) {
            self.pending.push_back((purpose, matches!(request, Request::Status { .. })));
        }
    }

    /// Bytes arrived; then ask [`next_reply`](Requester::next_reply) until there is none.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next answer. An error means that the peer is no ticket queue, and
    /// the connection is of no use any more.
    pub fn next_reply(&mut self) -> Result<Option<Matched<T>>, &'static str> {
        loop {
            let line = match self.decoder.next_line() {
                None => return Ok(None),
                Some(Line::Line(line)) => line,
                Some(Line::TooLong) => return Err("an answer beyond 1024 bytes"),
            };
            let reply = match self.pending.front() {
                Some((_, true)) if line == b"." => Reply::Status(std::mem::take(&mut self.status)),
                Some((_, true)) if STATUS_KINDS.iter().any(|kind| line.starts_with(kind)) => {
                    if self.status.len() + line.len() >= STATUS_BYTES_MAX {
                        return Err("a status beyond 16 MiB");
                    }
                    self.status.push_str(&printable(&String::from_utf8_lossy(line)));
                    self.status.push('\n');
                    continue;
                }
                _ => Reply::parse(line)?,
            };
            if let Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = reply
            {
                return Ok(Some(Matched::ById(id, reply)));
            }
            let Some((purpose, _)) = self.pending.pop_front() else {
                self.refusal = Some(&reply)
                    .filter(|reply| matches!(reply, Reply::Error { .. }))
                    .map(ToString::to_string);
                return Err("an answer to nothing");
            };
            return Ok(Some(Matched::InOrder(purpose, reply)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::ErrorCode;
    use super::super::request::RequestResult;
    use super::*;

    #[test]
    fn the_asker_tells_answers_apart() {
        let mut asking = Requester::default();
        asking.send(&"b", &Request::Done { id: 9, result: RequestResult::Good }, 'd');
        assert_eq!(asking.out.bytes(), b"pegasus://b/done?id=9\n");
        asking.receive(b"10.0.0.7:80 id=3\nok\nok\n");
        assert!(matches!(asking.next_reply(), Ok(Some(Matched::ById(3, _)))));
        assert_eq!(asking.next_reply(), Ok(Some(Matched::InOrder('d', Reply::Ok))));
        assert!(asking.next_reply().is_err());
        assert_eq!(asking.refusal, None);
        asking.receive(b"error busy too many connections\n");
        assert!(asking.next_reply().is_err());
        assert_eq!(asking.refusal.as_deref(), Some("error busy too many connections"));
    }

    #[test]
    fn a_status_is_one_answer_and_numbered_ones_may_come_before_it() {
        let mut asking = Requester::default();
        for purpose in ['a', 'b', 'c'] {
            asking.send(&"b", &Request::Status { service: None, export: None }, purpose);
        }
        asking.send(&"b", &Request::Done { id: 9, result: RequestResult::Good }, 'd');
        asking.receive(b"10.0.0.7:80 id=3\nqueue waiting=0\nprovider address=10.0.0.7:80\n");
        assert!(matches!(asking.next_reply(), Ok(Some(Matched::ById(3, _)))));
        assert_eq!(asking.next_reply(), Ok(None));
        asking.receive(b".\nerror denied\n.\nok\n");
        let lines = "queue waiting=0\nprovider address=10.0.0.7:80\n";
        assert_eq!(
            asking.next_reply(),
            Ok(Some(Matched::InOrder('a', Reply::Status(lines.into()))))
        );
        assert_eq!(
            asking.next_reply(),
            Ok(Some(Matched::InOrder('b', Reply::error(ErrorCode::Denied, ""))))
        );
        assert_eq!(
            asking.next_reply(),
            Ok(Some(Matched::InOrder('c', Reply::Status(String::new()))))
        );
        assert_eq!(asking.next_reply(), Ok(Some(Matched::InOrder('d', Reply::Ok))));
        asking.send(&"b", &Request::Status { service: None, export: None }, 'e');
        for _ in 0..STATUS_BYTES_MAX / 1000 {
            asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat());
            assert_eq!(asking.next_reply(), Ok(None));
        }
        asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat().repeat(2));
        assert!((0..2).any(|_| asking.next_reply().is_err()), "it has a bound");
    }
}
