//! How many descriptors may this process have?

#[cfg(unix)]
mod rlimit;
#[cfg(unix)]
pub use rlimit::raise;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::raise;
