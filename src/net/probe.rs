//! Checks of services: does somebody take a connection?
//!
//! Owns the attempts under way, at most one for each service. What a result
//! means is the monitor's business.

use super::drive::Desk;
use crate::base::time::{Moment, Span};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::net::SocketAddr;

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
    ) -> Option<bool> {
        let Ok(mut stream) = TcpStream::connect(to) else { return Some(false) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if desk.registry.register(&mut stream, token, interest).is_err() {
            return Some(false);
        }
        if self.under_way.len() <= service {
            self.under_way.resize_with(service + 1, || None);
        }
        self.under_way[service] = Some((stream, desk.now + timeout));
        None
    }

    /// A socket became ready: the result, if there is one.
    pub fn ready(&mut self, service: usize) -> Option<bool> {
        let place = self.under_way.get_mut(service)?;
        let (stream, _) = place.as_ref()?;
        let good = match (stream.take_error(), stream.peer_addr()) {
            (Ok(None), Ok(_)) => true,
            (Ok(None), Err(_)) => return None,
            _ => false,
        };
        *place = None;
        Some(good)
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
