//! Bidding for work: from what the machine and the queues say to tickets.

pub mod health;
pub mod law;
pub mod monitor;
pub mod share;
