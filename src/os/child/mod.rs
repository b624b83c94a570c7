//! Commands with all that they start: ended together, and read without waiting.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn separate(&mut Command)`: called before the start, makes the tree one that can be ended.
//! - `fn kill(&mut Child)`: kills the tree, and waits for nothing.
//! - `fn kill_id(u32)`: kills the tree of a child with this id, where that is possible.
//! - `struct Output` with `fn of(ChildStdout) -> io::Result<Output>`, and `Read` that returns
//!   `WouldBlock` where there is nothing yet.

#[cfg_attr(unix, path = "group.rs")]
#[cfg_attr(not(unix), path = "alone.rs")]
mod backend;
pub use backend::Output;

use std::io;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Killed commands that are not gone yet: the system may be busy for one of them.
static DYING: AtomicUsize = AtomicUsize::new(0);
/// With so many of them no further command is started.
const DYING_MAX: usize = 16;

/// Whether so many killed commands are still there that another would make it worse.
pub fn too_many_dying() -> bool {
    DYING.load(Ordering::Relaxed) >= DYING_MAX
}

/// Ids of commands under way; none any more when this process is about to end.
static RUNNING: Mutex<Option<Vec<u32>>> = Mutex::new(Some(Vec::new()));

/// Starts a command that can be ended with all that it starts.
///
/// # Errors
/// Returns the OS error, or `Interrupted` after [`end_all`].
pub fn start(command: &mut Command) -> io::Result<Child> {
    backend::separate(command);
    // Under the lock, so that the end of this process misses none.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let running = running.as_mut().ok_or(io::ErrorKind::Interrupted)?;
    let child = command.spawn()?;
    running.push(child.id());
    Ok(child)
}

/// Ends all commands that were [started](start), for this process is about to end. No
/// further one is started.
pub fn end_all() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    running.into_iter().flatten().for_each(backend::kill_id);
}

/// Ends a command that was [started](start), with all that it started. A thread waits for
/// its end where that takes time.
pub fn end(mut child: Child) {
    if let Some(running) = &mut *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
        running.retain(|id| *id != child.id());
    }
    backend::kill(&mut child);
    if matches!(child.try_wait(), Ok(None)) {
        DYING.fetch_add(1, Ordering::Relaxed);
        let wait = move || {
            let _ = child.wait();
            DYING.fetch_sub(1, Ordering::Relaxed);
        };
        let _ = thread::Builder::new().name("reaper".into()).spawn(wait);
    }
}
