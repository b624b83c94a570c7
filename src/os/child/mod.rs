//! How are a command and all that it started ended?

#[cfg(unix)]
mod group;
#[cfg(unix)]
pub use group::{end, separate};

#[cfg(not(unix))]
mod alone;
#[cfg(not(unix))]
pub use alone::{end, separate};
