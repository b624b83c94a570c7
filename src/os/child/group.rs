//! Process groups of Unix.

use mio::unix::pipe;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command};

/// The command will have a process group of its own.
pub fn separate(command: &mut Command) {
    command.process_group(0);
}

/// Kills a command that was started [`separate`], with all that it started.
pub fn kill(child: &mut Child) {
    kill_id(child.id());
}

/// Kills the group of a child that is not waited for yet, or was just now.
pub fn kill_id(id: u32) {
    // A process id fits: it came from the system as this type.
    let group = -(id as libc::pid_t);
    // SAFETY: a plain call; the group is that of a child, or gone.
    unsafe { libc::kill(group, libc::SIGKILL) };
}

/// The end of a command's output that this process reads. Only this end does not block.
pub struct Output(pipe::Receiver);

impl Output {
    /// The output of a child.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn of(stdout: ChildStdout) -> io::Result<Output> {
        let receiver = pipe::Receiver::from(stdout);
        receiver.set_nonblocking(true)?;
        Ok(Output(receiver))
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
