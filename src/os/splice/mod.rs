//! Can bytes go from one socket to another without coming to this process?

#[cfg(any(target_os = "linux", target_os = "android"))]
mod pipe;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use pipe::Pipe;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod none;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use none::Pipe;

/// Bytes that a pipe may hold, where the system allows it: with the usual
/// 64 KiB splicing costs as much as copying, with this a third of it.
pub const PIPE_BYTES: usize = 1 << 20;
