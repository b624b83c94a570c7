//! How a loop is told of a socket that there is something to be read.
//!
//! A system answers with [`register_readable`] and [`LEVEL_TRIGGERED`].

#[cfg(any(target_os = "linux", target_os = "android"))]
mod level;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use level::{register_readable, LEVEL_TRIGGERED};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod edge;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use edge::{register_readable, LEVEL_TRIGGERED};
