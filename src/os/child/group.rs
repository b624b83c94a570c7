//! Process groups of Unix.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The command will have a process group of its own.
pub fn separate(command: &mut Command) {
    command.process_group(0);
}

/// Ends a command that was started [`separate`], with all that it started.
pub fn end(child: &mut Child) {
    // A process id fits: it came from the system as this type.
    let group = -(child.id() as libc::pid_t);
    // SAFETY: a plain call; the child is not waited for yet or was just now, so
    // its group is its own or gone.
    unsafe { libc::kill(group, libc::SIGKILL) };
    let _ = child.wait();
}
