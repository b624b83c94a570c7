//! One side of a control connection, without its socket.
//!
//! [`Responder`] is the queue's side: bytes in, requests out; replies in, bytes
//! out, in the order of the requests. [`Requester`] is the side of a redirector or
//! a monitor. Both own their buffers and the bounds of them; neither knows a
//! socket, a clock or what a request does.

use super::line_decoder::{Line, LineDecoder};
use super::message::{ErrorCode, Reply, Request};
use std::collections::VecDeque;
use std::fmt::Display;

/// Bytes of answers that a peer may leave unread before its requests wait.
pub const OUT_BYTES_MAX: usize = 64 * 1024;
/// Answers that may wait for an earlier one before further requests wait.
pub const HELD_REPLIES_MAX: usize = 1024;
/// Bad lines in a row that end a connection.
pub const BAD_LINES_MAX: u32 = 3;
/// The longest answer to `status` that an asker takes, in bytes.
pub const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
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

/// The queue's side of a connection.
#[derive(Debug, Default)]
pub struct Responder {
    decoder: LineDecoder,
    /// What is to be sent.
    pub out: SendBuffer,
    /// The number of the oldest request without an answer.
    oldest: u64,
    /// The number of the next request.
    next: u64,
    /// Answers that came before that of an older request, from `oldest` on.
    held_replies: VecDeque<Option<Reply>>,
    bad_lines: u32,
    closing: bool,
    ended: bool,
}

/// The position of a request in the order of replies; none for a `next` with an id,
/// whose reply carries the id instead.
pub type ReplySlot = Option<u64>;

impl Responder {
    /// Bytes arrived; then ask [`next_request`](Responder::next_request) until there is none.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.decoder.push(bytes);
        }
    }

    /// The peer will send no more.
    pub fn end(&mut self) {
        self.ended = true;
        self.decoder.end();
    }

    /// Whether the peer must read its answers before more of it is read.
    pub fn is_backpressured(&self) -> bool {
        self.out.bytes().len() >= OUT_BYTES_MAX || self.held_replies.len() >= HELD_REPLIES_MAX
    }

    /// The next request, unless the peer is [`is_backpressured`](Responder::is_backpressured).
    /// Lines that are none are answered here.
    pub fn next_request(&mut self) -> Option<(ReplySlot, Request)> {
        while !self.closing && !self.is_backpressured() {
            let parsed = match self.decoder.next_line()? {
                Line::Line(line) => Request::parse(line),
                Line::TooLong => {
                    self.reply_now(Reply::error(
                        ErrorCode::TooLong,
                        "a line has at most 1024 bytes",
                    ));
                    self.closing = true;
                    break;
                }
            };
            match parsed {
                Ok(request) => {
                    self.bad_lines = 0;
                    let numbered = matches!(&request, Request::Next(next) if next.id.is_some());
                    let slot = (!numbered).then_some(self.next);
                    self.next += u64::from(slot.is_some());
                    return Some((slot, request));
                }
                Err(error) => {
                    self.reply_now(Reply::Error { error, id: None });
                    self.bad_lines += 1;
                    self.closing = self.bad_lines >= BAD_LINES_MAX;
                }
            }
        }
        None
    }

    fn reply_now(&mut self, reply: Reply) {
        let slot = Some(self.next);
        self.next += 1;
        self.reply(slot, reply);
    }

    /// Answers a request, now or as soon as the earlier ones are answered.
    pub fn reply(&mut self, slot: ReplySlot, reply: Reply) {
        let Some(slot) = slot else {
            return reply.write(&mut self.out.bytes);
        };
        if slot == self.oldest && self.held_replies.is_empty() {
            self.oldest += 1;
            return reply.write(&mut self.out.bytes);
        }
        let place = (slot - self.oldest) as usize;
        if self.held_replies.len() <= place {
            self.held_replies.resize(place + 1, None);
        }
        self.held_replies[place] = Some(reply);
        while let Some(Some(_)) = self.held_replies.front() {
            if let Some(Some(reply)) = self.held_replies.pop_front() {
                reply.write(&mut self.out.bytes);
                self.oldest += 1;
            }
        }
    }

    /// Sends `error REASON` out of order and takes no further request.
    pub fn refuse(&mut self, code: ErrorCode) {
        Reply::error(code, "").write(&mut self.out.bytes);
        self.closing = true;
    }

    /// Whether no request is taken any more, because of what the peer sent.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Whether everything that will be said has been sent.
    pub fn finished(&self) -> bool {
        let silent = self.closing || (self.ended && self.decoder.is_empty());
        silent && self.out.is_empty() && self.oldest == self.next
    }
}

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
}

impl<T> Default for Requester<T> {
    fn default() -> Self {
        Requester {
            decoder: LineDecoder::default(),
            out: SendBuffer::default(),
            pending: VecDeque::new(),
            status: String::new(),
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
        request.write(balancer, &mut self.out.bytes);
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
                    self.status.push_str(&String::from_utf8_lossy(line));
                    self.status.push('\n');
                    continue;
                }
                _ => Reply::parse(line)?,
            };
            if let Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = reply
            {
                return Ok(Some(Matched::ById(id, reply)));
            }
            let (purpose, _) = self.pending.pop_front().ok_or("an answer to nothing")?;
            return Ok(Some(Matched::InOrder(purpose, reply)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::RequestResult;

    fn sent(channel: &mut Responder) -> String {
        let text = String::from_utf8(channel.out.bytes().to_vec()).unwrap();
        channel.out.sent(text.len());
        text
    }

    #[test]
    fn answers_keep_the_order_of_requests_but_numbered_ones_overtake() {
        let mut channel = Responder::default();
        channel
            .receive(b"pegasus://b/next?wait=1s\npegasus://b/done?id=1\npegasus://b/next?id=2\n");
        let orders: Vec<ReplySlot> =
            std::iter::from_fn(|| channel.next_request()).map(|(slot, _)| slot).collect();
        assert_eq!(orders, [Some(0), Some(1), None]);
        channel.reply(Some(1), Reply::Ok);
        assert_eq!(sent(&mut channel), "");
        channel.reply(None, Reply::Provider { provider: "10.0.0.7".parse().unwrap(), id: Some(2) });
        assert_eq!(sent(&mut channel), "10.0.0.7 id=2\n");
        channel.reply(Some(0), Reply::error(ErrorCode::NoTicket, ""));
        assert_eq!(sent(&mut channel), "error no-ticket\nok\n");
    }

    #[test]
    fn three_bad_lines_in_a_row_end_it_and_each_gets_its_error() {
        let mut channel = Responder::default();
        channel.receive(b"a\nb\npegasus://b/status\nc\nd\ne\npegasus://b/status\n");
        let (slot, request) = channel.next_request().unwrap();
        assert_eq!((slot, request), (Some(2), Request::Status { service: None }));
        channel.reply(slot, Reply::Status(String::new()));
        assert_eq!(channel.next_request(), None);
        assert!(channel.closing() && !channel.finished());
        let answers: Vec<_> = sent(&mut channel)
            .lines()
            .map(|line| line.chars().take(13).collect::<String>())
            .collect();
        assert_eq!(
            answers,
            [
                "error bad-url",
                "error bad-url",
                ".",
                "error bad-url",
                "error bad-url",
                "error bad-url"
            ]
        );
        assert!(channel.finished());
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read() {
        let mut channel = Responder::default();
        channel.receive(b"pegasus://b/status\npegasus://b/status\n");
        let (slot, _) = channel.next_request().unwrap();
        channel.reply(slot, Reply::Status("x\n".repeat(OUT_BYTES_MAX)));
        assert!(channel.is_backpressured() && channel.next_request().is_none());
        sent(&mut channel);
        assert!(channel.next_request().is_some());
    }

    #[test]
    fn an_unfinished_last_line_counts_when_the_peer_ends() {
        let mut channel = Responder::default();
        channel.receive(b"pegasus://b/done?id=1");
        assert_eq!(channel.next_request(), None);
        channel.end();
        assert_eq!(
            channel.next_request(),
            Some((Some(0), Request::Done { id: 1, result: RequestResult::Good }))
        );
        assert!(!channel.finished());
        channel.reply(Some(0), Reply::Ok);
        assert!(!channel.finished(), "the answer is still to be sent");
        sent(&mut channel);
        assert!(channel.finished());
    }

    #[test]
    fn the_asker_tells_answers_apart() {
        let mut asking = Requester::default();
        asking.send(&"b", &Request::Done { id: 9, result: RequestResult::Good }, 'd');
        assert_eq!(asking.out.bytes(), b"pegasus://b/done?id=9\n");
        asking.receive(b"10.0.0.7:80 id=3\nok\nok\n");
        assert!(matches!(asking.next_reply(), Ok(Some(Matched::ById(3, _)))));
        assert_eq!(asking.next_reply(), Ok(Some(Matched::InOrder('d', Reply::Ok))));
        assert!(asking.next_reply().is_err());
    }

    #[test]
    fn a_status_is_one_answer_and_numbered_ones_may_come_before_it() {
        let mut asking = Requester::default();
        for purpose in ['a', 'b', 'c'] {
            asking.send(&"b", &Request::Status { service: None }, purpose);
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
        asking.send(&"b", &Request::Status { service: None }, 'e');
        for _ in 0..STATUS_BYTES_MAX / 1000 {
            asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat());
            assert_eq!(asking.next_reply(), Ok(None));
        }
        asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat().repeat(2));
        assert!((0..2).any(|_| asking.next_reply().is_err()), "it has a bound");
    }
}
