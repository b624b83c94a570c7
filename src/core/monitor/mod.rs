//! Bidding for work: from what the machine and the queues say to tickets.

pub mod health;
pub mod law;
#[allow(clippy::module_inception)] // the machine is what the room is named after
pub mod monitor;
pub mod overload;
pub mod share;
pub mod strict;
