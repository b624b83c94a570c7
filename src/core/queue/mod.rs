//! The ticket queue: which providers offer what, what of it is in use, and which requests
//! wait.

pub mod affinity;
pub mod provider_pool;
pub mod ticket_queue;
pub mod wait_queue;
