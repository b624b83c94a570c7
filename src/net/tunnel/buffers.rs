//! What all tunnels of a loop share: the buffer they copy through, and pipes.
//!
//! Owns the bound on pipes and the empty ones that are kept. A pipe is lent to
//! a direction while much is to be moved.

use crate::net::shared_counter::{Permit, SharedCounter};
use crate::os::splice::Pipe;

/// Bytes read at once, into one buffer for all tunnels of a loop.
const BUFFER_BYTES: usize = 64 * 1024;
/// Empty pipes that a loop keeps.
const IDLE_PIPES_MAX: usize = 64;

/// A pipe, counted among those of the process.
#[derive(Debug)]
struct CountedPipe {
    pipe: Pipe,
    _permit: Permit,
}

/// A pipe in use, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct LentPipe {
    pipe: CountedPipe,
    pub(super) buffered: usize,
}

impl LentPipe {
    pub(super) fn pipe(&self) -> &Pipe {
        &self.pipe.pipe
    }
}

/// The copy buffer and the pipes of a loop.
pub struct RelayBuffers {
    pub(super) read_buffer: Vec<u8>,
    idle_pipes: Vec<CountedPipe>,
    /// Pipes of all loops, and how many these may be.
    pipe_count: SharedCounter,
    pipes_max: usize,
    /// Long streams may be spliced.
    pub(super) splice: bool,
}

impl RelayBuffers {
    /// `splice`: long streams may pass through the system alone, where it can;
    /// otherwise everything is copied. `pipe_count`: the pipes of all loops.
    pub fn new(splice: bool, pipe_count: SharedCounter) -> RelayBuffers {
        RelayBuffers {
            read_buffer: vec![0; BUFFER_BYTES],
            idle_pipes: Vec::new(),
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

    /// Closes the pipes that are not in use: their descriptors are needed.
    pub fn close_idle_pipes(&mut self) {
        self.idle_pipes.clear();
    }

    /// An empty pipe, if there may be one more.
    pub(super) fn lend_pipe(&mut self) -> Option<LentPipe> {
        let pipe = self.idle_pipes.pop().or_else(|| self.new_pipe())?;
        Some(LentPipe { pipe, buffered: 0 })
    }

    fn new_pipe(&self) -> Option<CountedPipe> {
        let permit = self.pipe_count.try_acquire(self.pipes_max)?;
        Some(CountedPipe { pipe: Pipe::new().ok()?, _permit: permit })
    }

    /// Takes a pipe back, and keeps it if it is empty.
    pub(super) fn return_pipe(&mut self, lent: LentPipe) {
        if lent.buffered == 0 && self.idle_pipes.len() < IDLE_PIPES_MAX {
            self.idle_pipes.push(lent.pipe);
        }
    }
}
