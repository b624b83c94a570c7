//! Two sockets and the bytes between them, both ways.
//!
//! Owns one client's sockets from its arrival to the end: optimistic reads and
//! writes, what a slow side left behind, half-close, and what a reset does to
//! the other side. Each direction ends by itself. Decides nothing: who is
//! connected, and when, is its owner's decision.

mod buffers;
mod direction;
mod endpoint;
mod header;
mod pending;

pub use buffers::RelayBuffers;
pub use endpoint::ALL_INTERESTS;

use crate::os::socket;
use direction::{AtEof, Direction, Ends, Pause};
use endpoint::Endpoint;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::proxy_header::Header;
use pegasus_core::protocol::request::RequestResult;
use pending::Pending;
use std::io;

/// A peer may acknowledge nothing for so long. A network that fails for less costs
/// no connection.
const UNACKNOWLEDGED_MAX: Span = Span::from_secs(60);

/// What became of a tunnel by a transfer.
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
    /// The provider took bytes, so it is connected.
    Connected,
    /// The provider refused.
    Refused,
    /// The client reset its connection meanwhile.
    ClientGone,
}

/// Since when it is known that a peer owes an acknowledgement and sends none.
#[derive(Debug, Default)]
struct Unacknowledged {
    client: Option<Moment>,
    provider: Option<Moment>,
}

/// A client, and perhaps its provider. Very many are idle: what few of them need has a box.
#[derive(Debug)]
pub struct Tunnel {
    client: Endpoint,
    provider: Option<Endpoint>,
    /// From the client to the provider.
    up: Direction,
    /// From the provider to the client.
    down: Direction,
    /// One side was reset: how the tunnel will end.
    reset: Option<Outcome>,
    /// Keepalive is on.
    keepalive: bool,
    /// Peers that owe an acknowledgement.
    unacknowledged: Option<Box<Unacknowledged>>,
    /// The provider ended before the client did.
    provider_first: bool,
    /// What each provider receives first.
    header: Option<Box<Header>>,
}

impl Tunnel {
    /// A client that has no provider yet.
    pub fn new(client: TcpStream) -> Tunnel {
        Tunnel {
            client: Endpoint::new(client),
            provider: None,
            up: Direction::default(),
            down: Direction::default(),
            reset: None,
            keepalive: false,
            unacknowledged: None,
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
        self.provider.as_ref().map(|provider| &provider.socket)
    }

    /// The client's socket became ready. Returns whether the client is still
    /// there; one that only ended its side is.
    pub fn on_client_event(&mut self, event: &Event) -> bool {
        self.client.on_event(event);
        self.client.peer != endpoint::Peer::Failed
    }

    /// The provider's socket became ready.
    pub fn on_provider_event(&mut self, event: &Event) {
        if let Some(provider) = &mut self.provider {
            provider.on_event(event);
        }
    }

    /// After a transfer: wants no events that would tell nothing new. The sockets are
    /// registered by these tokens.
    pub fn update_interest(&mut self, registry: &Registry, client: Token, provider: Token) {
        self.client.update_interest(registry, client);
        if let Some(endpoint) = &mut self.provider {
            endpoint.update_interest(registry, provider);
        }
    }

    /// Looks whether both hosts are still there; to be asked every 30 seconds. The
    /// system finds that out where nothing is on its way (keepalive), and here it is
    /// found out where a host does not acknowledge what is.
    pub fn check_peers(&mut self, now: Moment) -> TunnelStatus {
        if !std::mem::replace(&mut self.keepalive, true) {
            socket::keepalive(&self.client.socket);
            if let Some(provider) = self.provider() {
                socket::keepalive(provider);
            }
        }
        let mut since = self.unacknowledged.take().unwrap_or_default();
        since.client = self.client.unacknowledged_since(since.client, now);
        since.provider =
            self.provider.as_ref().and_then(|it| it.unacknowledged_since(since.provider, now));
        let is_lost = |since: Option<Moment>| {
            since.is_some_and(|since| now.since(since) >= UNACKNOWLEDGED_MAX)
        };
        if is_lost(since.client) {
            self.reset_client();
            return self.client_failed();
        }
        if is_lost(since.provider) {
            self.reset_provider();
            return self.provider_failed();
        }
        let any = since.client.is_some() || since.provider.is_some();
        self.unacknowledged = any.then_some(since);
        TunnelStatus::Open
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
            // The client sent nothing, so this does not show whether the provider serves.
            _ if received == 0 => RequestResult::Unused,
            Outcome::Complete if self.provider_first => RequestResult::Empty,
            // A client that only speaks, as loggers do, ends first.
            _ => RequestResult::Good,
        }
    }

    /// Whether exactly one direction has ended.
    pub fn half_closed(&self) -> bool {
        self.up.is_closed() != self.down.is_closed()
    }

    /// Closing this tunnel will reset the client.
    pub fn reset_client(&self) {
        socket::reset_on_close(&self.client.socket);
    }

    /// Closing this tunnel will reset the provider.
    pub fn reset_provider(&self) {
        if let Some(provider) = self.provider() {
            socket::reset_on_close(provider);
        }
    }

    /// Connects a provider with `connect`, whose argument tells whether there is
    /// something to be sent at once. What the client sent so far is read before, and
    /// sent without waiting for an event, as on a near network the connection is often
    /// established by then. What the provider does not take is kept, for it or the next.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect<E>(
        &mut self,
        buffers: &mut RelayBuffers,
        connect: impl FnOnce(bool) -> Result<TcpStream, E>,
    ) -> Result<ConnectStatus, E> {
        self.provider = None;
        let pending = self.up.take_pending().and_then(Pending::without_header);
        let early_data = match &pending {
            Some(pending) => pending.unsent(),
            None => match self.read_early_data(buffers) {
                Ok(count) => &buffers.read_buffer[..count],
                Err(_) => return Ok(ConnectStatus::ClientGone),
            },
        };
        let header = self.header.as_ref().map(|header| &header[..]).unwrap_or_default();
        let header_alone = !header.is_empty() && early_data.is_empty();
        let headed = (!header.is_empty()).then(|| [header, early_data].concat());
        let bytes = headed.as_deref().unwrap_or(early_data);

        let mut connected = connect(!bytes.is_empty()).map(Endpoint::new);
        let sent = match &mut connected {
            Ok(provider) if !bytes.is_empty() => {
                provider.handshake_delayed = true;
                provider.write(bytes, true)
            }
            _ => Ok(0),
        };
        self.up.keep_unsent(bytes, header.len(), *sent.as_ref().unwrap_or(&0));
        self.up.reopen();
        self.down = Direction::default();
        self.keepalive = false;
        if let Some(since) = &mut self.unacknowledged {
            since.provider = None;
        }
        let provider = self.provider.insert(connected?);
        // An event tells of its answer. A read before finds none, or not yet its end.
        provider.readable = false;
        // Behind a header that left alone the client's first bytes would wait.
        provider.nagle_on = !header_alone || provider.socket.set_nodelay(true).is_err();
        Ok(match sent {
            Err(_) => ConnectStatus::Refused,
            Ok(0) => ConnectStatus::Pending,
            Ok(_) => ConnectStatus::Connected,
        })
    }

    /// Reads what the client has sent: so many bytes are in the buffer.
    ///
    /// # Errors
    /// Returns the OS error.
    fn read_early_data(&mut self, buffers: &mut RelayBuffers) -> io::Result<usize> {
        if self.up.is_open() && self.client.readable {
            self.up.read(&mut self.client, buffers)
        } else {
            Ok(0)
        }
    }

    /// Moves what can be moved.
    pub fn transfer(&mut self, buffers: &mut RelayBuffers) -> TunnelStatus {
        if self.moved() != (0, 0) {
            // There will be no other provider.
            self.header = None;
        }
        match self.transfer_both(buffers) {
            Ok(status) | Err(status) => status,
        }
    }

    /// Moves what can be moved in both directions, as long as both have a socket.
    fn transfer_both(&mut self, buffers: &mut RelayBuffers) -> Result<TunnelStatus, TunnelStatus> {
        let up_unfinished = self.transfer_up(buffers)?;
        let down_unfinished = self.transfer_down(buffers)?;
        self.provider_first |= !self.down.is_open() && self.up.is_open();
        if !(self.up.is_closed() && self.down.is_closed()) {
            let unfinished = up_unfinished || down_unfinished;
            return Ok(if unfinished { TunnelStatus::Unfinished } else { TunnelStatus::Open });
        }
        Ok(match self.reset {
            None => TunnelStatus::Closed(Outcome::Complete),
            Some(Outcome::ClientReset) => self.client_failed(),
            Some(_) => self.provider_failed(),
        })
    }

    /// Moves bytes to the provider. Returns whether there are more.
    ///
    /// # Errors
    /// The tunnel goes no further.
    fn transfer_up(&mut self, buffers: &mut RelayBuffers) -> Result<bool, TunnelStatus> {
        let at_eof = at_eof_after(self.reset, &self.down);
        let Some(provider) = &mut self.provider else { return Err(TunnelStatus::Open) };
        let ends = Ends { source: &mut self.client, sink: provider };
        match self.up.transfer(ends, buffers, at_eof) {
            Pause::Blocked => Ok(false),
            Pause::Unfinished => Ok(true),
            Pause::SourceFailed => Err(self.client_failed()),
            Pause::SinkFailed if self.can_retry() => Err(TunnelStatus::ProviderFailed),
            Pause::SinkFailed => {
                // What the provider sent before it reset can still be read.
                self.provider.as_mut().map(Endpoint::on_write_failed);
                self.up.close();
                self.reset.get_or_insert(Outcome::ProviderReset);
                Ok(false)
            }
        }
    }

    /// Moves bytes to the client. Returns whether there are more.
    ///
    /// # Errors
    /// The tunnel goes no further.
    fn transfer_down(&mut self, buffers: &mut RelayBuffers) -> Result<bool, TunnelStatus> {
        let at_eof = at_eof_after(self.reset, &self.up);
        let Some(provider) = &mut self.provider else { return Err(TunnelStatus::Open) };
        let ends = Ends { source: provider, sink: &mut self.client };
        match self.down.transfer(ends, buffers, at_eof) {
            Pause::Blocked => Ok(false),
            Pause::Unfinished => Ok(true),
            Pause::SourceFailed => Err(self.provider_failed()),
            Pause::SinkFailed => {
                // What the client sent before it reset still goes to the provider.
                self.client.on_write_failed();
                self.down.close();
                self.reset.get_or_insert(Outcome::ClientReset);
                Ok(true)
            }
        }
    }

    fn client_failed(&mut self) -> TunnelStatus {
        self.reset_provider();
        TunnelStatus::Closed(Outcome::ClientReset)
    }

    fn provider_failed(&mut self) -> TunnelStatus {
        if self.can_retry() {
            return TunnelStatus::ProviderFailed;
        }
        self.reset_client();
        TunnelStatus::Closed(Outcome::ProviderReset)
    }

    /// Whether another provider can still take this one's place: the client has got
    /// nothing from it, not even its end, and it has got nothing from the client.
    fn can_retry(&self) -> bool {
        self.moved() == (0, 0) && !self.down.is_closed()
    }
}

/// What the sink of a direction is told at its end. `other`: the opposite direction.
fn at_eof_after(reset: Option<Outcome>, other: &Direction) -> AtEof {
    if reset.is_some() || other.is_closed() {
        AtEof::Close
    } else {
        AtEof::Fin
    }
}
