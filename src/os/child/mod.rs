//! Commands with all that they start: ended together, and read without waiting.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn separate(&mut Command)`: called before the start, makes the tree one that can be ended.
//! - `fn kill(&mut Child)`: kills the tree, and waits for nothing.
//! - `struct Output` with `fn of(ChildStdout) -> io::Result<Output>`, and `Read` that returns
//!   `WouldBlock` where there is nothing yet.

#[cfg_attr(unix, path = "group.rs")]
#[cfg_attr(not(unix), path = "alone.rs")]
mod backend;
pub use backend::{separate, Output};

use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Killed commands that are not gone yet: the system may be busy for one of them.
static DYING: AtomicUsize = AtomicUsize::new(0);
/// With so many of them no further command is started.
const DYING_MAX: usize = 16;

/// Whether so many killed commands are still there that another would make it worse.
pub fn too_many_dying() -> bool {
    DYING.load(Ordering::Relaxed) >= DYING_MAX
}

/// Ends a command that was started [`separate`], with all that it started. A thread waits
/// for its end where that takes time.
pub fn end(mut child: Child) {
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
