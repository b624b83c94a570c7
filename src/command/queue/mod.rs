//! `pegasus queue`, and the queue that is embedded in a redirector.
//!
//! [`start`] sets up listeners and the [`control_server`], which handles their
//! connections; [`shared`] is the ticket queue itself.

mod control_server;
mod link;
mod places;
mod security;
mod shared;
mod start;

pub use control_server::QueueCommand;
pub use shared::{LocalHandle, SharedQueue};
pub use start::{run, Embedded, NamedListeners};
