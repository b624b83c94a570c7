//! The balancer's truth: who offers what, who may take it, who waits.

pub mod affinity;
pub mod provider_pool;
pub mod ticket_queue;
pub mod wait_queue;
