//! Several datagram sockets at one port.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn bind_shard(&UdpSocket) -> io::Result<UdpSocket>`: one more socket at the same address.
//!   The system divides clients among such sockets; each client keeps its socket.
//!   `Unsupported` where it does not divide them.
//! - `fn bind_address(&socket, SocketAddr) -> io::Result<UdpSocket>`: a socket at one address
//!   beside one at all addresses of that port.

#[cfg(unix)]
mod reuse;
#[cfg(unix)]
pub use reuse::bind_address;
#[cfg(pegasus_linux)]
pub use reuse::bind_shard;

#[cfg(not(pegasus_linux))]
mod none;
#[cfg(not(pegasus_linux))]
pub use none::bind_shard;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::bind_address;
