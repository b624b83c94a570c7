//! Connects over TCP without waiting for the answer.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{connect, on_first_write};

#[cfg(not(unix))]
mod plain;
#[cfg(not(unix))]
pub use plain::{connect, on_first_write};
