//! Which process has a port.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn of(socket: SocketAddr, datagrams: bool) -> Option<PortOwner>`: a process that listens
//!   there, or on all addresses; none if the system does not tell this user.

#[cfg_attr(pegasus_linux, path = "procfs.rs")]
#[cfg_attr(not(pegasus_linux), path = "none.rs")]
mod mechanism;
pub use mechanism::of;

/// A process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOwner {
    /// Its id.
    pub id: u32,
    /// The name of its program.
    pub name: String,
}
