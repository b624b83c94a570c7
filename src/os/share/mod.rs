//! Several sockets of datagrams at one place, among which the system divides
//! the clients: each client's datagrams come to one of them.
//!
//! A system answers with [`another`].

#[cfg(any(target_os = "linux", target_os = "android"))]
mod reuseport;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use reuseport::another;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod none;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use none::another;
