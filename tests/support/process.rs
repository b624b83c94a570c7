//! A process that a test started: its log, its resources, its end.

use super::pegasus::is_foreign;
use super::{until, until_some, PATIENCE};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A child process. It is killed when dropped; its standard error is kept.
pub struct Process {
    name: String,
    child: Child,
    foreign: bool,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// Makes a child die with the thread that started it.
pub fn bind_to_parent(command: &mut Command) -> &mut Command {
    // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

/// A pipe: what is read, what is written.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the call fills in the two descriptors, which have no other owner.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// Returns the processor time of a process, to the nanosecond: of all its threads, also
/// those that ended, but of no children. None if there is no such process.
pub fn used(id: u32) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls fill in a valid structure.
    let told = unsafe {
        libc::clock_getcpuclockid(id as i32, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    if !told {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Process {
    #[track_caller]
    pub fn start(name: &str, command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Process::start_as_is(name, command)
    }

    /// Starts a command that keeps the standard streams that it has.
    #[track_caller]
    pub fn start_as_is(name: &str, command: &mut Command) -> Process {
        let mut child =
            bind_to_parent(command).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let lines = lines.clone();
            thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
                }
            })
        });
        Process { name: name.into(), child, foreign: is_foreign(command), lines, reader }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Returns the lines of its log that contain all these words.
    pub fn log_with(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits for a line that contains all these words.
    #[track_caller]
    pub fn says(&mut self, words: &[&str]) -> String {
        until_some(&format!("{} says {words:?}", self.name), || {
            // Its last lines are read when the pipe is at its end.
            let over =
                self.over().is_some() && self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            let found = self.log_with(words).into_iter().next();
            assert!(
                found.is_some() || !over,
                "{} ended and did not say {words:?}: {:#?}",
                self.name,
                self.log()
            );
            found
        })
    }

    /// A foreign program gets Ctrl-C for TERM; it has no other signals.
    #[track_caller]
    pub fn signal(&self, mut signal: i32) {
        if self.foreign
            && [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2].contains(&signal)
        {
            assert_eq!(signal, libc::SIGTERM, "{} cannot be sent this signal", self.name);
            signal = libc::SIGINT;
        }
        // SAFETY: plain numbers; the child is not reaped before it is dropped or
        // found over, so the id is still its own.
        unsafe { libc::kill(self.id() as i32, signal) };
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn over(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits until it ends; returns the exit status, or -1 if a signal ended it.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let status = until_some(&format!("{} ends", self.name), || self.over());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status
    }

    pub fn runs(&mut self) -> bool {
        self.over().is_none()
    }

    /// Returns the number of its open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// Returns how many of them are of a kind, such as "socket:" or "pipe:".
    pub fn open(&self, kind: &str) -> usize {
        let entries =
            fs::read_dir(format!("/proc/{}/fd", self.id())).into_iter().flatten().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with(kind)).count()
    }

    /// Returns its processor time so far.
    pub fn used(&self) -> Duration {
        used(self.id())
    }

    /// Returns how often its threads slept and were woken, each by itself; nothing of those
    /// that ended.
    pub fn wake_ups(&self) -> Vec<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        let count = |status: String| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().last()?.parse().ok()
        };
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
        tasks.flatten().filter_map(status).filter_map(count).collect()
    }

    /// Waits until it sleeps. A process in a busy loop never does.
    #[track_caller]
    pub fn idles(&self) {
        const WATCH: Duration = Duration::from_millis(600);
        until(&format!("{} sleeps", self.name), || {
            let before = self.used();
            thread::sleep(WATCH);
            self.used() - before < WATCH / 4
        });
    }

    /// Returns its resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let status = self.child.try_wait().ok().flatten();
        self.kill();
        if thread::panicking() {
            let state = status.map_or("it ran".into(), |status| format!("it had ended: {status}"));
            let log = self.log();
            let tail = &log[log.len().saturating_sub(40)..];
            eprintln!("--- {}: {state}; the last of its {} lines:", self.name, log.len());
            eprintln!("{}", tail.join("\n"));
        }
    }
}

/// Runs a command until it ends; returns its exit status, standard output and standard
/// error.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> (i32, String, String) {
    use std::io::{Read, Write};
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        bind_to_parent(command).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // A program that does not read its input may end before all is written.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let err = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("did not end within {PATIENCE:?}: {command:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let _ = writer.join();
    (status, out.join().unwrap(), err.join().unwrap())
}
