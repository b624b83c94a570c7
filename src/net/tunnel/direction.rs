//! One direction of a tunnel: from a source to a sink, copied or spliced.
//!
//! Owns the bytes on their way and the end of the stream. Knows neither client
//! nor provider.

use super::buffers::{LentPipe, RelayBuffers};
use super::endpoint::{Endpoint, Peer};
use super::pending::Pending;
use std::io;
use std::net::Shutdown;
use std::ops::ControlFlow::{self, Break, Continue};

/// Bytes that a direction copies before it may splice.
const SPLICE_AFTER: u64 = 64 * 1024;
/// A read of so many bytes begins splicing, one of fewer ends it: for small
/// messages two copies are cheaper than two more calls.
const SPLICE_BEGIN: usize = 16 * 1024;
const SPLICE_END: usize = 4 * 1024;
/// Reads of one direction before others get their turn.
const READS_MAX: u32 = 16;

/// Where bytes come from and where they go.
pub(super) struct Ends<'a> {
    pub(super) source: &'a mut Endpoint,
    pub(super) sink: &'a mut Endpoint,
}

/// Why a direction moves no more bytes now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// It waits for a socket, or is over.
    Blocked,
    /// It could go on, but others want their turn.
    Unfinished,
    /// The source reset the connection.
    SourceFailed,
    /// The sink takes no more.
    SinkFailed,
}

/// What the sink is told when the source has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AtEof {
    /// The same.
    Fin,
    /// Nothing: it is about to be closed, or reset, which must not look like
    /// a good end.
    Close,
}

/// How far a direction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// The source may send more.
    #[default]
    Open,
    /// The source has ended; what it sent may still be on its way.
    SourceEnded,
    /// The sink was told the end, or cannot be told anything.
    Closed,
}

/// Where bytes are that the source gave and the sink has not taken.
#[derive(Debug)]
enum InTransit {
    /// Here: the sink is slow.
    Pending(Pending),
    /// In a pipe, which is lent while much is to be moved.
    Pipe(LentPipe),
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Allocated when the sink is slow or much is to be moved, and only then.
    in_transit: Option<Box<InTransit>>,
    /// Much is to be moved, as far as one can tell.
    bulk: bool,
    /// Bytes that the sink took.
    pub(super) moved: u64,
    stage: Stage,
}

impl Direction {
    /// Moves bytes until a socket blocks, the stream ends or others want their turn.
    pub(super) fn transfer(
        &mut self,
        mut ends: Ends,
        buffers: &mut RelayBuffers,
        at_eof: AtEof,
    ) -> Pause {
        for _ in 0..READS_MAX {
            if let Break(pause) = self.step(&mut ends, buffers, at_eof) {
                return pause;
            }
        }
        // The last read is still to be written.
        match self.flush(&mut ends, buffers, at_eof) {
            Break(pause) => pause,
            Continue(()) => Pause::Unfinished,
        }
    }

    /// Writes what was read before, then reads once.
    fn step(
        &mut self,
        ends: &mut Ends,
        buffers: &mut RelayBuffers,
        at_eof: AtEof,
    ) -> ControlFlow<Pause> {
        self.flush(ends, buffers, at_eof)?;
        if self.bulk && ends.source.urgent {
            self.stop_splicing(buffers);
        }
        if self.bulk && self.ensure_pipe(buffers) {
            self.fill_pipe(ends.source, buffers)
        } else {
            self.forward(ends, buffers, at_eof)
        }
    }

    /// Writes what was read before. Continues if there is more to read.
    fn flush(
        &mut self,
        ends: &mut Ends,
        buffers: &mut RelayBuffers,
        at_eof: AtEof,
    ) -> ControlFlow<Pause> {
        self.drain_pipe(ends.sink, buffers)?;
        self.write_pending(ends)?;
        match self.stage {
            Stage::Open if ends.source.readable => Continue(()),
            Stage::Open => Break(Pause::Blocked),
            Stage::SourceEnded => Break(self.finish_eof(ends.sink, at_eof)),
            Stage::Closed if ends.source.peer == Peer::Failed => Break(Pause::SourceFailed),
            Stage::Closed => Break(Pause::Blocked),
        }
    }

    /// Empties the pipe into the sink.
    fn drain_pipe(
        &mut self,
        sink: &mut Endpoint,
        buffers: &mut RelayBuffers,
    ) -> ControlFlow<Pause> {
        while let Some(InTransit::Pipe(lent)) = self.in_transit.as_deref_mut() {
            let buffered = lent.buffered;
            if buffered == 0 {
                break;
            }
            if !sink.writable {
                return Break(Pause::Blocked);
            }
            let Ok(count) = sink.put(|socket| lent.pipe().drain(&*socket, buffered)) else {
                return Break(Pause::SinkFailed);
            };
            lent.buffered -= count;
            self.moved += count as u64;
            if count == buffered && buffered < SPLICE_END {
                self.stop_splicing(buffers);
            }
        }
        Continue(())
    }

    /// Writes the bytes that the sink did not take before.
    fn write_pending(&mut self, ends: &mut Ends) -> ControlFlow<Pause> {
        let more_may_come = ends.source.readable && self.stage == Stage::Open;
        while let Some(InTransit::Pending(pending)) = self.in_transit.as_deref_mut() {
            // A header waits for the client's first bytes if they are there already.
            if pending.is_only_header() && more_may_come {
                break;
            }
            if !ends.sink.writable {
                return Break(Pause::Blocked);
            }
            let Ok(count) = ends.sink.write(pending.unsent(), self.moved == 0) else {
                return Break(Pause::SinkFailed);
            };
            self.moved += pending.on_sent(count) as u64;
            if pending.is_sent() {
                self.in_transit = None;
            }
        }
        Continue(())
    }

    /// Everything is written: tells the sink the end.
    fn finish_eof(&mut self, sink: &Endpoint, at_eof: AtEof) -> Pause {
        self.stage = Stage::Closed;
        if at_eof == AtEof::Fin {
            // A failure shows itself in the other direction.
            let _ = sink.socket.shutdown(Shutdown::Write);
        }
        Pause::Blocked
    }

    /// Whether there is a pipe to splice through.
    fn ensure_pipe(&mut self, buffers: &mut RelayBuffers) -> bool {
        if self.in_transit.is_none() {
            self.in_transit = buffers.lend_pipe().map(|lent| Box::new(InTransit::Pipe(lent)));
            self.bulk = self.in_transit.is_some();
        }
        self.bulk
    }

    /// Splices once from the source into the empty pipe.
    fn fill_pipe(
        &mut self,
        source: &mut Endpoint,
        buffers: &mut RelayBuffers,
    ) -> ControlFlow<Pause> {
        let Some(InTransit::Pipe(lent)) = self.in_transit.as_deref_mut() else {
            return Continue(());
        };
        match source.take(|socket| lent.pipe().fill(&*socket)) {
            // The end, or urgent data: a read tells which.
            Ok(Some(0)) => self.stop_splicing(buffers),
            Ok(Some(count)) => lent.buffered = count,
            Ok(None) => self.return_pipe(buffers),
            Err(error) if splice_refused(error.kind()) => {
                buffers.splice = false;
                self.bulk = false;
                self.in_transit = None;
            }
            Err(_) => return Break(Pause::SourceFailed),
        }
        Continue(())
    }

    fn stop_splicing(&mut self, buffers: &mut RelayBuffers) {
        self.bulk = false;
        self.return_pipe(buffers);
    }

    fn return_pipe(&mut self, buffers: &mut RelayBuffers) {
        let lent = self.in_transit.take_if(|it| matches!(**it, InTransit::Pipe(_)));
        if let Some(InTransit::Pipe(lent)) = lent.map(|it| *it) {
            buffers.return_pipe(lent);
        }
    }

    /// The bytes that the sink did not take before.
    #[cfg(test)]
    pub(super) fn pending(&self) -> Option<&Pending> {
        match self.in_transit.as_deref()? {
            InTransit::Pending(pending) => Some(pending),
            InTransit::Pipe(_) => None,
        }
    }

    /// Takes them out.
    pub(super) fn take_pending(&mut self) -> Option<Pending> {
        let pending = self.in_transit.take_if(|it| matches!(**it, InTransit::Pending(_)));
        match *pending? {
            InTransit::Pending(pending) => Some(pending),
            InTransit::Pipe(_) => None,
        }
    }

    /// Reads once and writes at once what the sink takes.
    fn forward(
        &mut self,
        ends: &mut Ends,
        buffers: &mut RelayBuffers,
        at_eof: AtEof,
    ) -> ControlFlow<Pause> {
        let Ok(count) = self.read(ends.source, buffers) else {
            return Break(Pause::SourceFailed);
        };
        let bytes = &buffers.read_buffer[..count];
        if bytes.is_empty() {
            return Continue(());
        }
        if let Some(InTransit::Pending(pending)) = self.in_transit.as_deref_mut() {
            pending.append(bytes);
            return Continue(());
        }
        let are_last = self.stage == Stage::SourceEnded && at_eof == AtEof::Fin;
        let sent = match ends.sink.writable {
            true if are_last => ends.sink.write_last(bytes),
            true => ends.sink.write(bytes, self.moved == 0),
            false => Ok(0),
        };
        self.keep_unsent(bytes, 0, *sent.as_ref().unwrap_or(&0));
        if sent.is_err() {
            return Break(Pause::SinkFailed);
        }
        let long = count >= SPLICE_BEGIN && self.moved >= SPLICE_AFTER;
        self.bulk = long && buffers.splice && !ends.source.urgent;
        Continue(())
    }

    /// Reads once into the read buffer: how many bytes, 0 also where there are none yet.
    ///
    /// # Errors
    /// Returns the OS error.
    pub(super) fn read(
        &mut self,
        source: &mut Endpoint,
        buffers: &mut RelayBuffers,
    ) -> io::Result<usize> {
        let Some(count) = source.read(&mut buffers.read_buffer)? else { return Ok(0) };
        if count == 0 || (count < buffers.read_buffer.len() && source.on_short_read()) {
            self.stage = Stage::SourceEnded;
        }
        Ok(count)
    }

    /// The sink took the first `taken` of these bytes, of which the first
    /// `header` are a header of ours; the others are kept.
    pub(super) fn keep_unsent(&mut self, bytes: &[u8], header: usize, taken: usize) {
        self.moved += taken.saturating_sub(header) as u64;
        if taken < bytes.len() {
            let header = header.saturating_sub(taken);
            let pending = Pending::new(bytes[taken..].to_vec(), header);
            self.in_transit = Some(Box::new(InTransit::Pending(pending)));
        }
    }

    /// Whether the source may send more.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the sink was told the end, or cannot be told anything.
    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// The sink failed: nothing moves any more.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.in_transit = None;
    }

    /// Another sink takes the place of one that took nothing.
    pub(super) fn reopen(&mut self) {
        if self.stage == Stage::Closed {
            self.stage = Stage::SourceEnded;
        }
    }
}

/// Whether an error says that this system, or its guard, splices nothing, or not
/// these sockets. The bytes are where they were, and can be copied.
fn splice_refused(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}
