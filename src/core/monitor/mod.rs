//! Bidding for work: from what the machine and the queues say to tickets.

pub mod apportion;
pub mod capacity;
pub mod health;
#[allow(clippy::module_inception)] // the machine is what the room is named after
pub mod monitor;
