//! Connections of clients to a service of this host.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn established(ports: &[u16]) -> Option<u64>`: established TCP connections to these local
//!   ports; none where the system does not tell, or where a port takes datagrams as well,
//!   whose clients are not connected.

#[cfg_attr(pegasus_linux, path = "procfs.rs")]
#[cfg_attr(not(pegasus_linux), path = "none.rs")]
mod mechanism;
pub use mechanism::established;
