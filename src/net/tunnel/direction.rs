//! One direction of a tunnel: from a source to a sink, copied or spliced.
//!
//! Owns the bytes on their way, the pipes they may take and what is known of a
//! socket without asking it. Knows neither client nor provider.

use crate::net::shared_counter::{Permit, SharedCounter};
use crate::os::socket::{set_oob_inline, SHORT_READ_DRAINS};
use crate::os::splice::Pipe;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::Shutdown;

/// Bytes read at once, into one buffer for all tunnels of a loop.
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
const READS_MAX: u32 = 16;
/// What is wanted of a socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const ALL_INTERESTS: Interest =
    Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// What is wanted of a socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const ALL_INTERESTS: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Events of a source that may tell nothing new before no more are wanted.
const REDUNDANT_EVENTS_MAX: u8 = 4;

/// What is known of a socket without asking it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) read: bool,
    pub(super) write: bool,
    /// The peer has ended or failed: the socket is to be read to its end.
    pub(super) ended: bool,
    /// It has ended well: nothing comes after what is there.
    pub(super) eof_known: bool,
    /// It has failed, which reading does not tell once it has ended.
    pub(super) failed: bool,
    /// There is, or was, urgent data: a read stops there, though more may follow.
    pub(super) urgent: bool,
    /// The system may hold small pieces back (Nagle, RFC 896). That costs
    /// nothing before the second one: nobody who says one thing needs the call.
    pub(super) nagle_on: bool,
    /// Events in a row that told what was known: there is more to read, while
    /// the sink is slower than the source.
    pub(super) redundant_events: u8,
    /// No more of these are wanted, until everything was read.
    pub(super) read_interest_off: bool,
}

impl Readiness {
    pub(super) fn update(&mut self, event: &Event, socket: &TcpStream) {
        if event.is_priority() && !self.urgent {
            self.urgent = true;
            set_oob_inline(socket);
        }
        let closed = event.is_read_closed() || event.is_error();
        self.redundant_events = if self.read && event.is_readable() {
            self.redundant_events.saturating_add(1)
        } else {
            0
        };
        self.read |= event.is_readable() || closed;
        self.write |= event.is_writable() || event.is_write_closed();
        self.ended |= closed;
        self.eof_known |= event.is_read_closed() && !event.is_error();
        self.failed |= event.is_error();
    }

    /// Asks for no more events that tell nothing new, and for all again as soon as
    /// they would: each of them is a wake-up, and a source that is quicker than
    /// its sink would bring one for every packet.
    pub(super) fn update_interest(
        &mut self,
        socket: &mut TcpStream,
        registry: &Registry,
        token: Token,
    ) {
        let turn_off =
            self.read && (self.read_interest_off || self.redundant_events >= REDUNDANT_EVENTS_MAX);
        if turn_off == self.read_interest_off {
            return;
        }
        let interest = if turn_off { Interest::WRITABLE } else { ALL_INTERESTS };
        if registry.reregister(socket, token, interest).is_ok() {
            (self.read_interest_off, self.redundant_events) = (turn_off, 0);
        }
    }
}

/// Bytes that one side gave and the other did not take yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    /// So many of the first are a header of ours, which is not counted.
    pub(super) header: usize,
}

impl Pending {
    pub(super) fn new(bytes: Vec<u8>) -> Box<Pending> {
        Box::new(Pending { bytes, sent: 0, header: 0 })
    }
}

/// A pipe in use, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct PipeInUse {
    pipe: CountedPipe,
    buffered: usize,
}

/// A pipe, counted among those of the process.
#[derive(Debug)]
struct CountedPipe {
    pipe: Pipe,
    _permit: Permit,
}

/// What all tunnels of a loop share.
pub struct RelayBuffers {
    pub(super) read_buffer: Vec<u8>,
    pipes: Vec<CountedPipe>,
    /// Pipes of all loops, and how many these may be.
    pipe_count: SharedCounter,
    pipes_max: usize,
    splice: bool,
}

impl RelayBuffers {
    /// `splice`: long streams may pass through the system alone, where it can;
    /// otherwise everything is copied. `pipe_count`: the pipes of all loops.
    pub fn new(splice: bool, pipe_count: SharedCounter) -> RelayBuffers {
        RelayBuffers {
            read_buffer: vec![0; BUFFER_BYTES],
            pipes: Vec::new(),
            pipe_count,
            pipes_max: 0,
            splice,
        }
    }

    /// How many pipes all loops may have, in use and kept.
    pub fn set_pipes_max(&mut self, most: usize) {
        self.pipes_max = most;
        self.close_idle_pipes();
    }

    /// Closes pipes that nobody uses: their descriptors are needed.
    pub fn close_idle_pipes(&mut self) {
        self.pipes.clear();
    }

    fn pipe(&mut self) -> Option<Box<PipeInUse>> {
        let pipe = self.pipes.pop().or_else(|| self.new_pipe())?;
        Some(Box::new(PipeInUse { pipe, buffered: 0 }))
    }

    fn new_pipe(&self) -> Option<CountedPipe> {
        let permit = self.pipe_count.try_acquire(self.pipes_max)?;
        Some(CountedPipe { pipe: Pipe::new().ok()?, _permit: permit })
    }

    /// Takes an empty pipe back.
    fn return_pipe(&mut self, pipe_in_use: Option<Box<PipeInUse>>) {
        if let Some(pipe_in_use) = pipe_in_use
            .filter(|pipe_in_use| pipe_in_use.buffered == 0 && self.pipes.len() < PIPES_MAX)
        {
            self.pipes.push(pipe_in_use.pipe);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Allocated when the receiver is slow, and only then.
    pub(super) pending: Option<Box<Pending>>,
    /// Lent while much is to be moved, and only then.
    pub(super) pipe_in_use: Option<Box<PipeInUse>>,
    /// Much is to be moved, as far as one can tell.
    pub(super) bulk: bool,
    pub(super) moved: u64,
    /// The sender has ended.
    pub(super) ended: bool,
    /// The receiver was told so, or cannot be told anything.
    pub(super) closed: bool,
}

impl Direction {
    /// So many bytes were read into the buffer. A short read: nothing is left,
    /// and if the end was there before, this was all.
    pub(super) fn on_read(&mut self, count: usize, buffers: &RelayBuffers, source: &mut Readiness) {
        if SHORT_READ_DRAINS && !source.urgent && count < buffers.read_buffer.len() {
            self.ended = source.eof_known;
            source.read = source.ended;
        }
    }
}

pub(super) enum Step {
    /// It waits for a socket, or is over.
    Blocked,
    /// It could go on, but others want their turn.
    Unfinished,
    /// The sender reset the connection.
    SourceFailed,
    /// The receiver takes no more.
    SinkFailed,
}

pub(super) const UNKNOWN: Readiness = Readiness {
    read: true,
    write: true,
    ended: false,
    eof_known: false,
    failed: false,
    urgent: false,
    nagle_on: false,
    redundant_events: 0,
    read_interest_off: false,
};

/// What the receiver is told when the sender has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AtEof {
    /// The same.
    Fin,
    /// Nothing: it is about to be closed, or reset, which must not look like
    /// a good end.
    Close,
}

/// Moves one direction on.
pub(super) fn transfer(
    source: &mut TcpStream,
    source_readiness: &mut Readiness,
    sink: &mut TcpStream,
    sink_readiness: &mut Readiness,
    direction: &mut Direction,
    buffers: &mut RelayBuffers,
    at_eof: AtEof,
) -> Step {
    let mut reads = 0;
    loop {
        if let Some(pipe_in_use) =
            direction.pipe_in_use.as_mut().filter(|pipe_in_use| pipe_in_use.buffered > 0)
        {
            if !sink_readiness.write {
                return Step::Blocked;
            }
            let buffered = pipe_in_use.buffered;
            match pipe_in_use.pipe.pipe.drain(sink, buffered) {
                Ok(count) => {
                    sink_readiness.write = count > 0;
                    pipe_in_use.buffered -= count;
                    direction.moved += count as u64;
                    if count == buffered && buffered < SPLICE_END {
                        direction.bulk = false;
                        buffers.return_pipe(direction.pipe_in_use.take());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sink_readiness.write = false
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::SinkFailed,
            }
            continue;
        }
        // A header waits for the client's first bytes if they are there already.
        let waits =
            |pending: &Pending| pending.only_header() && source_readiness.read && !direction.ended;
        if let Some(pending) = direction.pending.as_ref().filter(|pending| !waits(pending)) {
            if !sink_readiness.write {
                return Step::Blocked;
            }
            match send_at_once(
                sink,
                sink_readiness,
                &pending.bytes[pending.sent..],
                direction.moved,
            ) {
                Ok(0) => sink_readiness.write = false,
                Ok(count) => direction.pending_sent(count),
                Err(()) => return Step::SinkFailed,
            }
            continue;
        }
        if direction.closed {
            return if source_readiness.failed { Step::SourceFailed } else { Step::Blocked };
        }
        if direction.ended {
            direction.closed = true;
            if at_eof == AtEof::Fin {
                // A failure shows itself in the other direction.
                let _ = sink.shutdown(Shutdown::Write);
            }
            return Step::Blocked;
        }
        if !source_readiness.read {
            return Step::Blocked;
        }
        if reads == READS_MAX {
            return Step::Unfinished;
        }
        reads += 1;
        if direction.bulk && direction.pipe_in_use.is_none() {
            direction.pipe_in_use = buffers.pipe();
            direction.bulk = direction.pipe_in_use.is_some();
        }
        let buffer = &mut buffers.read_buffer;
        let taken = match &mut direction.pipe_in_use {
            Some(pipe_in_use) => {
                pipe_in_use.pipe.pipe.fill(source).inspect(|count| pipe_in_use.buffered = *count)
            }
            None => source.read(buffer),
        };
        let count = match taken {
            Ok(0) => {
                direction.ended = true;
                buffers.return_pipe(direction.pipe_in_use.take());
                continue;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                source_readiness.read = false;
                buffers.return_pipe(direction.pipe_in_use.take());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if direction.pipe_in_use.is_some() && splice_refused(error.kind()) => {
                (direction.pipe_in_use, direction.bulk) = (None, false);
                buffers.splice = false;
                continue;
            }
            Err(_) => return Step::SourceFailed,
        };
        if direction.pipe_in_use.is_some() {
            continue;
        }
        direction.on_read(count, buffers, source_readiness);
        let buffer = &buffers.read_buffer;
        if let Some(pending) = &mut direction.pending {
            pending.bytes.extend_from_slice(&buffer[..count]);
            continue;
        }
        let sent = if sink_readiness.write {
            send_at_once(sink, sink_readiness, &buffer[..count], direction.moved)
        } else {
            Ok(0)
        };
        let taken = sent.unwrap_or(0);
        direction.moved += taken as u64;
        if taken < count {
            sink_readiness.write &= taken > 0;
            direction.pending = Some(Pending::new(buffer[taken..count].to_vec()));
        }
        if sent.is_err() {
            return Step::SinkFailed;
        }
        direction.bulk = buffers.splice && count >= SPLICE_BEGIN && direction.moved >= SPLICE_AFTER;
    }
}

/// Sends what the system takes, as soon as it can.
fn send_at_once(
    sink: &TcpStream,
    readiness: &mut Readiness,
    bytes: &[u8],
    moved: u64,
) -> Result<usize, ()> {
    if readiness.nagle_on && moved > 0 {
        readiness.nagle_on = false;
        let _ = sink.set_nodelay(true);
    }
    send(sink, bytes)
}

/// Whether an error says that this system, or its guard, splices nothing, or not
/// these sockets. The bytes are where they were, and can be copied.
fn splice_refused(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// Sends what the system takes: nothing, if it would block.
pub(super) fn send(mut sink: &TcpStream, bytes: &[u8]) -> Result<usize, ()> {
    loop {
        return match sink.write(bytes) {
            Ok(count) => Ok(count),
            // Some systems say so of a connection that does not stand yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(()),
        };
    }
}
