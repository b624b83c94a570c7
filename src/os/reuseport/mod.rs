//! Several sockets of datagrams at one port.
//!
//! A system answers with [`bind_shard`], at the same address: it divides the clients
//! among them, each client's datagrams come to one of them; and with [`bind_address`], at
//! one address beside a socket of all addresses.

#[cfg(unix)]
mod reuse;
#[cfg(unix)]
pub use reuse::bind_address;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use reuse::bind_shard;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod none;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use none::bind_shard;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::bind_address;
