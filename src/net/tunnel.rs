//! Two sockets and the bytes between them, both ways.
//!
//! Owns one client's sockets from its arrival to the end: optimistic reads and
//! writes, what a slow side left behind, half-close, and what a reset does to
//! the other side. Each direction ends by itself. Decides nothing: who is
//! connected, and when, is its owner's decision.

use crate::os::socket;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::protocol::message::RequestResult;
use pegasus_core::protocol::proxy_header::Header;
use std::io::{self, Read};

mod direction;
mod header;

pub use direction::{RelayBuffers, ALL_INTERESTS};

use direction::{send, transfer, AtEof, Direction, Pending, Readiness, Step, UNKNOWN};

/// What became of a tunnel by pumping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelStatus {
    /// It goes on when a socket is ready.
    Open,
    /// It goes on, and need not wait.
    Unfinished,
    /// The provider failed before a byte was exchanged with it.
    ProviderFailed,
    /// It is over, for this reason.
    Closed(Outcome),
}

/// What became of a connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectStatus {
    /// No answer yet.
    Pending,
    /// The provider took bytes: it is connected.
    Connected,
    /// The provider refused.
    Refused,
    /// The client reset its connection meanwhile.
    ClientGone,
}

/// A client, and perhaps its provider.
#[derive(Debug)]
pub struct Tunnel {
    client: TcpStream,
    client_readiness: Readiness,
    provider: Option<TcpStream>,
    provider_readiness: Readiness,
    /// From the client to the provider.
    up: Direction,
    down: Direction,
    reset: Option<Outcome>,
    /// The provider ended before the client did.
    provider_first: bool,
    /// What each provider receives first.
    header: Option<Box<Header>>,
}

impl Tunnel {
    /// A client who has no provider yet.
    pub fn new(client: TcpStream) -> Tunnel {
        Tunnel {
            client,
            client_readiness: UNKNOWN,
            provider: None,
            provider_readiness: UNKNOWN,
            up: Direction::default(),
            down: Direction::default(),
            reset: None,
            provider_first: false,
            header: None,
        }
    }

    /// Drops its provider, if it has one.
    pub fn drop_provider(&mut self) {
        self.provider = None;
    }

    /// Its provider.
    pub fn provider(&self) -> Option<&TcpStream> {
        self.provider.as_ref()
    }

    /// The client's socket became ready. Whether the client is still there; it
    /// may have ended its side, that is no leaving.
    pub fn on_client_event(&mut self, event: &Event) -> bool {
        self.client_readiness.update(event, &self.client);
        !self.client_readiness.failed
    }

    /// The provider's socket became ready.
    pub fn on_provider_event(&mut self, event: &Event) {
        if let Some(provider) = &self.provider {
            self.provider_readiness.update(event, provider);
        }
    }

    /// After a transfer: wants no events that would tell nothing new. The sockets are
    /// registered by these tokens.
    pub fn update_interest(&mut self, registry: &Registry, client: Token, provider: Token) {
        self.client_readiness.update_interest(&mut self.client, registry, client);
        if let Some(socket) = &mut self.provider {
            self.provider_readiness.update_interest(socket, registry, provider);
        }
    }

    /// Makes the system find out when one of the hosts is gone.
    pub fn keepalive(&self) {
        socket::keepalive(&self.client);
        if let Some(provider) = &self.provider {
            socket::keepalive(provider);
        }
    }

    /// Bytes to the client and from it, so far.
    pub fn moved(&self) -> (u64, u64) {
        (self.down.moved, self.up.moved)
    }

    /// What the provider made of a client whose visit ended so.
    pub fn result(&self, outcome: Outcome) -> RequestResult {
        let (sent, received) = self.moved();
        match outcome {
            _ if sent > 0 => RequestResult::Good,
            Outcome::ProviderReset => RequestResult::Reset,
            // Nobody asked for anything, so that nothing says whether it serves.
            _ if received == 0 => RequestResult::Unused,
            Outcome::Complete if self.provider_first => RequestResult::Empty,
            // A client that only speaks, as loggers do, ends first.
            _ => RequestResult::Good,
        }
    }

    /// Whether exactly one direction has ended.
    pub fn half_closed(&self) -> bool {
        self.up.closed != self.down.closed
    }

    /// Closing this tunnel will reset the client.
    pub fn reset_client(&self) {
        socket::reset_on_close(&self.client);
    }

    /// Closing this tunnel will reset the provider.
    pub fn reset_provider(&self) {
        if let Some(provider) = &self.provider {
            socket::reset_on_close(provider);
        }
    }

    /// Connects a provider with `connect`, which is told whether there is something
    /// to be said at once: what the client sent so far is read before, and sent
    /// without waiting for an event, as on a near network the connection often
    /// stands by then. What the provider does not take is kept, for it or the next.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect<E>(
        &mut self,
        buffers: &mut RelayBuffers,
        connect: impl FnOnce(bool) -> Result<TcpStream, E>,
    ) -> Result<ConnectStatus, E> {
        self.provider = None;
        self.up.discard_header();
        let Ok(count) = self.read_early_data(buffers) else { return Ok(ConnectStatus::ClientGone) };
        let pending = self.up.pending.take();
        let early_data = pending
            .as_ref()
            .map_or(&buffers.read_buffer[..count], |pending| &pending.bytes[pending.sent..]);
        let (header, silent) =
            (self.header.as_ref().map_or(0, |header| header.len()), early_data.is_empty());
        let headed = self.header.as_ref().map(|header| [header, early_data].concat());
        let bytes = headed.as_deref().unwrap_or(early_data);
        let connected = connect(!bytes.is_empty());
        let sent = match &connected {
            Ok(provider) if !bytes.is_empty() => send(provider, bytes),
            _ => Ok(0),
        };
        let taken = sent.unwrap_or(0);
        if taken < bytes.len() {
            let header = header.saturating_sub(taken);
            self.up.pending =
                Some(Box::new(Pending { header, ..*Pending::new(bytes[taken..].to_vec()) }));
        }
        self.up.moved += taken.saturating_sub(header) as u64;
        self.up.closed = false;
        self.down = Direction::default();
        let provider = self.provider.insert(connected?);
        // Behind a header that left alone the client's first bytes would wait.
        let nagle_on = header == 0 || !silent || provider.set_nodelay(true).is_err();
        self.provider_readiness =
            Readiness { nagle_on, write: taken > 0 || self.up.pending.is_none(), ..UNKNOWN };
        Ok(match sent {
            Err(()) => ConnectStatus::Refused,
            Ok(0) => ConnectStatus::Pending,
            Ok(_) => ConnectStatus::Connected,
        })
    }

    /// Reads what the client said, if nothing of it is kept yet: so many bytes
    /// are in the buffer.
    fn read_early_data(&mut self, buffers: &mut RelayBuffers) -> Result<usize, ()> {
        if self.up.pending.is_some() || self.up.ended || !self.client_readiness.read {
            return Ok(0);
        }
        match self.client.read(&mut buffers.read_buffer) {
            Ok(0) => self.up.ended = true,
            Ok(count) => {
                self.up.on_read(count, buffers, &mut self.client_readiness);
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.client_readiness.read = false
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
        }
        Ok(0)
    }

    /// Moves what can be moved.
    pub fn transfer(&mut self, buffers: &mut RelayBuffers) -> TunnelStatus {
        if self.moved() != (0, 0) {
            // There will be no other provider.
            self.header = None;
        }
        let Some(provider) = &mut self.provider else { return TunnelStatus::Open };
        let (client, client_readiness, provider_readiness) =
            (&mut self.client, &mut self.client_readiness, &mut self.provider_readiness);
        let mut unfinished = false;

        let at_eof = at_eof_after(self.reset, &self.down);
        match transfer(
            client,
            client_readiness,
            provider,
            provider_readiness,
            &mut self.up,
            buffers,
            at_eof,
        ) {
            Step::Blocked => {}
            Step::Unfinished => unfinished = true,
            Step::SourceFailed => return self.client_failed(),
            Step::SinkFailed => {
                if can_retry(&self.up, &self.down) {
                    return TunnelStatus::ProviderFailed;
                }
                // What the provider sent before it reset can still be read.
                (self.up.closed, self.up.pending, self.up.pipe_in_use) = (true, None, None);
                self.reset.get_or_insert(Outcome::ProviderReset);
                (provider_readiness.read, provider_readiness.ended) = (true, true);
            }
        }
        let at_eof = at_eof_after(self.reset, &self.up);
        match transfer(
            provider,
            provider_readiness,
            client,
            client_readiness,
            &mut self.down,
            buffers,
            at_eof,
        ) {
            Step::Blocked => {}
            Step::Unfinished => unfinished = true,
            Step::SourceFailed => return self.provider_failed(),
            Step::SinkFailed => {
                // What the client sent before it reset still goes to the provider.
                (self.down.closed, self.down.pending, self.down.pipe_in_use) = (true, None, None);
                self.reset.get_or_insert(Outcome::ClientReset);
                (client_readiness.read, client_readiness.ended) = (true, true);
                unfinished = true;
            }
        }
        self.provider_first |= self.down.ended && !self.up.ended;
        if !(self.up.closed && self.down.closed) {
            return if unfinished { TunnelStatus::Unfinished } else { TunnelStatus::Open };
        }
        match self.reset {
            None => TunnelStatus::Closed(Outcome::Complete),
            Some(Outcome::ClientReset) => self.client_failed(),
            Some(_) => self.provider_failed(),
        }
    }

    fn client_failed(&mut self) -> TunnelStatus {
        self.reset_provider();
        TunnelStatus::Closed(Outcome::ClientReset)
    }

    fn provider_failed(&mut self) -> TunnelStatus {
        if can_retry(&self.up, &self.down) {
            return TunnelStatus::ProviderFailed;
        }
        self.reset_client();
        TunnelStatus::Closed(Outcome::ProviderReset)
    }
}

/// Whether another provider can still take this one's place: the client has heard
/// nothing of it, not even its end, and it has heard nothing that the client said.
fn can_retry(up: &Direction, down: &Direction) -> bool {
    up.moved == 0 && down.moved == 0 && !down.closed
}

/// `other`: the opposite direction.
fn at_eof_after(reset: Option<Outcome>, other: &Direction) -> AtEof {
    if reset.is_some() || other.closed {
        AtEof::Close
    } else {
        AtEof::Fin
    }
}
