//! Two sockets and the bytes between them, both ways.
//!
//! Owns one client's sockets from its arrival to the end: optimistic reads and
//! writes, what a slow side left behind, half-close, and what a reset does to
//! the other side. Each direction ends by itself. Asks nobody anything: who is
//! connected, and when, is its owner's business.

use crate::os::socket;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::wire::message::RequestResult;
use pegasus_core::wire::proxy::Header;
use std::io::{self, Read};

mod flow;
mod header;

pub use flow::{Tools, EVERYTHING};

use flow::{pump, send, Ending, Flow, Kept, Ready, Step, UNKNOWN};

/// What became of a link by pumping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// It goes on when a socket is ready.
    Open,
    /// It goes on, and need not wait.
    Again,
    /// The provider failed before a byte was exchanged with it.
    ProviderFailed,
    /// It is over, for this reason.
    Over(Outcome),
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Called {
    /// Nobody answered yet.
    Calling,
    /// The provider took bytes: it is connected.
    Connected,
    /// The provider refused.
    Refused,
    /// The client reset its connection meanwhile.
    ClientGone,
}

/// A client, and perhaps its provider.
#[derive(Debug)]
pub struct Link {
    client: TcpStream,
    client_ready: Ready,
    provider: Option<TcpStream>,
    provider_ready: Ready,
    /// From the client to the provider.
    up: Flow,
    down: Flow,
    reset: Option<Outcome>,
    /// The provider ended before the client did.
    provider_first: bool,
    /// What each provider receives first.
    header: Option<Box<Header>>,
}

impl Link {
    /// A client who has no provider yet.
    pub fn new(client: TcpStream) -> Link {
        Link {
            client,
            client_ready: UNKNOWN,
            provider: None,
            provider_ready: UNKNOWN,
            up: Flow::default(),
            down: Flow::default(),
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
    pub fn client_event(&mut self, event: &Event) -> bool {
        self.client_ready.note(event, &self.client);
        !self.client_ready.failed
    }

    /// The provider's socket became ready.
    pub fn provider_event(&mut self, event: &Event) {
        if let Some(provider) = &self.provider {
            self.provider_ready.note(event, provider);
        }
    }

    /// After pumping: wants no events that would tell nothing new. The sockets are
    /// registered by these tokens.
    pub fn attend(&mut self, registry: &Registry, client: Token, provider: Token) {
        self.client_ready.attend(&mut self.client, registry, client);
        if let Some(socket) = &mut self.provider {
            self.provider_ready.attend(socket, registry, provider);
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
        self.up.over != self.down.over
    }

    /// Closing this link will reset the client.
    pub fn reset_client(&self) {
        socket::reset_on_close(&self.client);
    }

    /// Closing this link will reset the provider.
    pub fn reset_provider(&self) {
        if let Some(provider) = &self.provider {
            socket::reset_on_close(provider);
        }
    }

    /// Calls a provider with `connect`, which is told whether there is something
    /// to be said at once: what the client sent so far is read before, and sent
    /// without waiting for an event, as on a near network the connection often
    /// stands by then. What the provider does not take is kept, for it or the next.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn call<E>(
        &mut self,
        tools: &mut Tools,
        connect: impl FnOnce(bool) -> Result<TcpStream, E>,
    ) -> Result<Called, E> {
        self.provider = None;
        self.up.forget_header();
        let Ok(count) = self.hear_client(tools) else { return Ok(Called::ClientGone) };
        let kept = self.up.kept.take();
        let said = kept.as_ref().map_or(&tools.buffer[..count], |kept| &kept.bytes[kept.sent..]);
        let (header, silent) = (self.header.as_ref().map_or(0, |header| header.len()), said.is_empty());
        let headed = self.header.as_ref().map(|header| [header, said].concat());
        let bytes = headed.as_deref().unwrap_or(said);
        let connected = connect(!bytes.is_empty());
        let sent = match &connected {
            Ok(provider) if !bytes.is_empty() => send(provider, bytes),
            _ => Ok(0),
        };
        let taken = sent.unwrap_or(0);
        if taken < bytes.len() {
            let header = header.saturating_sub(taken);
            self.up.kept = Some(Box::new(Kept { header, ..*Kept::new(bytes[taken..].to_vec()) }));
        }
        self.up.moved += taken.saturating_sub(header) as u64;
        self.up.over = false;
        self.down = Flow::default();
        let provider = self.provider.insert(connected?);
        // Behind a header that left alone the client's first bytes would wait.
        let delays = header == 0 || !silent || provider.set_nodelay(true).is_err();
        self.provider_ready = Ready { delays, write: taken > 0 || self.up.kept.is_none(), ..UNKNOWN };
        Ok(match sent {
            Err(()) => Called::Refused,
            Ok(0) => Called::Calling,
            Ok(_) => Called::Connected,
        })
    }

    /// Reads what the client said, if nothing of it is kept yet: so many bytes
    /// are in the buffer.
    fn hear_client(&mut self, tools: &mut Tools) -> Result<usize, ()> {
        if self.up.kept.is_some() || self.up.ended || !self.client_ready.read {
            return Ok(0);
        }
        match self.client.read(&mut tools.buffer) {
            Ok(0) => self.up.ended = true,
            Ok(count) => {
                self.up.was_read(count, tools, &mut self.client_ready);
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.client_ready.read = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
        }
        Ok(0)
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, tools: &mut Tools) -> Pumped {
        if self.moved() != (0, 0) {
            // There will be no other provider.
            self.header = None;
        }
        let Some(provider) = &mut self.provider else { return Pumped::Open };
        let (client, client_ready, provider_ready) =
            (&mut self.client, &mut self.client_ready, &mut self.provider_ready);
        let mut again = false;

        let ending = ending_after(self.reset, &self.down);
        match pump(client, client_ready, provider, provider_ready, &mut self.up, tools, ending) {
            Step::Blocked => {}
            Step::Again => again = true,
            Step::SourceFailed => return self.client_failed(),
            Step::SinkFailed => {
                if untouched(&self.up, &self.down) {
                    return Pumped::ProviderFailed;
                }
                // What the provider sent before it reset can still be read.
                (self.up.over, self.up.kept, self.up.spliced) = (true, None, None);
                self.reset.get_or_insert(Outcome::ProviderReset);
                (provider_ready.read, provider_ready.ended) = (true, true);
            }
        }
        let ending = ending_after(self.reset, &self.up);
        match pump(provider, provider_ready, client, client_ready, &mut self.down, tools, ending) {
            Step::Blocked => {}
            Step::Again => again = true,
            Step::SourceFailed => return self.provider_failed(),
            Step::SinkFailed => {
                // What the client sent before it reset still goes to the provider.
                (self.down.over, self.down.kept, self.down.spliced) = (true, None, None);
                self.reset.get_or_insert(Outcome::ClientReset);
                (client_ready.read, client_ready.ended) = (true, true);
                again = true;
            }
        }
        self.provider_first |= self.down.ended && !self.up.ended;
        if !(self.up.over && self.down.over) {
            return if again { Pumped::Again } else { Pumped::Open };
        }
        match self.reset {
            None => Pumped::Over(Outcome::Complete),
            Some(Outcome::ClientReset) => self.client_failed(),
            Some(_) => self.provider_failed(),
        }
    }

    fn client_failed(&mut self) -> Pumped {
        self.reset_provider();
        Pumped::Over(Outcome::ClientReset)
    }

    fn provider_failed(&mut self) -> Pumped {
        if untouched(&self.up, &self.down) {
            return Pumped::ProviderFailed;
        }
        self.reset_client();
        Pumped::Over(Outcome::ProviderReset)
    }
}

/// Whether another provider can still take this one's place: the client has heard
/// nothing of it, not even its end, and it has heard nothing that the client said.
fn untouched(up: &Flow, down: &Flow) -> bool {
    up.moved == 0 && down.moved == 0 && !down.over
}

/// `other`: the opposite direction.
fn ending_after(reset: Option<Outcome>, other: &Flow) -> Ending {
    if reset.is_some() || other.over {
        Ending::Close
    } else {
        Ending::Fin
    }
}
