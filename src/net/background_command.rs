//! The operator's commands, run in the background with a time limit.
//!
//! Owns the child and the thread that waits for it. Not responsible for what the output means.

use super::one_shot::OneShot;
use crate::os::child;
use mio::Waker;
use pegasus_core::base::time::Span;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Output that is kept of a command, in bytes.
const OUTPUT_MAX: usize = 4096;
/// Reads that empty a pipe of the usual size.
const PIPE_READS: usize = 16;

/// A command under way.
#[derive(Debug)]
pub struct BackgroundCommand(OneShot<Result<String, String>>);

impl BackgroundCommand {
    /// Starts `command` with the system's shell; `waker` is woken at its end.
    /// One that takes longer than `timeout` is killed, and has failed.
    pub fn start(command: &str, timeout: Duration, waker: Arc<Waker>) -> BackgroundCommand {
        let command = command.to_string();
        BackgroundCommand(OneShot::spawn("helper", waker, move || run(&command, timeout)))
    }

    /// Takes its output, or why it failed; `None` while it runs.
    pub fn result(&self) -> Option<Result<String, String>> {
        let no_thread = |_| Err("the system had no thread for it".into());
        self.0.take().map(|result| result.unwrap_or_else(no_thread))
    }
}

/// Runs a command to its end; returns what it printed. Output that is too long, or comes
/// from a process that outlives the command, is discarded.
///
/// # Errors
/// Why it could not be started, that it failed, or that it took too long.
pub fn run(command: &str, timeout: Duration) -> Result<String, String> {
    if child::too_many_dying() {
        return Err("too many commands before it cannot be ended".into());
    }
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let mut prepared = Command::new(shell);
    prepared
        .args([option, command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = child::start(&mut prepared).map_err(|error| error.to_string())?;
    let mut stdout = child.stdout.take().and_then(|stdout| child::Output::of(stdout).ok());
    let mut output = Vec::new();
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        // The status first: what it printed before its end is read after it.
        let status = child.try_wait();
        if let Some(stdout) = &mut stdout {
            drain(stdout, &mut output);
        }
        match status {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < timeout => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            _ => break None,
        }
    };
    child::end(child);
    match status {
        Some(status) if status.success() => Ok(String::from_utf8_lossy(&output).into_owned()),
        Some(status) => Err(format!("the command failed ({status})")),
        None => Err(format!("the command took longer than {}", Span::from(timeout))),
    }
}

/// Reads what there is, at most as much as a pipe holds, and keeps the start of it.
fn drain(stdout: &mut impl Read, output: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    for _ in 0..PIPE_READS {
        let Ok(count @ 1..) = stdout.read(&mut buffer) else { return };
        let room = OUTPUT_MAX - output.len();
        output.extend_from_slice(&buffer[..count.min(room)]);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_command_returns_what_it_prints_or_fails() {
        assert_eq!(run("echo 0.5", LONG).as_deref(), Ok("0.5\n"));
        assert_eq!(
            run("echo 0.5; exit 3", LONG),
            Err("the command failed (exit status: 3)".into())
        );
        assert!(run("no-such-command-here", LONG).is_err());
        let long = run("head -c 300000 /dev/zero | tr '\\0' x", LONG);
        assert_eq!(long.map(|text| text.len()), Ok(OUTPUT_MAX));
    }

    #[test]
    fn neither_a_slow_command_nor_what_it_started_delays_the_result() {
        let start = Instant::now();
        assert_eq!(
            run("sleep 100", Duration::from_millis(20)),
            Err("the command took longer than 20ms".into())
        );
        assert_eq!(run("sleep 100 & echo here", LONG).as_deref(), Ok("here\n"));
        // A daemon leaves the group of the command, and keeps its output open.
        assert_eq!(run("setsid sleep 20 & echo here", LONG).as_deref(), Ok("here\n"));
        assert!(run("yes", Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < LONG);
    }
}
