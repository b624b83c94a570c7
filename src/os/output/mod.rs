//! Whether standard output still has a reader.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn wait_until_reader_left()`: returns when the pipe of standard output has lost its
//!   reader, or never.

#[cfg(unix)]
mod poll;
#[cfg(unix)]
pub use poll::wait_until_reader_left;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::wait_until_reader_left;
