//! A system without process groups: the child alone. A thread reads its output.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command};
use std::sync::mpsc::{sync_channel, Receiver, TryRecvError};
use std::thread;

/// Nothing to prepare.
pub fn separate(_: &mut Command) {}

/// Kills a command.
pub fn kill(child: &mut Child) {
    let _ = child.kill();
}

/// Without a handle there is no way to a child: it ends by itself.
pub fn kill_id(_: u32) {}

/// A command's output, in the pieces that a thread read.
pub struct Output {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl Output {
    /// The output of a child.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn of(mut stdout: ChildStdout) -> io::Result<Output> {
        let (sender, pieces) = sync_channel(16);
        thread::Builder::new().name("output".into()).spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Output { pieces, piece: Vec::new() })
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = match self.pieces.try_recv() {
                Ok(piece) => piece,
                Err(TryRecvError::Empty) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryRecvError::Disconnected) => return Ok(0),
            };
        }
        let count = self.piece.as_slice().read(buffer)?;
        self.piece.drain(..count);
        Ok(count)
    }
}
