//! Checks of services: does somebody take a connection?
//!
//! Owns the attempts under way, at most one for each service. What a result
//! means is the monitor's business.

use super::drive::Desk;
use mio::net::TcpStream;
use mio::{Interest, Token};
use pegasus_core::base::time::{Moment, Span};
use std::net::SocketAddr;

/// Whether a service is well, or why not.
pub type Verdict = Result<(), String>;

/// Attempts by the number of the service.
#[derive(Default)]
pub struct Probes {
    under_way: Vec<Option<(TcpStream, Moment)>>,
}

impl Probes {
    /// Tries to connect; answers at once if that is decided at once.
    pub fn begin(
        &mut self,
        service: usize,
        to: SocketAddr,
        timeout: Span,
        token: Token,
        desk: &mut Desk,
    ) -> Option<Verdict> {
        let mut stream = match TcpStream::connect(to) {
            Ok(stream) => stream,
            Err(error) => return Some(Err(format!("{to}: {error}"))),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = desk.registry.register(&mut stream, token, interest) {
            return Some(Err(error.to_string()));
        }
        if self.under_way.len() <= service {
            self.under_way.resize_with(service + 1, || None);
        }
        self.under_way[service] = Some((stream, desk.now + timeout));
        None
    }

    /// A socket became ready: the result, if there is one.
    pub fn ready(&mut self, service: usize) -> Option<Verdict> {
        let place = self.under_way.get_mut(service)?;
        let (stream, _) = place.as_ref()?;
        let verdict = match (stream.take_error(), stream.peer_addr()) {
            (Ok(None), Ok(_)) => Ok(()),
            (Ok(None), Err(_)) => return None,
            (Ok(Some(error)) | Err(error), _) => Err(error.to_string()),
        };
        *place = None;
        Some(verdict)
    }

    /// A service whose attempt took too long.
    pub fn expired(&mut self, now: Moment) -> Option<usize> {
        let late = self.under_way.iter().position(|place| place.as_ref().is_some_and(|(_, until)| now >= *until))?;
        self.under_way[late] = None;
        Some(late)
    }

    /// When the next attempt has taken too long.
    pub fn deadline(&self) -> Option<Moment> {
        self.under_way.iter().flatten().map(|(_, until)| *until).min()
    }
}
