//! One direction of a link: from a source to a sink, copied or spliced.
//!
//! Owns the bytes on their way, the pipes they may take and what is known of a
//! socket without asking it. Knows neither client nor provider.

use crate::net::tally::{Counted, Tally};
use crate::os::socket::{urgent_in_line, SHORT_READ_DRAINS};
use crate::os::splice::Pipe;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::Shutdown;

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
/// What is wanted of a socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// What is wanted of a socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const EVERYTHING: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Events of a source that may tell nothing new before no more are wanted.
const VAIN_MAX: u8 = 4;

/// What is known of a socket without asking it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
    /// The peer has ended or failed: the socket is to be read to its end.
    pub(super) ended: bool,
    /// It has ended well: nothing comes after what is there.
    pub(super) last: bool,
    /// It has failed, which reading does not tell once it has ended.
    pub(super) failed: bool,
    /// There is, or was, urgent data: a read stops there, though more may follow.
    pub(super) urgent: bool,
    /// The system may hold small pieces back (Nagle, RFC 896). That costs
    /// nothing before the second one: nobody who says one thing needs the call.
    pub(super) delays: bool,
    /// Events in a row that told what was known: there is more to read, while
    /// the sink is slower than the source.
    pub(super) vain: u8,
    /// No more of these are wanted, until everything was read.
    pub(super) muted: bool,
}

impl Ready {
    pub(super) fn note(&mut self, event: &Event, socket: &TcpStream) {
        if event.is_priority() && !self.urgent {
            self.urgent = true;
            urgent_in_line(socket);
        }
        let closed = event.is_read_closed() || event.is_error();
        self.vain = if self.read && event.is_readable() { self.vain.saturating_add(1) } else { 0 };
        self.read |= event.is_readable() || closed;
        self.write |= event.is_writable() || event.is_write_closed();
        self.ended |= closed;
        self.last |= event.is_read_closed() && !event.is_error();
        self.failed |= event.is_error();
    }

    /// Asks for no more events that tell nothing new, and for all again as soon as
    /// they would: each of them is a wake-up, and a source that is quicker than
    /// its sink would bring one for every packet.
    pub(super) fn attend(&mut self, socket: &mut TcpStream, registry: &Registry, token: Token) {
        let mute = self.read && (self.muted || self.vain >= VAIN_MAX);
        if mute == self.muted {
            return;
        }
        let interest = if mute { Interest::WRITABLE } else { EVERYTHING };
        if registry.reregister(socket, token, interest).is_ok() {
            (self.muted, self.vain) = (mute, 0);
        }
    }
}

/// Bytes that one side gave and the other did not take yet.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    /// So many of the first are a header of ours, which counts for nobody.
    pub(super) header: usize,
}

impl Kept {
    pub(super) fn new(bytes: Vec<u8>) -> Box<Kept> {
        Box::new(Kept { bytes, sent: 0, header: 0 })
    }
}

/// A pipe in use, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Spliced {
    pipe: CountedPipe,
    held: usize,
}

/// A pipe, counted among those of the process.
#[derive(Debug)]
struct CountedPipe {
    pipe: Pipe,
    _counted: Counted,
}

/// What all links of a loop share.
pub struct Tools {
    pub(super) buffer: Vec<u8>,
    pipes: Vec<CountedPipe>,
    /// Pipes of all loops, and how many these may be.
    count: Tally,
    pipes_max: usize,
    splice: bool,
}

impl Tools {
    /// `splice`: long streams may pass through the system alone, where it can;
    /// otherwise everything is copied. `count`: the pipes of all loops.
    pub fn new(splice: bool, count: Tally) -> Tools {
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

    fn new_pipe(&self) -> Option<CountedPipe> {
        let counted = self.count.enter(self.pipes_max)?;
        Some(CountedPipe { pipe: Pipe::new().ok()?, _counted: counted })
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
pub(super) struct Flow {
    /// Allocated when the receiver is slow, and only then.
    pub(super) kept: Option<Box<Kept>>,
    /// Lent while much is to be moved, and only then.
    pub(super) spliced: Option<Box<Spliced>>,
    /// Much is to be moved, as far as one can tell.
    pub(super) bulk: bool,
    pub(super) moved: u64,
    /// The sender has ended.
    pub(super) ended: bool,
    /// The receiver was told so, or cannot be told anything.
    pub(super) over: bool,
}

impl Flow {
    /// So many bytes were read into the buffer. A short read: nothing is left,
    /// and if the end was there before, this was all.
    pub(super) fn was_read(&mut self, count: usize, tools: &Tools, source: &mut Ready) {
        if SHORT_READ_DRAINS && !source.urgent && count < tools.buffer.len() {
            self.ended = source.last;
            source.read = source.ended;
        }
    }
}

pub(super) enum Step {
    /// It waits for a socket, or is over.
    Blocked,
    /// It could go on, but others want their turn.
    Again,
    /// The sender reset the connection.
    SourceFailed,
    /// The receiver takes no more.
    SinkFailed,
}

pub(super) const UNKNOWN: Ready = Ready {
    read: true,
    write: true,
    ended: false,
    last: false,
    failed: false,
    urgent: false,
    delays: false,
    vain: 0,
    muted: false,
};

/// What the receiver is told when the sender has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The same.
    Fin,
    /// Nothing: it is about to be closed, or reset, which must not look like
    /// a good end.
    Close,
}

/// Moves one direction on.
pub(super) fn pump(
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
pub(super) fn send(mut sink: &TcpStream, bytes: &[u8]) -> Result<usize, ()> {
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
