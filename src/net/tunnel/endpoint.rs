//! One socket of a tunnel, and what is known of it without asking it.
//!
//! Owns the socket's readiness, the state of its peer and the events that are
//! wanted of it. Knows neither the other socket nor which of the two it is.

use crate::os::connect::on_first_write;
use crate::os::last_write::write_last;
use crate::os::socket::{unacknowledged_for, SHORT_READ_DRAINS};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pegasus_core::base::time::Moment;
use std::io::{self, Read, Write};

/// The events that are wanted of a socket.
#[cfg(pegasus_linux)]
pub const ALL_INTERESTS: Interest =
    Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// The events that are wanted of a socket.
#[cfg(not(pegasus_linux))]
pub const ALL_INTERESTS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Read events in a row that may tell nothing new before no more are wanted.
const REDUNDANT_EVENTS_MAX: u8 = 4;

/// The peer, as far as events have told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// It may send more.
    Open,
    /// It has ended well: nothing follows what is already here.
    Ended,
    /// The connection failed. What came before can still be read.
    Failed,
}

/// Read events, which a source that is quicker than its sink would bring for
/// every packet: each is a wake-up.
#[derive(Debug, Default)]
struct ReadInterest {
    /// Events in a row that told what was known.
    redundant_events: u8,
    /// No more are wanted until everything was read.
    off: bool,
}

/// A socket and its readiness.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) socket: TcpStream,
    /// A read may bring something.
    pub(super) readable: bool,
    /// A write may be taken.
    pub(super) writable: bool,
    pub(super) peer: Peer,
    /// Urgent data came (RFC 6093). A read stops where it stands, and a splice
    /// never gets past it, though more may follow.
    pub(super) urgent: bool,
    /// The system may hold small pieces back (Nagle, RFC 896). That delays only
    /// the second piece, so a connection that needs no second one saves the call.
    pub(super) nagle_on: bool,
    /// The first write completes the handshake: see [`on_first_write`].
    pub(super) handshake_delayed: bool,
    interest: ReadInterest,
}

impl Endpoint {
    /// A socket of which nothing is known.
    pub(super) fn new(socket: TcpStream) -> Endpoint {
        Endpoint {
            socket,
            readable: true,
            writable: true,
            peer: Peer::Open,
            urgent: false,
            nagle_on: false,
            handshake_delayed: false,
            interest: ReadInterest::default(),
        }
    }

    /// Notes what an event says.
    pub(super) fn on_event(&mut self, event: &Event) {
        self.urgent |= event.is_priority();
        self.interest.redundant_events = if self.readable && event.is_readable() {
            self.interest.redundant_events.saturating_add(1)
        } else {
            0
        };
        if event.is_error() {
            self.peer = Peer::Failed;
        } else if event.is_read_closed() && self.peer == Peer::Open && !self.interest.off {
            // Without read interest the event would not tell of urgent data, so
            // that a short read would not be the last one.
            self.peer = Peer::Ended;
        }
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed();
    }

    /// Turns read events off when they tell nothing new, and on again as soon as
    /// they would.
    pub(super) fn update_interest(&mut self, registry: &Registry, token: Token) {
        let redundant = self.interest.redundant_events >= REDUNDANT_EVENTS_MAX;
        let off = self.readable && (self.interest.off || redundant);
        if off == self.interest.off {
            return;
        }
        let interest = if off { Interest::WRITABLE } else { ALL_INTERESTS };
        if registry.reregister(&mut self.socket, token, interest).is_ok() {
            self.interest = ReadInterest { redundant_events: 0, off };
        }
    }

    /// Writing to the peer failed: what it sent before is still to be read.
    pub(super) fn on_write_failed(&mut self) {
        self.peer = Peer::Failed;
        self.readable = true;
    }

    /// Since when it is known that the peer's host owes an acknowledgement and sends none.
    /// `since`: the last answer, which is to be asked for every 30 seconds.
    pub(super) fn unacknowledged_since(
        &self,
        since: Option<Moment>,
        now: Moment,
    ) -> Option<Moment> {
        let silence = unacknowledged_for(&self.socket)?;
        // Otherwise it acknowledged something meanwhile.
        let still =
            |since: &Moment| u128::from(now.since(*since).as_millis()) <= silence.as_millis();
        Some(since.filter(still).unwrap_or(now))
    }

    /// Takes bytes out of the socket with `call`: how many, 0 at the end, or
    /// none if there are none yet.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn take(
        &mut self,
        mut call: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let taken = unless_blocked(|| call(&mut self.socket))?;
        self.readable &= taken.is_some();
        Ok(taken)
    }

    /// Reads into `buffer`. Returns as [`take`](Endpoint::take) does.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.take(|socket| socket.read(buffer))
    }

    /// A read brought less than there was room for. Returns whether these were
    /// the last bytes.
    pub(super) fn on_short_read(&mut self) -> bool {
        if !SHORT_READ_DRAINS || self.urgent {
            return false;
        }
        self.readable = self.peer != Peer::Open;
        self.peer == Peer::Ended
    }

    /// Puts bytes into the socket with `call`: how many it took.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn put(
        &mut self,
        mut call: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let taken = unless_blocked(|| call(&mut self.socket))?.unwrap_or(0);
        self.writable = taken > 0;
        Ok(taken)
    }

    /// Writes the last bytes before this side is shut down: how many the socket took.
    /// Nothing is held back behind them, so the system need not be told so.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn write_last(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(|socket| write_last(socket, bytes))
    }

    /// Writes bytes: how many the socket took. `first`: nothing was written before.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn write(&mut self, bytes: &[u8], first: bool) -> io::Result<usize> {
        if self.nagle_on && !first {
            self.nagle_on = false;
            let _ = self.socket.set_nodelay(true);
        }
        let count = self.put(|socket| match socket.write(bytes) {
            // Some systems say so of a connection that is not established yet.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(0),
            result => result,
        })?;
        if self.handshake_delayed && count > 0 {
            self.handshake_delayed = false;
            on_first_write(&self.socket);
        }
        Ok(count)
    }
}

/// Calls until no signal interrupts. Returns none where the call would block.
fn unless_blocked(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match call() {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        };
    }
}
