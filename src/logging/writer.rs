//! Writes lines in a thread of its own: no loop ever waits for a reader or a disk.
//!
//! Owns the queue to that thread. Lines that find it full, or that cannot be written, are
//! lost; their number is reported as soon as a line can be written again.

use super::line::{Format, Line, ReaderAdds};
use crate::os::syslog::Syslog;
use log::Level;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Duration;

/// Bytes of lines that may wait to be written.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes that are written in one piece, about.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the thread rests after each write. Lines that come meanwhile are written in one
/// piece, and wake no thread.
const REST: Duration = Duration::from_millis(2);
/// How often a reader that has no room is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Where a writer writes.
pub enum Sink {
    /// Standard error. `true`: the reader is the journal.
    Stderr(bool),
    /// The log of the system.
    Syslog(Syslog),
    /// A file, appended to.
    File(Arc<File>),
}

enum Job {
    Write(Line, Format),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost_lines: AtomicU32,
}

/// The queue to a thread that writes. Dropping it ends the thread, once that has written
/// what waits.
pub struct Writer {
    jobs: Sender<Job>,
    thread: Thread,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start(sink: Sink) -> io::Result<Writer> {
        let (jobs, waiting) = channel();
        let counts = Arc::new(Counts::default());
        let mut worker = Worker { sink, torn: false, counts: counts.clone() };
        let work = move || worker.run(&waiting);
        let thread = thread::Builder::new().name("log".into()).spawn(work)?.thread().clone();
        Ok(Writer { jobs, thread, counts })
    }

    /// Writes a line soon, or loses it.
    pub fn write(&self, line: Line, format: Format) {
        let cost = line.cost();
        let room = |waiting: usize| Some(waiting + cost).filter(|sum| *sum <= WAITING_BYTES_MAX);
        let fits = self
            .counts
            .waiting_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok();
        if !fits || self.jobs.send(Job::Write(line, format)).is_err() {
            self.counts.lost_lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, for so long at most.
    pub fn flush(&self, timeout: Duration) {
        let (done, wait) = sync_channel(1);
        if self.jobs.send(Job::Flush(done)).is_ok() {
            self.thread.unpark();
            let _ = wait.recv_timeout(timeout);
        }
    }
}

struct Worker {
    sink: Sink,
    /// What was written ends within a line.
    torn: bool,
    counts: Arc<Counts>,
}

impl Worker {
    /// Writes until the queue is dropped.
    fn run(&mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut batch = String::new();
            let mut format = Format::default();
            let mut good = true;
            let mut flushed = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Write(line, of) => {
                        format = of;
                        self.counts.waiting_bytes.fetch_sub(line.cost(), Ordering::Relaxed);
                        good &= self.add(&mut batch, &line, format);
                    }
                    Job::Flush(done) => flushed = Some(done),
                }
                if batch.len() < BATCH_BYTES && flushed.is_none() {
                    next = waiting.try_recv().ok();
                }
            }
            // What was lost came after everything that waited.
            let empty = |counts: &Counts| counts.waiting_bytes.load(Ordering::Relaxed) == 0;
            if self.write(&batch) && good && (flushed.is_some() || empty(&self.counts)) {
                self.report_lost(format);
            }
            // The other end may have lost patience.
            let was_flushed = flushed.map(|done| done.send(())).is_some();
            if !was_flushed {
                thread::park_timeout(REST);
            }
        }
    }

    /// Adds a line to what is written next. Syslog gets it at once; returns false if it does
    /// not take it.
    fn add(&mut self, batch: &mut String, line: &Line, format: Format) -> bool {
        match &mut self.sink {
            Sink::Syslog(syslog) => {
                let text = line.format(format, ReaderAdds::TimeAndLevel);
                let sent = syslog.send(line.severity(), &text).is_ok();
                self.counts.lost_lines.fetch_add(u32::from(!sent), Ordering::Relaxed);
                return sent;
            }
            Sink::Stderr(true) => {
                *batch += &format!("<{}>", line.severity());
                *batch += &line.format(format, ReaderAdds::TimeAndLevel);
            }
            Sink::Stderr(false) | Sink::File(_) => {
                *batch += &line.format(format, ReaderAdds::Nothing);
            }
        }
        batch.push('\n');
        true
    }

    /// Writes whole lines. Returns whether that succeeded; the others count as lost.
    fn write(&mut self, batch: &str) -> bool {
        if batch.is_empty() {
            return true;
        }
        // The rest of a line that was cut short is missing for good.
        if self.torn && !matches!(self.put(b"\n"), (1, _)) {
            self.lose(batch.as_bytes());
            return false;
        }
        self.torn = false;
        let (written, result) = self.put(batch.as_bytes());
        let rest = &batch.as_bytes()[written..];
        self.torn = !rest.is_empty() && written > 0 && batch.as_bytes()[written - 1] != b'\n';
        self.lose(rest);
        result.is_ok()
    }

    /// Writes bytes as far as it can: how many, and the error that stopped it.
    fn put(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            let result = match &mut self.sink {
                Sink::Stderr(_) => io::stderr().write(&bytes[written..]),
                Sink::File(file) => (&**file).write(&bytes[written..]),
                Sink::Syslog(_) => return (bytes.len(), Ok(())),
            };
            match result {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process may have made a shared descriptor non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    fn lose(&self, rest: &[u8]) {
        let lines = rest.iter().filter(|byte| **byte == b'\n').count();
        self.counts.lost_lines.fetch_add(lines as u32, Ordering::Relaxed);
    }

    fn report_lost(&mut self, format: Format) {
        let lost = self.counts.lost_lines.load(Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let notice = format!("{lost} lines lost: they could not be written");
        let mut batch = String::new();
        let added = self.add(&mut batch, &Line::new(Level::Warn, "log", &notice), format);
        let reported = self.write(&batch) && added;
        // If it failed the notice counts as lost itself, which it is not.
        let settled = if reported { lost } else { 1 };
        self.counts.lost_lines.fetch_sub(settled, Ordering::Relaxed);
    }
}
