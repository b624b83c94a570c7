//! Log files, and what reads standard error.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn open(&Path) -> io::Result<File>`: opens a file to append to. It never waits for the
//!   reader of a FIFO, and a FIFO without a reader is no error.
//! - `fn stderr_is_journal() -> bool`: whether standard error leads to the journal.
//! - `fn give(&File, user: &str) -> io::Result<()>`: makes `USER` or `USER:GROUP` its owner.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "plain.rs")]
mod backend;
pub use backend::{give, open, stderr_is_journal};
