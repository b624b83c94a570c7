//! Which address was a datagram sent to, how does an answer leave from it, and
//! who hears that nobody takes what was sent?
//!
//! A system answers with [`prepare`], [`receive`], [`send`] for sockets that
//! clients come to, and with [`prepare_upstream`] and [`HEARS_ALL`] for those
//! that lead to providers.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod pktinfo;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use pktinfo::{prepare, prepare_upstream, receive, send};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod plain;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use plain::{prepare, prepare_upstream, receive, send};

use std::io::{Error, ErrorKind};

/// The longest datagram, in bytes, and one more.
pub const DATAGRAM_BYTES: usize = 64 * 1024;

/// Whether a socket that is not connected hears that nobody takes what it
/// sends. Elsewhere one has to be connected for that, and then hears nothing
/// from the peer's other ports.
pub const HEARS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android", windows));

/// Whether an error of a datagram socket says that nobody takes what was sent.
pub fn refused(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}
