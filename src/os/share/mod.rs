//! Several sockets of datagrams at one port.
//!
//! A system answers with [`another`], at the same place: it divides the clients
//! among them, each client's datagrams come to one of them; and with [`beside`], at
//! one address beside a socket of all addresses.

#[cfg(unix)]
mod reuse;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use reuse::another;
#[cfg(unix)]
pub use reuse::beside;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod none;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use none::another;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::beside;
