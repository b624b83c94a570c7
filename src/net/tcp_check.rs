//! Checks whether a service accepts a connection, or what it answers over HTTP.
//!
//! Owns the attempts under way, at most one for each service. Not responsible for what a
//! result means.

use super::event_loop::Context;
use super::http_check::{self, ANSWER_BYTES_MAX};
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::time::{Moment, Span};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// Whether a service is healthy, or why not.
pub type CheckResult = Result<(), String>;

/// An attempt under way.
struct Attempt {
    stream: TcpStream,
    until: Moment,
    /// The request that is still to be sent, and what has been answered; none if it is
    /// enough to be connected.
    dialogue: Option<(Vec<u8>, Vec<u8>)>,
}

/// The attempts by the number of the service.
#[derive(Default)]
pub struct TcpChecks {
    pending: Vec<Option<Attempt>>,
}

impl TcpChecks {
    /// Begins to connect, and then asks for `path`, if there is one. Returns the result
    /// if it is known at once.
    pub fn start(
        &mut self,
        service: usize,
        (to, path): (SocketAddr, Option<&str>),
        timeout: Span,
        token: Token,
        cx: &mut Context,
    ) -> Option<CheckResult> {
        let mut stream = match TcpStream::connect(to) {
            Ok(stream) => stream,
            Err(error) => return Some(Err(format!("{to}: {error}"))),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = cx.registry.register(&mut stream, token, interest) {
            return Some(Err(error.to_string()));
        }
        if self.pending.len() <= service {
            self.pending.resize_with(service + 1, || None);
        }
        let dialogue = path.map(|path| (http_check::request(to, path), Vec::new()));
        self.pending[service] = Some(Attempt { stream, until: cx.now + timeout, dialogue });
        None
    }

    /// A socket became ready: the result, if there is one.
    pub fn on_event(&mut self, service: usize) -> Option<CheckResult> {
        let check = self.pending.get_mut(service)?;
        let attempt = check.as_mut()?;
        let result = match (attempt.stream.take_error(), attempt.stream.peer_addr()) {
            (Ok(None), Ok(_)) => attempt.talk()?,
            (Ok(None), Err(_)) => return None,
            (Ok(Some(error)) | Err(error), _) => Err(error.to_string()),
        };
        *check = None;
        Some(result)
    }

    /// A service whose attempt took too long.
    pub fn pop_expired(&mut self, now: Moment) -> Option<usize> {
        let late = self
            .pending
            .iter()
            .position(|check| check.as_ref().is_some_and(|attempt| now >= attempt.until))?;
        self.pending[late] = None;
        Some(late)
    }

    /// When the next attempt has taken too long.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.pending.iter().flatten().map(|attempt| attempt.until).min()
    }
}

impl Attempt {
    /// Goes on with a connection that is there: the result, if there is one.
    fn talk(&mut self) -> Option<CheckResult> {
        let Some((request, answer)) = &mut self.dialogue else { return Some(Ok(())) };
        while !request.is_empty() {
            match self.stream.write(request) {
                Ok(count) => drop(request.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error.to_string())),
            }
        }
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    answer.extend_from_slice(&buffer[..count]);
                    let result = http_check::judge(answer, count == 0);
                    if result.is_some() {
                        return result;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }
}
