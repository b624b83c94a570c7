//! An operator's program that runs beside this process and answers lines with lines.
//!
//! Owns the child, its restarts, and the two threads that talk to it: pipes block, and not
//! every system can poll them together with sockets. Nothing in the loop waits for the
//! program. Not responsible for what the lines mean.

use crate::os::child;
use mio::Waker;
use pegasus_core::base::backoff::Backoff;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TryRecvError};
use std::sync::Arc;
use std::thread;

/// Lines on their way to the program. One that lets more pile up is restarted.
const LINES_MAX: usize = 4096;
/// The longest line of a program, in bytes.
const LINE_BYTES_MAX: u64 = 1024;
const RETRY: (Span, Span) = (Span::from_millis(100), Span::from_secs(30));
/// A program that ran for so long is restarted at once.
const STABLE_AFTER: Span = Span::from_secs(10);

/// What happens to a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PluginEvent {
    /// It was started.
    Started,
    /// It wrote this line.
    Line(String),
    /// It is gone, for this reason, and will be started again later.
    Gone(&'static str),
}

struct Process {
    /// None once it is ended.
    child: Option<Child>,
    /// The threads at the other ends stop when these are dropped.
    lines: SyncSender<String>,
    replies: Receiver<String>,
    started_at: Moment,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child::end(child);
        }
    }
}

/// A program that is restarted when it ends.
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
    /// is woken when it writes a line.
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

    /// The command that starts it.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Sends it a line, without its end. Returns false if it is not there or does not read.
    pub fn send_line(&mut self, line: String) -> bool {
        self.process.as_ref().is_some_and(|process| process.lines.try_send(line).is_ok())
    }

    /// When [`poll_event`](Plugin::poll_event) should be called, if nothing comes in.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.process.is_none().then_some(self.retry)
    }

    /// Returns the next event; starts the program when it is time.
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
        match process.replies.try_recv() {
            Ok(line) => Some(PluginEvent::Line(line)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.stop(now, "it ended")),
        }
    }

    /// Ends it, for this reason; it is started again later.
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
    let mut child = child::start(&mut prepared).ok()?;
    let mut stdin = child.stdin.take()?;
    let stdout = child.stdout.take()?;
    let (lines, outgoing) = sync_channel(LINES_MAX);
    let (incoming, replies) = sync_channel(LINES_MAX);
    let process = Process { child: Some(child), lines, replies, started_at: now };
    let waker = waker.clone();
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(work).is_ok()
    };
    let both = spawn("plugin-writer", Box::new(move || write_lines(&outgoing, &mut stdin)))
        && spawn("plugin-reader", Box::new(move || read_lines(stdout, incoming, &waker)));
    both.then_some(process)
}

/// Writes lines to the program, until it is gone.
fn write_lines(outgoing: &Receiver<String>, stdin: &mut impl Write) {
    while let Ok(mut text) = outgoing.recv() {
        // What has gathered goes in one piece.
        text.push('\n');
        for line in outgoing.try_iter() {
            text.push_str(&line);
            text.push('\n');
        }
        if stdin.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads lines of the program, until it is gone or writes a line that is too long.
fn read_lines(stdout: impl Read, incoming: SyncSender<String>, waker: &Waker) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while matches!(
        reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line),
        Ok(1..) if line.ends_with(b"\n")
    ) {
        if incoming.send(String::from_utf8_lossy(&line).trim().to_string()).is_err() {
            break;
        }
        let _ = waker.wake();
        line.clear();
    }
    // The loop that wakes must find the end.
    drop(incoming);
    let _ = waker.wake();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Waits until something happens.
    fn next_event(plugin: &mut Plugin, poll: &mut Poll, now: Moment) -> PluginEvent {
        let mut events = Events::with_capacity(4);
        let start = Instant::now();
        loop {
            if let Some(event) = plugin.poll_event(now) {
                return event;
            }
            assert!(start.elapsed() < PATIENCE, "no event");
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
    fn one_that_does_not_read_blocks_nothing() {
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
