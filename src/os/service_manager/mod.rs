//! Was this process started as a service that the system controls by calls?

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{is_managed, ready, run};

#[cfg(not(windows))]
mod none;
#[cfg(not(windows))]
pub use none::{is_managed, ready, run};
