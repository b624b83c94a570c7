//! Two sockets and the bytes between them, both ways.
//!
//! Owns one client's sockets from its arrival to the end: optimistic reads and
//! writes, what a slow side left behind, half-close, and what a reset does to
//! the other side. Each direction ends by itself. Asks nobody anything: who is
//! connected, and when, is its owner's business.

use crate::base::outcome::Outcome;
use crate::os::socket;
use crate::os::splice::Pipe;
use crate::wire::proxy::Header;
use mio::event::Event;
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

mod header;

/// Bytes read at once, into one buffer for all links of a loop.
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that a direction copies before it may splice.
const SPLICE_AFTER: u64 = 64 * 1024;
/// A read of so many bytes begins splicing, one of fewer ends it: for small
/// messages two copies are cheaper than two more calls.
const SPLICE_BEGIN: usize = 16 * 1024;
const SPLICE_END: usize = 4 * 1024;
/// Empty pipes that a loop keeps for the next who needs one.
const PIPES_MAX: usize = 64;
/// Reads of one direction before others get their turn.
const TURNS: u32 = 16;
/// A short read means that the socket is empty, and its next byte is an event.
/// True of epoll; elsewhere only an error says so.
const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What is known of a socket without asking it.
#[derive(Clone, Copy, Debug)]
struct Ready {
    read: bool,
    write: bool,
    /// The peer has ended or failed: the socket is to be read to its end.
    ended: bool,
    /// It has ended well: nothing comes after what is there.
    last: bool,
    /// It has failed, which reading does not tell once it has ended.
    failed: bool,
    /// The system may hold small pieces back (Nagle, RFC 896). That costs
    /// nothing before the second one: nobody who says one thing needs the call.
    delays: bool,
}

impl Ready {
    fn note(&mut self, event: &Event) {
        let closed = event.is_read_closed() || event.is_error();
        self.read |= event.is_readable() || closed;
        self.write |= event.is_writable() || event.is_write_closed();
        self.ended |= closed;
        self.last |= event.is_read_closed() && !event.is_error();
        self.failed |= event.is_error();
    }
}

/// Bytes that one side gave and the other did not take yet.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    sent: usize,
    /// So many of the first are a header of ours, which counts for nobody.
    header: usize,
}

impl Kept {
    fn new(bytes: Vec<u8>) -> Box<Kept> {
        Box::new(Kept { bytes, sent: 0, header: 0 })
    }
}

/// A pipe in use, and how many bytes are in it.
#[derive(Debug)]
struct Spliced {
    pipe: Counted,
    held: usize,
}

/// A pipe, counted among those of the process.
#[derive(Debug)]
struct Counted {
    pipe: Pipe,
    count: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all links of a loop share.
pub struct Tools {
    buffer: Vec<u8>,
    pipes: Vec<Counted>,
    /// Pipes of all loops, and how many these may be.
    count: Arc<AtomicUsize>,
    pipes_max: usize,
    splice: bool,
}

impl Tools {
    /// `splice`: long streams may pass through the system alone, where it can;
    /// otherwise everything is copied. `count`: the pipes of all loops.
    pub fn new(splice: bool, count: Arc<AtomicUsize>) -> Tools {
        Tools { buffer: vec![0; BUFFER_BYTES], pipes: Vec::new(), count, pipes_max: 0, splice }
    }

    /// How many pipes all loops may have, in use and kept.
    pub fn allow_pipes(&mut self, most: usize) {
        self.pipes_max = most;
        self.drop_pipes();
    }

    /// Closes pipes that nobody uses: their descriptors are needed.
    pub fn drop_pipes(&mut self) {
        self.pipes.clear();
    }

    fn pipe(&mut self) -> Option<Box<Spliced>> {
        let pipe = self.pipes.pop().or_else(|| self.new_pipe())?;
        Some(Box::new(Spliced { pipe, held: 0 }))
    }

    fn new_pipe(&self) -> Option<Counted> {
        let count = self.count.clone();
        if count.fetch_add(1, Ordering::Relaxed) >= self.pipes_max {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        match Pipe::new() {
            Ok(pipe) => Some(Counted { pipe, count }),
            Err(_) => {
                count.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Takes an empty pipe back.
    fn give_back(&mut self, spliced: Option<Box<Spliced>>) {
        if let Some(spliced) = spliced.filter(|spliced| spliced.held == 0 && self.pipes.len() < PIPES_MAX) {
            self.pipes.push(spliced.pipe);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Allocated when the receiver is slow, and only then.
    kept: Option<Box<Kept>>,
    /// Lent while much is to be moved, and only then.
    spliced: Option<Box<Spliced>>,
    /// Much is to be moved, as far as one can tell.
    bulk: bool,
    moved: u64,
    /// The sender has ended.
    ended: bool,
    /// The receiver was told so, or cannot be told anything.
    over: bool,
}

impl Flow {
    /// So many bytes were read into the buffer. A short read: nothing is left,
    /// and if the end was there before, this was all.
    fn was_read(&mut self, count: usize, tools: &Tools, source: &mut Ready) {
        if SHORT_READ_DRAINS && count < tools.buffer.len() {
            self.ended = source.last;
            source.read = source.ended;
        }
    }
}

enum Step {
    /// It waits for a socket, or is over.
    Blocked,
    /// It could go on, but others want their turn.
    Again,
    /// The sender reset the connection.
    SourceFailed,
    /// The receiver takes no more.
    SinkFailed,
}

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
    /// What each provider receives first.
    header: Option<Box<Header>>,
}

const UNKNOWN: Ready = Ready { read: true, write: true, ended: false, last: false, failed: false, delays: false };

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
        self.client_ready.note(event);
        !self.client_ready.failed
    }

    /// The provider's socket became ready.
    pub fn provider_event(&mut self, event: &Event) {
        self.provider_ready.note(event);
    }

    /// Makes the system find out when the provider's host is gone. (A client's
    /// socket has it from the one it came to.)
    pub fn keepalive(&self) {
        if let Some(provider) = &self.provider {
            socket::keepalive(provider);
        }
    }

    /// Bytes to the client and from it, so far.
    pub fn moved(&self) -> (u64, u64) {
        (self.down.moved, self.up.moved)
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

/// What the receiver is told when the sender has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The same.
    Fin,
    /// Nothing: it is about to be closed, or reset, which must not look like
    /// a good end.
    Close,
}

/// `other`: the opposite direction.
fn ending_after(reset: Option<Outcome>, other: &Flow) -> Ending {
    if reset.is_some() || other.over {
        Ending::Close
    } else {
        Ending::Fin
    }
}

/// Moves one direction on.
fn pump(
    source: &mut TcpStream,
    source_ready: &mut Ready,
    sink: &mut TcpStream,
    sink_ready: &mut Ready,
    flow: &mut Flow,
    tools: &mut Tools,
    ending: Ending,
) -> Step {
    let mut turns = 0;
    loop {
        if let Some(spliced) = flow.spliced.as_mut().filter(|spliced| spliced.held > 0) {
            if !sink_ready.write {
                return Step::Blocked;
            }
            let held = spliced.held;
            match spliced.pipe.pipe.drain(sink, held) {
                Ok(count) => {
                    sink_ready.write = count > 0;
                    spliced.held -= count;
                    flow.moved += count as u64;
                    if count == held && held < SPLICE_END {
                        flow.bulk = false;
                        tools.give_back(flow.spliced.take());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sink_ready.write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::SinkFailed,
            }
            continue;
        }
        // A header waits for the client's first bytes if they are there already.
        let waits = |kept: &Kept| kept.only_header() && source_ready.read && !flow.ended;
        if let Some(kept) = flow.kept.as_ref().filter(|kept| !waits(kept)) {
            if !sink_ready.write {
                return Step::Blocked;
            }
            match send_at_once(sink, sink_ready, &kept.bytes[kept.sent..], flow.moved) {
                Ok(0) => sink_ready.write = false,
                Ok(count) => flow.kept_sent(count),
                Err(()) => return Step::SinkFailed,
            }
            continue;
        }
        if flow.over {
            return if source_ready.failed { Step::SourceFailed } else { Step::Blocked };
        }
        if flow.ended {
            flow.over = true;
            if ending == Ending::Fin {
                // A failure shows itself in the other direction.
                let _ = sink.shutdown(Shutdown::Write);
            }
            return Step::Blocked;
        }
        if !source_ready.read {
            return Step::Blocked;
        }
        if turns == TURNS {
            return Step::Again;
        }
        turns += 1;
        if flow.bulk && flow.spliced.is_none() {
            flow.spliced = tools.pipe();
            flow.bulk = flow.spliced.is_some();
        }
        let buffer = &mut tools.buffer;
        let taken = match &mut flow.spliced {
            Some(spliced) => spliced.pipe.pipe.fill(source).inspect(|count| spliced.held = *count),
            None => source.read(buffer),
        };
        let count = match taken {
            Ok(0) => {
                flow.ended = true;
                tools.give_back(flow.spliced.take());
                continue;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                source_ready.read = false;
                tools.give_back(flow.spliced.take());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if flow.spliced.is_some() && splice_refused(error.kind()) => {
                (flow.spliced, flow.bulk) = (None, false);
                tools.splice = false;
                continue;
            }
            Err(_) => return Step::SourceFailed,
        };
        if flow.spliced.is_some() {
            continue;
        }
        flow.was_read(count, tools, source_ready);
        let buffer = &tools.buffer;
        if let Some(kept) = &mut flow.kept {
            kept.bytes.extend_from_slice(&buffer[..count]);
            continue;
        }
        let sent = if sink_ready.write { send_at_once(sink, sink_ready, &buffer[..count], flow.moved) } else { Ok(0) };
        let taken = sent.unwrap_or(0);
        flow.moved += taken as u64;
        if taken < count {
            sink_ready.write &= taken > 0;
            flow.kept = Some(Kept::new(buffer[taken..count].to_vec()));
        }
        if sent.is_err() {
            return Step::SinkFailed;
        }
        flow.bulk = tools.splice && count >= SPLICE_BEGIN && flow.moved >= SPLICE_AFTER;
    }
}

/// Sends what the system takes, as soon as it can.
fn send_at_once(sink: &TcpStream, ready: &mut Ready, bytes: &[u8], moved: u64) -> Result<usize, ()> {
    if ready.delays && moved > 0 {
        ready.delays = false;
        let _ = sink.set_nodelay(true);
    }
    send(sink, bytes)
}

/// Whether an error says that this system, or its guard, splices nothing, or not
/// these sockets. The bytes are where they were, and can be copied.
fn splice_refused(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

/// Sends what the system takes: nothing, if it would block.
fn send(mut sink: &TcpStream, bytes: &[u8]) -> Result<usize, ()> {
    loop {
        return match sink.write(bytes) {
            Ok(count) => Ok(count),
            // Some systems say so of a connection that does not stand yet.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(()),
        };
    }
}
