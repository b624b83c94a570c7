//! Checks whether a service accepts a connection.
//!
//! Owns the attempts under way, at most one for each service. Not responsible for what a
//! result means.

use super::event_loop::Context;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::time::{Moment, Span};
use std::net::SocketAddr;

/// Whether a service is healthy, or why not.
pub type CheckResult = Result<(), String>;

/// The attempts by the number of the service.
#[derive(Default)]
pub struct TcpChecks {
    pending: Vec<Option<(TcpStream, Moment)>>,
}

impl TcpChecks {
    /// Begins to connect. Returns the result if it is known at once.
    pub fn start(
        &mut self,
        service: usize,
        to: SocketAddr,
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
        self.pending[service] = Some((stream, cx.now + timeout));
        None
    }

    /// A socket became ready: the result, if there is one.
    pub fn on_event(&mut self, service: usize) -> Option<CheckResult> {
        let check = self.pending.get_mut(service)?;
        let (stream, _) = check.as_ref()?;
        let result = match (stream.take_error(), stream.peer_addr()) {
            (Ok(None), Ok(_)) => Ok(()),
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
            .position(|check| check.as_ref().is_some_and(|(_, until)| now >= *until))?;
        self.pending[late] = None;
        Some(late)
    }

    /// When the next attempt has taken too long.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.pending.iter().flatten().map(|(_, until)| *until).min()
    }
}
