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

/// Output that is read of a command, in bytes.
const OUTPUT_MAX: u64 = 4096;

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

/// Runs a command to its end: what it printed, or why it failed.
///
/// # Errors
/// That it cannot be started, ended badly, or took too long, in words.
pub fn run(command: &str, timeout: Duration) -> Result<String, String> {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let mut prepared = Command::new(shell);
    prepared
        .args([option, command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    child::separate(&mut prepared);
    let mut child = prepared.spawn().map_err(|error| error.to_string())?;
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < timeout => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            _ => break None,
        }
    };
    // What it left behind would hold its output open.
    child::end(&mut child);
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(OUTPUT_MAX).read_to_end(&mut output);
    }
    match status {
        Some(status) if status.success() => Ok(String::from_utf8_lossy(&output).into_owned()),
        Some(status) => Err(format!("the command failed ({status})")),
        None => Err(format!("the command took longer than {}", Span::from(timeout))),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_command_says_what_it_prints_or_fails() {
        assert_eq!(run("echo 0.5", LONG).as_deref(), Ok("0.5\n"));
        assert_eq!(
            run("echo 0.5; exit 3", LONG),
            Err("the command failed (exit status: 3)".into())
        );
        assert!(run("no-such-command-here", LONG).is_err());
    }

    #[test]
    fn neither_a_slow_command_nor_what_it_started_holds_anybody_up() {
        let start = Instant::now();
        assert_eq!(
            run("sleep 100", Duration::from_millis(20)),
            Err("the command took longer than 20ms".into())
        );
        assert_eq!(run("sleep 100 & echo here", LONG).as_deref(), Ok("here\n"));
        assert!(run("yes", Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < LONG);
    }
}
