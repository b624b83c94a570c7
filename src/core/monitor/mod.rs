//! Bidding for work: from what the host and the queues say to tickets.

pub mod apportion;
pub mod capacity;
pub mod health;
#[allow(clippy::module_inception)] // the host is what the room is named after
pub mod monitor;
