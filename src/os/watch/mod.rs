//! How a loop is told of a socket that there is something to be read.
//!
//! A system answers with [`readable`] and [`REPEATS`].

#[cfg(any(target_os = "linux", target_os = "android"))]
mod level;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use level::{readable, REPEATS};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod edge;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use edge::{readable, REPEATS};
