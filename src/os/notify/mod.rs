//! Who wants to know that this process is ready?

#[cfg(unix)]
mod systemd;
#[cfg(unix)]
pub use systemd::ready;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::ready;
