//! An operator's program that runs beside this process and answers lines with lines.
//!
//! Owns the child, the two threads that talk to it (pipes block, and not every
//! system can wait for them together with sockets), and its restarts. What the
//! lines mean is its user's business. Nothing here ever waits for the program.

use super::mailbox::Mailbox;
use crate::os::child;
use mio::Waker;
use pegasus_core::base::backoff::Backoff;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

/// Lines on their way to the program; one that lets more pile up is dead.
const LINES_MAX: usize = 4096;
/// The longest line that is read of it, in bytes.
const LINE_BYTES_MAX: u64 = 1024;
const RETRY: (Span, Span) = (Span::from_millis(100), Span::from_secs(30));
/// A program that lived so long is started anew at once.
const STABLE_AFTER: Span = Span::from_secs(10);

/// What happens to a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PluginEvent {
    /// It was started.
    Started,
    /// It wrote this line.
    Line(String),
    /// It is gone, and will be started again later. Why.
    Gone(&'static str),
}

struct Process {
    child: Child,
    lines: Arc<Mailbox<String>>,
    replies: Arc<Mailbox<String>>,
    started_at: Moment,
}

impl Drop for Process {
    fn drop(&mut self) {
        child::end(&mut self.child);
        // The threads that talk to it end.
        self.lines.close();
        self.replies.close();
    }
}

/// See the file's head.
pub struct Plugin {
    command: String,
    process: Option<Process>,
    retry: Moment,
    backoff: Backoff,
    random: Random,
    waker: Arc<Waker>,
}

impl Plugin {
    /// A program that is started at the first [`poll_event`](Plugin::poll_event); `waker`
    /// is woken when it says something.
    pub fn new(command: &str, waker: Arc<Waker>, seed: u64) -> Plugin {
        Plugin {
            command: command.to_string(),
            process: None,
            retry: Moment::ZERO,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            random: Random::new(seed),
            waker,
        }
    }

    /// What it is started with.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Says a line to it (without its end). Answers whether it may hear it.
    pub fn send_line(&mut self, line: String) -> bool {
        // If it is full or over, the next `poll_event` finds out which, and ends it.
        self.process.as_ref().is_some_and(|process| process.lines.try_put(line))
    }

    /// When [`poll_event`](Plugin::poll_event) should be called, if nothing arrives before.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.process.is_none().then_some(self.retry)
    }

    /// The next event of the program; starts it when it is time.
    pub fn poll_event(&mut self, now: Moment) -> Option<PluginEvent> {
        let Some(process) = &mut self.process else {
            if now < self.retry {
                return None;
            }
            return Some(match start(&self.command, &self.waker, now) {
                Some(process) => {
                    self.process = Some(process);
                    PluginEvent::Started
                }
                None => self.schedule_restart(now, "it cannot be started"),
            });
        };
        match process.replies.try_take() {
            Some(line) => Some(PluginEvent::Line(line)),
            None => process.replies.is_over().then(|| self.stop(now, "it ended")),
        }
    }

    /// Ends it, because of `why`; it is started again later.
    pub fn stop(&mut self, now: Moment, why: &'static str) -> PluginEvent {
        if let Some(process) = self.process.take() {
            if now.since(process.started_at) >= STABLE_AFTER {
                self.backoff.reset();
            }
        }
        self.schedule_restart(now, why)
    }

    fn schedule_restart(&mut self, now: Moment, why: &'static str) -> PluginEvent {
        self.retry = now + self.backoff.delay(&mut self.random);
        PluginEvent::Gone(why)
    }
}

fn start(command: &str, waker: &Arc<Waker>, now: Moment) -> Option<Process> {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let line = if cfg!(windows) { command.to_string() } else { format!("exec {command}") };
    let mut prepared = Command::new(shell);
    prepared
        .args([option, &line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    child::separate(&mut prepared);
    let mut child = prepared.spawn().ok()?;
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let process = Process {
        child,
        lines: Arc::new(Mailbox::new(LINES_MAX)),
        replies: Arc::new(Mailbox::new(LINES_MAX)),
        started_at: now,
    };
    let (outgoing, incoming) = (process.lines.clone(), process.replies.clone());
    let writer = move || {
        while let Some(mut line) = outgoing.take() {
            // What has gathered goes in one piece.
            line.push('\n');
            while let Some(more) = outgoing.try_take() {
                line.push_str(&more);
                line.push('\n');
            }
            if stdin.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
        outgoing.close();
    };
    let waker = waker.clone();
    let reader = move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let text = match read {
                Ok(1..) if line.ends_with(b"\n") => {
                    String::from_utf8_lossy(&line).trim().to_string()
                }
                // The end, or a line beyond measure.
                _ => break,
            };
            if !incoming.put(text) {
                break;
            }
            let _ = waker.wake();
        }
        incoming.close();
        let _ = waker.wake();
    };
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(work).is_ok()
    };
    let both = spawn("plugin-writer", Box::new(writer)) && spawn("plugin-reader", Box::new(reader));
    both.then_some(process)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Waits until something happens.
    fn next_event(plugin: &mut Plugin, poll: &mut Poll, now: Moment) -> PluginEvent {
        let (mut events, start) = (Events::with_capacity(4), Instant::now());
        loop {
            if let Some(event) = plugin.poll_event(now) {
                return event;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is heard");
            poll.poll(&mut events, Some(PATIENCE)).unwrap();
        }
    }

    fn plugin(command: &str) -> (Plugin, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        (Plugin::new(command, waker, 1), poll)
    }

    #[test]
    fn it_answers_lines_with_lines_and_is_started_again_when_it_dies() {
        let (mut plugin, mut poll) = plugin("sh -c 'read a; echo \"[$a]\"; read b'");
        let now = Moment::ZERO;
        assert_eq!(next_event(&mut plugin, &mut poll, now), PluginEvent::Started);
        assert!(plugin.send_line("one two".into()));
        assert_eq!(next_event(&mut plugin, &mut poll, now), PluginEvent::Line("[one two]".into()));
        plugin.send_line(String::new());
        assert_eq!(next_event(&mut plugin, &mut poll, now), PluginEvent::Gone("it ended"));
        assert_eq!((plugin.poll_event(now), plugin.send_line(String::new())), (None, false));
        let later = plugin.next_timeout().unwrap();
        assert_eq!(next_event(&mut plugin, &mut poll, later), PluginEvent::Started);
    }

    #[test]
    fn one_that_does_not_exist_or_talks_without_end_is_gone() {
        let (mut missing, mut poll) = plugin("/no/such/program");
        assert_eq!(next_event(&mut missing, &mut poll, Moment::ZERO), PluginEvent::Started);
        assert_eq!(
            next_event(&mut missing, &mut poll, Moment::ZERO),
            PluginEvent::Gone("it ended")
        );
        let (mut endless, mut poll) = plugin("sh -c 'tr \"\\0\" x </dev/zero'");
        assert_eq!(next_event(&mut endless, &mut poll, Moment::ZERO), PluginEvent::Started);
        assert_eq!(
            next_event(&mut endless, &mut poll, Moment::ZERO),
            PluginEvent::Gone("it ended")
        );
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up() {
        let (mut deaf, mut poll) = plugin("sleep 1000");
        assert_eq!(next_event(&mut deaf, &mut poll, Moment::ZERO), PluginEvent::Started);
        let line = "x".repeat(1000);
        let sent = (0..3 * LINES_MAX).take_while(|_| deaf.send_line(line.clone())).count();
        assert!(sent < 3 * LINES_MAX, "what it does not read must not pile up");
        assert_eq!(
            deaf.stop(Moment::ZERO, "it does not read"),
            PluginEvent::Gone("it does not read")
        );
    }
}
