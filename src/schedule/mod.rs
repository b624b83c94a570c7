//! Who serves next: the scheduler interface, and one file per algorithm.
//!
//! To add one, write its file and its line in `registry.rs`. A scheduler
//! chooses among the candidates; it never sees or changes anything else.

pub mod competitive;
pub mod fifo;
pub mod registry;
pub mod round_robin;
pub mod scheduler;
