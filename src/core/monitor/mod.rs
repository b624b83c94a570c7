//! The monitor: from the load of the host and the feedback of the queues to tickets.

pub mod agent;
pub mod apportion;
pub mod capacity;
pub mod engine;
pub mod health;
#[allow(clippy::module_inception)] // its state machine gives the module its name
pub mod monitor;
pub mod overload;
pub mod strict;
