//! Reports to the service manager that this process is ready.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn ready()`: reports it, where a manager asked for that.

#[cfg_attr(unix, path = "systemd.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
pub use backend::ready;
