//! A client's TCP connection: messages behind their lengths (RFC 1035, 4.2.2), many of them
//! at once (RFC 7766).
//!
//! Owns the bytes and their bounds. Not responsible for what a message says.

use mio::net::TcpStream;
use pegasus_core::base::time::{Moment, Span};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// How long a connection may be silent, and its client may take for an answer.
pub const IDLE_TIMEOUT: Span = Span::from_secs(10);
/// Questions of a connection that wait for their answers.
const WAITING_MAX: usize = 32;
/// Bytes of answers that a client has not taken; with more its questions are not read.
const UNSENT_MAX: usize = 16 * 1024;
/// The longest question, in bytes. No client has a reason to send a longer one.
const QUESTION_BYTES_MAX: usize = 4096;
/// Bytes read at once.
const READ_BYTES: usize = 2048;

/// A client's TCP connection, with its questions and answers.
pub struct Connection {
    pub stream: TcpStream,
    pub from: SocketAddr,
    /// In the order of arrival.
    pub number: u64,
    /// When it is closed, unless something is read or written before.
    pub deadline: Moment,
    /// Questions that wait for their answers.
    pub waiting: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    ended: bool,
}

impl Connection {
    /// A connection that has said nothing yet.
    pub fn new(stream: TcpStream, from: SocketAddr, number: u64, now: Moment) -> Connection {
        Connection {
            stream,
            from,
            number,
            deadline: now + IDLE_TIMEOUT,
            waiting: 0,
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
        }
    }

    /// Whether nothing waits for its client.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.output.is_empty()
    }

    /// Whether it has nothing to do any more.
    pub fn is_over(&self) -> bool {
        self.ended && self.is_idle()
    }

    /// The next message, as far as one is here and may be taken.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn next_message(&mut self, now: Moment) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if self.waiting >= WAITING_MAX || self.output.len() > UNSENT_MAX {
                return Ok(None);
            }
            if let [high, low, rest @ ..] = &self.input[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > QUESTION_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if let Some(message) = rest.get(..length) {
                    let message = message.to_vec();
                    self.input.drain(..2 + length);
                    return Ok(Some(message));
                }
            }
            if self.ended {
                return Ok(None);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.deadline = now + IDLE_TIMEOUT;
                    self.input.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An answer is to be sent.
    pub fn push(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        self.output.extend(length.to_be_bytes());
        self.output.extend(&message[..usize::from(length)]);
    }

    /// Sends what the client takes.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn flush(&mut self, now: Moment) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.deadline = now + IDLE_TIMEOUT;
                    self.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
