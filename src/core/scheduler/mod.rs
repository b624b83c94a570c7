//! How a provider is chosen: the scheduler interface, and one file per algorithm.
//!
//! A new scheduler is its file, its `mod` line and its row in `registry.rs`. A scheduler
//! chooses among candidates; it cannot change anything else.

// The interface, and what algorithms share.
pub mod interface;
pub mod key_index;
pub mod load_index;
pub mod registry;
pub mod rotation;

// The algorithms.
pub mod competitive;
pub mod fifo;
pub mod first;
pub mod least_loaded;
pub mod never_queue;
pub mod random_two;
pub mod round_robin;
pub mod shortest_delay;
pub mod source_hash;
pub mod weighted;
