//! The balancer's truth: who offers what, who may take it, who waits.

pub mod affinity;
pub mod book;
pub mod ticket_queue;
pub mod waiting;
