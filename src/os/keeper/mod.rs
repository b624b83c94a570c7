//! A process that stays for its starter while others do the work: it passes signals on,
//! reaps orphans, and ends with the status of the last process that served.
//!
//! Two processes keep. Process 1 of a container is one from the start: nothing else there
//! reaps orphans. And the first process stays after an upgrade, where its starter knows only
//! that one (runit, s6, a shell). The others write the id of their successor on a line.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn split_init()`: process 1 forks here; it keeps, and its child returns.
//! - `fn line_for_successor() -> Option<UnixStream>` and `fn inherit_line(UnixStream)`, where
//!   there are upgrades: the line, before and after the start of a successor.
//! - `fn follow(id: u32)`: this process serves from now on.
//! - `fn pass_on(Signal) -> bool`: to the process that serves, if this one keeps.
//! - `fn stay() -> Option<i32>`: keeps until the end, if this process has to; the status.

#[cfg_attr(pegasus_linux, path = "subreaper.rs")]
#[cfg_attr(all(unix, not(pegasus_linux)), path = "unix.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
pub use backend::{follow, pass_on, split_init, stay};
#[cfg(unix)]
pub(super) use backend::{inherit_line, line_for_successor};
