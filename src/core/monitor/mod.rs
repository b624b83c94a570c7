//! Bidding for work: from what the host and the queues say to tickets.

pub mod apportion;
pub mod capacity;
pub mod health;
#[allow(clippy::module_inception)] // its state machine gives the module its name
pub mod monitor;
pub mod overload;
pub mod strict;
