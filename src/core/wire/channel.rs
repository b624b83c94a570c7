//! One side of a control connection, without its socket.
//!
//! [`Answering`] is the queue's side: bytes in, requests out; answers in, bytes
//! out, in the order of the requests. [`Asking`] is the side of a redirector or
//! a monitor. Both own their buffers and the bounds of them; neither knows a
//! socket, a clock or what a request does.

use super::frame::{Frame, Frames};
use super::message::{Reason, Reply, Request};
use std::collections::VecDeque;
use std::fmt::Display;

/// Bytes of answers that a peer may leave unread before its requests wait.
pub const OUT_BYTES_MAX: usize = 64 * 1024;
/// Answers that may wait for an earlier one before further requests wait.
pub const ANSWERS_HELD_MAX: usize = 1024;
/// Bad lines in a row that end a connection.
pub const BAD_LINES_MAX: u32 = 3;
/// The longest answer to `status` that an asker takes, in bytes.
pub const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
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
pub struct Answering {
    frames: Frames,
    /// What is to be sent.
    pub out: Outbox,
    /// The number of the oldest request without an answer.
    oldest: u64,
    /// The number of the next request.
    next: u64,
    /// Answers that came before that of an older request, from `oldest` on.
    held: VecDeque<Option<Reply>>,
    bad_lines: u32,
    closing: bool,
    ended: bool,
}

/// The place of a request in the order of answers; none for a `next` with id,
/// whose answer carries the id instead.
pub type Order = Option<u64>;

impl Answering {
    /// Bytes arrived; then ask [`request`](Answering::request) until there is none.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.frames.feed(bytes);
        }
    }

    /// The peer will send no more.
    pub fn end(&mut self) {
        self.ended = true;
        self.frames.end();
    }

    /// Whether the peer must read its answers before more of it is read.
    pub fn clogged(&self) -> bool {
        self.out.bytes().len() >= OUT_BYTES_MAX || self.held.len() >= ANSWERS_HELD_MAX
    }

    /// The next request, unless the peer is [`clogged`](Answering::clogged).
    /// Lines that are none are answered here.
    pub fn request(&mut self) -> Option<(Order, Request)> {
        while !self.closing && !self.clogged() {
            let parsed = match self.frames.take()? {
                Frame::Line(line) => Request::parse(line),
                Frame::TooLong => {
                    self.answer_now(Reply::error(Reason::TooLong, "a line has at most 1024 bytes"));
                    self.closing = true;
                    break;
                }
            };
            match parsed {
                Ok(request) => {
                    self.bad_lines = 0;
                    let numbered = matches!(&request, Request::Next(next) if next.id.is_some());
                    let order = (!numbered).then_some(self.next);
                    self.next += u64::from(order.is_some());
                    return Some((order, request));
                }
                Err(refusal) => {
                    self.answer_now(Reply::Error { refusal, id: None });
                    self.bad_lines += 1;
                    self.closing = self.bad_lines >= BAD_LINES_MAX;
                }
            }
        }
        None
    }

    fn answer_now(&mut self, reply: Reply) {
        let order = Some(self.next);
        self.next += 1;
        self.answer(order, reply);
    }

    /// Answers a request, now or as soon as the earlier ones are answered.
    pub fn answer(&mut self, order: Order, reply: Reply) {
        let Some(order) = order else {
            return reply.write(&mut self.out.bytes);
        };
        if order == self.oldest && self.held.is_empty() {
            self.oldest += 1;
            return reply.write(&mut self.out.bytes);
        }
        let place = (order - self.oldest) as usize;
        if self.held.len() <= place {
            self.held.resize(place + 1, None);
        }
        self.held[place] = Some(reply);
        while let Some(Some(_)) = self.held.front() {
            if let Some(Some(reply)) = self.held.pop_front() {
                reply.write(&mut self.out.bytes);
                self.oldest += 1;
            }
        }
    }

    /// Says `error REASON` out of order and takes no further request.
    pub fn refuse(&mut self, reason: Reason) {
        Reply::error(reason, "").write(&mut self.out.bytes);
        self.closing = true;
    }

    /// Whether no request is taken any more, because of what the peer sent.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Whether everything that will be said has been sent.
    pub fn finished(&self) -> bool {
        let silent = self.closing || (self.ended && self.frames.is_empty());
        silent && self.out.is_empty() && self.oldest == self.next
    }
}

/// How the lines of a status begin; a numbered answer may come before them.
const STATUS_KINDS: [&[u8]; 3] = [b"queue ", b"service ", b"provider "];

/// The asking side of a connection. `T` tells what an answer in order is for.
#[derive(Debug)]
pub struct Asking<T> {
    frames: Frames,
    /// What is to be sent.
    pub out: Outbox,
    /// What each answer in order is for, and whether it is a status.
    waiting: VecDeque<(T, bool)>,
    /// The lines of a status, as far as they are here.
    status: String,
}

impl<T> Default for Asking<T> {
    fn default() -> Self {
        Asking { frames: Frames::default(), out: Outbox::default(), waiting: VecDeque::new(), status: String::new() }
    }
}

/// An answer, and what it is for: an id, or what was said when asking.
#[derive(Debug, PartialEq)]
pub enum Answer<T> {
    /// To the `next` with this id.
    Numbered(u32, Reply),
    /// To the oldest other request.
    InOrder(T, Reply),
}

impl<T> Asking<T> {
    /// Asks. A `next` with an id is answered by number, all else in order,
    /// together with `purpose`.
    pub fn ask(&mut self, balancer: &dyn Display, request: &Request, purpose: T) {
        request.write(balancer, &mut self.out.bytes);
        if !matches!(request, Request::Next(next) if next.id.is_some()) {
            self.waiting.push_back((purpose, matches!(request, Request::Status { .. })));
        }
    }

    /// Bytes arrived; then ask [`answer`](Asking::answer) until there is none.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
    }

    /// The next answer. An error means that the peer is no ticket queue, and
    /// the connection is of no use any more.
    pub fn answer(&mut self) -> Result<Option<Answer<T>>, &'static str> {
        loop {
            let line = match self.frames.take() {
                None => return Ok(None),
                Some(Frame::Line(line)) => line,
                Some(Frame::TooLong) => return Err("an answer beyond 1024 bytes"),
            };
            let reply = match self.waiting.front() {
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
            if let Reply::Provider { id: Some(id), .. } | Reply::Error { id: Some(id), .. } = reply {
                return Ok(Some(Answer::Numbered(id, reply)));
            }
            let (purpose, _) = self.waiting.pop_front().ok_or("an answer to nothing")?;
            return Ok(Some(Answer::InOrder(purpose, reply)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::RequestResult;

    fn sent(channel: &mut Answering) -> String {
        let text = String::from_utf8(channel.out.bytes().to_vec()).unwrap();
        channel.out.sent(text.len());
        text
    }

    #[test]
    fn answers_keep_the_order_of_requests_but_numbered_ones_overtake() {
        let mut channel = Answering::default();
        channel.receive(b"pegasus://b/next?wait=1s\npegasus://b/done?id=1\npegasus://b/next?id=2\n");
        let orders: Vec<Order> = std::iter::from_fn(|| channel.request()).map(|(order, _)| order).collect();
        assert_eq!(orders, [Some(0), Some(1), None]);
        channel.answer(Some(1), Reply::Ok);
        assert_eq!(sent(&mut channel), "");
        channel.answer(None, Reply::Provider { provider: "10.0.0.7".parse().unwrap(), id: Some(2) });
        assert_eq!(sent(&mut channel), "10.0.0.7 id=2\n");
        channel.answer(Some(0), Reply::error(Reason::NoTicket, ""));
        assert_eq!(sent(&mut channel), "error no-ticket\nok\n");
    }

    #[test]
    fn three_bad_lines_in_a_row_end_it_and_each_gets_its_error() {
        let mut channel = Answering::default();
        channel.receive(b"a\nb\npegasus://b/status\nc\nd\ne\npegasus://b/status\n");
        let (order, request) = channel.request().unwrap();
        assert_eq!((order, request), (Some(2), Request::Status { service: None }));
        channel.answer(order, Reply::Status(String::new()));
        assert_eq!(channel.request(), None);
        assert!(channel.closing() && !channel.finished());
        let answers: Vec<_> =
            sent(&mut channel).lines().map(|line| line.chars().take(13).collect::<String>()).collect();
        assert_eq!(answers, ["error bad-url", "error bad-url", ".", "error bad-url", "error bad-url", "error bad-url"]);
        assert!(channel.finished());
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read() {
        let mut channel = Answering::default();
        channel.receive(b"pegasus://b/status\npegasus://b/status\n");
        let (order, _) = channel.request().unwrap();
        channel.answer(order, Reply::Status("x\n".repeat(OUT_BYTES_MAX)));
        assert!(channel.clogged() && channel.request().is_none());
        sent(&mut channel);
        assert!(channel.request().is_some());
    }

    #[test]
    fn an_unfinished_last_line_counts_when_the_peer_ends() {
        let mut channel = Answering::default();
        channel.receive(b"pegasus://b/done?id=1");
        assert_eq!(channel.request(), None);
        channel.end();
        assert_eq!(channel.request(), Some((Some(0), Request::Done { id: 1, result: RequestResult::Good })));
        assert!(!channel.finished());
        channel.answer(Some(0), Reply::Ok);
        assert!(!channel.finished(), "the answer is still to be sent");
        sent(&mut channel);
        assert!(channel.finished());
    }

    #[test]
    fn the_asker_tells_answers_apart() {
        let mut asking = Asking::default();
        asking.ask(&"b", &Request::Done { id: 9, result: RequestResult::Good }, 'd');
        assert_eq!(asking.out.bytes(), b"pegasus://b/done?id=9\n");
        asking.receive(b"10.0.0.7:80 id=3\nok\nok\n");
        assert!(matches!(asking.answer(), Ok(Some(Answer::Numbered(3, _)))));
        assert_eq!(asking.answer(), Ok(Some(Answer::InOrder('d', Reply::Ok))));
        assert!(asking.answer().is_err());
    }

    #[test]
    fn a_status_is_one_answer_and_numbered_ones_may_come_before_it() {
        let mut asking = Asking::default();
        for purpose in ['a', 'b', 'c'] {
            asking.ask(&"b", &Request::Status { service: None }, purpose);
        }
        asking.ask(&"b", &Request::Done { id: 9, result: RequestResult::Good }, 'd');
        asking.receive(b"10.0.0.7:80 id=3\nqueue waiting=0\nprovider address=10.0.0.7:80\n");
        assert!(matches!(asking.answer(), Ok(Some(Answer::Numbered(3, _)))));
        assert_eq!(asking.answer(), Ok(None));
        asking.receive(b".\nerror denied\n.\nok\n");
        let lines = "queue waiting=0\nprovider address=10.0.0.7:80\n";
        assert_eq!(asking.answer(), Ok(Some(Answer::InOrder('a', Reply::Status(lines.into())))));
        assert_eq!(asking.answer(), Ok(Some(Answer::InOrder('b', Reply::error(Reason::Denied, "")))));
        assert_eq!(asking.answer(), Ok(Some(Answer::InOrder('c', Reply::Status(String::new())))));
        assert_eq!(asking.answer(), Ok(Some(Answer::InOrder('d', Reply::Ok))));
        asking.ask(&"b", &Request::Status { service: None }, 'e');
        for _ in 0..STATUS_BYTES_MAX / 1000 {
            asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat());
            assert_eq!(asking.answer(), Ok(None));
        }
        asking.receive(&[b"provider ", &[b'x'; 990][..], b"\n"].concat().repeat(2));
        assert!((0..2).any(|_| asking.answer().is_err()), "it has a bound");
    }
}
