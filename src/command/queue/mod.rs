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

use crate::config::settings::Settings;
use pegasus_core::queue::ticket_queue::TicketQueue;

pub use control_server::QueueCommand;
pub use shared::{LocalHandle, SharedQueue};
pub use start::{run, Embedded, NamedListeners};

/// The most memory that a queue with these settings takes, in bytes.
pub fn memory_max(settings: &Settings) -> usize {
    let connections = control_server::memory_max(settings.queue_connections_max);
    TicketQueue::memory_max(&settings.queue).saturating_add(connections)
}
