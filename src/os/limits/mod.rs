//! The limit of open descriptors.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn raise() -> Option<u64>`: raises the limit as far as this process may, and returns it.
//!   `None`: no limit.

#[cfg_attr(unix, path = "rlimit.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
pub use backend::raise;
