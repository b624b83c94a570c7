//! A program of the operator's that runs beside us and answers lines with lines.
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
const SETTLED: Span = Span::from_secs(10);

/// What is heard of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was started.
    Started,
    /// It said this.
    Line(String),
    /// It is gone, and will be started again later. Why.
    Gone(&'static str),
}

struct Running {
    child: Child,
    lines: Arc<Mailbox<String>>,
    answers: Arc<Mailbox<String>>,
    since: Moment,
}

impl Drop for Running {
    fn drop(&mut self) {
        child::end(&mut self.child);
        // The threads that talk to it end.
        self.lines.close();
        self.answers.close();
    }
}

/// See the file's head.
pub struct Plugin {
    command: String,
    running: Option<Running>,
    retry: Moment,
    backoff: Backoff,
    random: Random,
    waker: Arc<Waker>,
}

impl Plugin {
    /// A program that is started at the first [`hear`](Plugin::hear); `waker`
    /// is woken when it says something.
    pub fn new(command: &str, waker: Arc<Waker>, seed: u64) -> Plugin {
        Plugin {
            command: command.to_string(),
            running: None,
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
    pub fn tell(&mut self, line: String) -> bool {
        // If it is full or over, the next `hear` finds out which, and ends it.
        self.running.as_ref().is_some_and(|running| running.lines.try_put(line))
    }

    /// When [`hear`](Plugin::hear) should be called, if nothing is said.
    pub fn deadline(&self) -> Option<Moment> {
        self.running.is_none().then_some(self.retry)
    }

    /// The next thing it said or did; starts it when it is time.
    pub fn hear(&mut self, now: Moment) -> Option<Heard> {
        let Some(running) = &mut self.running else {
            if now < self.retry {
                return None;
            }
            return Some(match start(&self.command, &self.waker, now) {
                Some(running) => {
                    self.running = Some(running);
                    Heard::Started
                }
                None => self.gone(now, "it cannot be started"),
            });
        };
        match running.answers.try_take() {
            Some(line) => Some(Heard::Line(line)),
            None => running.answers.is_over().then(|| self.end(now, "it ended")),
        }
    }

    /// Ends it, because of `why`; it is started again later.
    pub fn end(&mut self, now: Moment, why: &'static str) -> Heard {
        if let Some(running) = self.running.take() {
            if now.since(running.since) >= SETTLED {
                self.backoff.reset();
            }
        }
        self.gone(now, why)
    }

    fn gone(&mut self, now: Moment, why: &'static str) -> Heard {
        self.retry = now + self.backoff.delay(&mut self.random);
        Heard::Gone(why)
    }
}

fn start(command: &str, waker: &Arc<Waker>, now: Moment) -> Option<Running> {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let line = if cfg!(windows) { command.to_string() } else { format!("exec {command}") };
    let mut prepared = Command::new(shell);
    prepared.args([option, &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    child::separate(&mut prepared);
    let mut child = prepared.spawn().ok()?;
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let running = Running {
        child,
        lines: Arc::new(Mailbox::new(LINES_MAX)),
        answers: Arc::new(Mailbox::new(LINES_MAX)),
        since: now,
    };
    let (to_write, said) = (running.lines.clone(), running.answers.clone());
    let writer = move || {
        while let Some(mut line) = to_write.take() {
            // What has gathered goes in one piece.
            line.push('\n');
            while let Some(more) = to_write.try_take() {
                line.push_str(&more);
                line.push('\n');
            }
            if stdin.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
        to_write.close();
    };
    let waker = waker.clone();
    let reader = move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let text = match read {
                Ok(1..) if line.ends_with(b"\n") => String::from_utf8_lossy(&line).trim().to_string(),
                // The end, or a line beyond measure.
                _ => break,
            };
            if !said.put(text) {
                break;
            }
            let _ = waker.wake();
        }
        said.close();
        let _ = waker.wake();
    };
    let spawn =
        |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work).is_ok();
    let both = spawn("plugin-writer", Box::new(writer)) && spawn("plugin-reader", Box::new(reader));
    both.then_some(running)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Waits until something is heard.
    fn hear(plugin: &mut Plugin, poll: &mut Poll, now: Moment) -> Heard {
        let (mut events, start) = (Events::with_capacity(4), Instant::now());
        loop {
            if let Some(heard) = plugin.hear(now) {
                return heard;
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
        assert_eq!(hear(&mut plugin, &mut poll, now), Heard::Started);
        assert!(plugin.tell("one two".into()));
        assert_eq!(hear(&mut plugin, &mut poll, now), Heard::Line("[one two]".into()));
        plugin.tell(String::new());
        assert_eq!(hear(&mut plugin, &mut poll, now), Heard::Gone("it ended"));
        assert_eq!((plugin.hear(now), plugin.tell(String::new())), (None, false));
        let later = plugin.deadline().unwrap();
        assert_eq!(hear(&mut plugin, &mut poll, later), Heard::Started);
    }

    #[test]
    fn one_that_does_not_exist_or_talks_without_end_is_gone() {
        let (mut missing, mut poll) = plugin("/no/such/program");
        assert_eq!(hear(&mut missing, &mut poll, Moment::ZERO), Heard::Started);
        assert_eq!(hear(&mut missing, &mut poll, Moment::ZERO), Heard::Gone("it ended"));
        let (mut endless, mut poll) = plugin("sh -c 'tr \"\\0\" x </dev/zero'");
        assert_eq!(hear(&mut endless, &mut poll, Moment::ZERO), Heard::Started);
        assert_eq!(hear(&mut endless, &mut poll, Moment::ZERO), Heard::Gone("it ended"));
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up() {
        let (mut deaf, mut poll) = plugin("sleep 1000");
        assert_eq!(hear(&mut deaf, &mut poll, Moment::ZERO), Heard::Started);
        let line = "x".repeat(1000);
        let heard = (0..3 * LINES_MAX).take_while(|_| deaf.tell(line.clone())).count();
        assert!(heard < 3 * LINES_MAX, "what it does not read must not pile up");
        assert_eq!(deaf.end(Moment::ZERO, "it does not read"), Heard::Gone("it does not read"));
    }
}
