//! The queue's side of a control connection, without its socket.
//!
//! Bytes come in, requests go out; replies come in, bytes go out, in the order
//! of the requests. Owns the buffers and their bounds. Knows no socket, no clock
//! and nothing of what a request does.

use super::line_decoder::{Line, LineDecoder};
use super::reply::{ErrorCode, Reply};
use super::request::Request;
use super::send_buffer::{SendBuffer, OUT_BYTES_MAX};
use std::collections::VecDeque;

/// Requests in order that may be without their answer before further ones wait.
pub const UNANSWERED_MAX: u64 = 1024;
/// Bad lines in a row that end a connection.
pub const BAD_LINES_MAX: u32 = 3;
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

/// Whether a line is the first one of an HTTP request, whatever its version.
fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"OPTIONS ",
        b"DELETE ",
        b"PATCH ",
        b"TRACE ",
        b"CONNECT ",
        b"PRI ",
    ];
    METHODS.iter().any(|method| line.starts_with(method))
}

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

    /// The peer will send no more, and what is not a whole line is not its own end: an
    /// attacker can cut an encrypted connection where it likes.
    pub fn end_at_line(&mut self) {
        self.decoder.discard_partial();
        self.end();
    }

    /// Whether the peer must read its answers before more of it is read.
    pub fn is_backpressured(&self) -> bool {
        self.out.bytes().len() >= OUT_BYTES_MAX || self.next - self.oldest >= UNANSWERED_MAX
    }

    /// The next request, unless the peer is [`is_backpressured`](Responder::is_backpressured).
    /// Lines that are none are answered here.
    pub fn next_request(&mut self) -> Option<(ReplySlot, Request)> {
        while !self.closing && !self.is_backpressured() {
            let parsed = match self.decoder.next_line()? {
                Line::Line(line) => Request::parse(line).inspect_err(|_| {
                    // What follows may be the words of a stranger, brought by a browser.
                    self.closing = is_http(line);
                }),
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
                    self.closing |= self.bad_lines >= BAD_LINES_MAX;
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
            return reply.write(self.out.tail());
        };
        if slot == self.oldest && self.held_replies.is_empty() {
            self.oldest += 1;
            return reply.write(self.out.tail());
        }
        let place = (slot - self.oldest) as usize;
        if self.held_replies.len() <= place {
            self.held_replies.resize(place + 1, None);
        }
        self.held_replies[place] = Some(reply);
        while let Some(Some(_)) = self.held_replies.front() {
            if let Some(Some(reply)) = self.held_replies.pop_front() {
                reply.write(self.out.tail());
                self.oldest += 1;
            }
        }
    }

    /// Sends `error REASON` out of order and takes no further request.
    pub fn refuse(&mut self, code: ErrorCode) {
        Reply::error(code, "").write(self.out.tail());
        self.closing = true;
    }

    /// Takes no further request; what was asked is still answered.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether no request is taken any more, because of what the peer sent.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Whether everything that will be sent is sent.
    pub fn finished(&self) -> bool {
        let silent = self.closing || (self.ended && self.decoder.is_empty());
        silent && self.out.is_empty() && self.oldest == self.next
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::RequestResult;
    use super::*;

    fn sent(responder: &mut Responder) -> String {
        let text = String::from_utf8(responder.out.bytes().to_vec()).unwrap();
        responder.out.sent(text.len());
        text
    }

    #[test]
    fn answers_keep_the_order_of_requests_but_numbered_ones_overtake() {
        let mut responder = Responder::default();
        responder
            .receive(b"pegasus://b/next?wait=1s\npegasus://b/done?id=1\npegasus://b/next?id=2\n");
        let orders: Vec<ReplySlot> =
            std::iter::from_fn(|| responder.next_request()).map(|(slot, _)| slot).collect();
        assert_eq!(orders, [Some(0), Some(1), None]);
        responder.reply(Some(1), Reply::Ok);
        assert_eq!(sent(&mut responder), "");
        responder
            .reply(None, Reply::Provider { provider: "10.0.0.7".parse().unwrap(), id: Some(2) });
        assert_eq!(sent(&mut responder), "10.0.0.7 id=2\n");
        responder.reply(Some(0), Reply::error(ErrorCode::NoTicket, ""));
        assert_eq!(sent(&mut responder), "error no-ticket\nok\n");
    }

    #[test]
    fn three_bad_lines_in_a_row_end_it_and_each_gets_its_error() {
        let mut responder = Responder::default();
        responder.receive(b"a\nb\npegasus://b/status\nc\nd\ne\npegasus://b/status\n");
        let (slot, request) = responder.next_request().unwrap();
        assert_eq!((slot, request), (Some(2), Request::Status { service: None, export: None }));
        responder.reply(slot, Reply::Status(String::new()));
        assert_eq!(responder.next_request(), None);
        assert!(responder.closing() && !responder.finished());
        let answers: Vec<_> = sent(&mut responder)
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
        assert!(responder.finished());
    }

    #[test]
    fn an_http_request_ends_it_before_its_body_is_read() {
        for first in ["POST / HTTP/1.1", "GET /x HTTP/1.0", "CONNECT 10.0.0.1:80 HTTP/1.1", "PUT /"]
        {
            let mut responder = Responder::default();
            responder.receive(format!("{first}\r\n\r\npegasus://b/withdraw\n").as_bytes());
            assert_eq!(responder.next_request(), None);
            assert!(sent(&mut responder).starts_with("error bad-url"), "{first}");
            assert!(responder.finished() && responder.next_request().is_none(), "{first}");
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read() {
        let mut responder = Responder::default();
        responder.receive(b"pegasus://b/status\npegasus://b/status\n");
        let (slot, _) = responder.next_request().unwrap();
        responder.reply(slot, Reply::Status("x\n".repeat(OUT_BYTES_MAX)));
        assert!(responder.is_backpressured() && responder.next_request().is_none());
        sent(&mut responder);
        assert!(responder.next_request().is_some());
    }

    #[test]
    fn requests_without_an_answer_are_bounded() {
        let mut responder = Responder::default();
        responder.receive(&b"pegasus://b/next?wait=9s\n".repeat(2 * UNANSWERED_MAX as usize));
        let taken = std::iter::from_fn(|| responder.next_request()).count();
        assert_eq!(taken as u64, UNANSWERED_MAX);
        responder.reply(Some(UNANSWERED_MAX - 1), Reply::Ok);
        assert!(responder.next_request().is_none() && responder.out.is_empty());
        responder.reply(Some(0), Reply::Ok);
        assert!(responder.next_request().is_some());
    }

    #[test]
    fn an_unfinished_last_line_counts_when_the_peer_ends() {
        let mut responder = Responder::default();
        responder.receive(b"pegasus://b/done?id=1");
        assert_eq!(responder.next_request(), None);
        responder.end();
        assert_eq!(
            responder.next_request(),
            Some((Some(0), Request::Done { id: 1, result: RequestResult::Good }))
        );
        assert!(!responder.finished());
        responder.reply(Some(0), Reply::Ok);
        assert!(!responder.finished(), "the answer is still to be sent");
        sent(&mut responder);
        assert!(responder.finished());
    }
}
