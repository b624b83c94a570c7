//! `prctl(PR_SET_CHILD_SUBREAPER)`: orphans become children of this process.

use crate::os::signal::Signal;
use std::env;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Descriptors below this are closed by process 1, which needs none of them.
const DESCRIPTORS: i32 = 1024;
/// A process that a signal ended has this status and the number of the signal, as in sh.
const SIGNALLED: i32 = 128;

/// What the first process keeps.
struct Keeper {
    line: UnixStream,
    /// For successors; this end stays open.
    theirs: UnixStream,
    /// Processes that served, the current one last; empty before an upgrade.
    served: Vec<libc::pid_t>,
}

/// Of the first process, once it started a successor.
static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);
/// Of all others: where the keeper reads.
static LINE: Mutex<Option<UnixStream>> = Mutex::new(None);
/// The pipe of [`handle`].
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line that a successor gets; none under a manager that is told by other means.
pub fn line_for_successor() -> Option<UnixStream> {
    if let Some(line) = &*lock(&LINE) {
        return line.try_clone().ok();
    }
    if env::var_os("NOTIFY_SOCKET").is_some() {
        return None;
    }
    let mut keeper = lock(&KEEPER);
    if keeper.is_none() {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
            return None;
        }
        let (line, theirs) = UnixStream::pair().ok()?;
        line.set_nonblocking(true).ok()?;
        *keeper = Some(Keeper { line, theirs, served: Vec::new() });
    }
    keeper.as_ref()?.theirs.try_clone().ok()
}

/// This process is a successor with a keeper.
pub fn inherit_line(line: UnixStream) {
    *lock(&LINE) = Some(line);
}

/// This process serves from now on.
pub fn follow(id: u32) {
    if let Some(line) = &mut *lock(&LINE) {
        // Without its keeper there is nothing to report.
        let _ = line.write_all(format!("{id}\n").as_bytes());
    } else if let Some(keeper) = &mut *lock(&KEEPER) {
        keeper.served.push(id as libc::pid_t);
    }
}

/// Passes a signal on to the process that serves, if this one keeps.
pub fn pass_on(signal: Signal) -> bool {
    let mut keeper = lock(&KEEPER);
    let Some(keeper) = keeper.as_mut().filter(|keeper| !keeper.served.is_empty()) else {
        return false;
    };
    keeper.read_line();
    keeper.signal(match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Reload => libc::SIGHUP,
        Signal::Reopen => libc::SIGUSR1,
        Signal::Upgrade => libc::SIGUSR2,
    });
    true
}

/// Keeps until the end, if a successor serves; the status to end with.
pub fn stay() -> Option<i32> {
    let keeper = lock(&KEEPER).take()?;
    (!keeper.served.is_empty()).then(|| keeper.keep())
}

/// Process 1 forks: it keeps, and its child returns. Called while there is one thread.
pub fn split_init() {
    if std::process::id() != 1 {
        return;
    }
    let Ok((line, theirs)) = UnixStream::pair() else { return };
    // SAFETY: there is one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => {}
        0 => {
            // A terminal signals the group in front: the keeper alone, which passes it on.
            // SAFETY: plain numbers.
            unsafe { libc::setpgid(0, 0) };
            inherit_line(theirs);
        }
        child => {
            drop(theirs);
            // SAFETY: this process uses none of what it had open, and never returns; the
            // line gets a number of its own first.
            let line = unsafe {
                let copy = libc::dup2(line.as_raw_fd(), DESCRIPTORS);
                let copy = if copy < 0 { line.as_raw_fd() } else { copy };
                (3..DESCRIPTORS).filter(|number| *number != copy).for_each(|number| {
                    libc::close(number);
                });
                std::mem::forget(line);
                UnixStream::from_raw_fd(copy)
            };
            let _ = line.set_nonblocking(true);
            let Ok(theirs) = line.try_clone() else { std::process::exit(SIGNALLED) };
            let keeper = Keeper { line, theirs, served: vec![child] };
            std::process::exit(keeper.keep());
        }
    }
}

impl Keeper {
    /// Learns which processes took over.
    fn read_line(&mut self) {
        let mut text = Vec::new();
        let _ = self.line.read_to_end(&mut text);
        let ids = String::from_utf8_lossy(&text);
        self.served.extend(ids.lines().filter_map(|id| id.parse::<libc::pid_t>().ok()));
    }

    /// All that served end; everything else is for the one that serves.
    fn signal(&self, signal: libc::c_int) {
        let ends = matches!(signal, libc::SIGTERM | libc::SIGINT);
        let skip = if ends { 0 } else { self.served.len().saturating_sub(1) };
        for id in &self.served[skip..] {
            // SAFETY: plain numbers; those that were reaped are not in the list.
            unsafe { libc::kill(*id, signal) };
        }
    }

    /// Reaps and passes signals on until the process that serves has ended, and after a
    /// signal to end until all have.
    fn keep(mut self) -> i32 {
        let Ok(mut signals) = catch_signals() else { return SIGNALLED };
        let mut ending = false;
        let mut result = 0;
        loop {
            self.read_line();
            while let Some((id, status)) = reap() {
                self.read_line();
                if self.served.last() == Some(&id) {
                    result = status;
                    if !ending {
                        return result;
                    }
                }
                self.served.retain(|served| *served != id);
            }
            if self.served.is_empty() {
                return result;
            }
            let mut caught = [0; 16];
            let count = signals.read(&mut caught).unwrap_or(0);
            for signal in caught[..count].iter().map(|signal| libc::c_int::from(*signal)) {
                if signal != libc::SIGCHLD {
                    ending |= matches!(signal, libc::SIGTERM | libc::SIGINT);
                    self.read_line();
                    self.signal(signal);
                }
            }
        }
    }
}

/// A child that has ended, and its status.
fn reap() -> Option<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: the call fills the number that it is given.
    let id = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        SIGNALLED + libc::WTERMSIG(status)
    };
    (id > 0).then_some((id, code))
}

extern "C" fn handle(signal: libc::c_int) {
    // SAFETY: write(2) is async-signal-safe; the descriptor is never closed, and the byte
    // lives for the call.
    unsafe {
        libc::write(SIGNALS.load(Ordering::Relaxed), [signal as u8].as_ptr().cast(), 1);
    }
}

/// Signals from now on, a byte each.
fn catch_signals() -> io::Result<UnixStream> {
    let (signals, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    SIGNALS.store(theirs.as_raw_fd(), Ordering::Relaxed);
    std::mem::forget(theirs);
    let all =
        [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
    for signal in all {
        // SAFETY: the structure is plain data, zero is a valid start for it, and the handler
        // does nothing but what a handler may do.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(signals)
}
