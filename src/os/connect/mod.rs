//! Connects over TCP without waiting for the answer.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod quiet;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use quiet::connect;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod plain;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use plain::connect;
