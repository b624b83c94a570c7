//! A manager that controls services by calls, as Windows has.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn run(main) -> i32`: runs `main` under the manager, if there is one; returns its status.
//! - `fn ready()`: reports that this service is ready.
//! - `fn is_managed() -> bool`: whether the manager started this process.

#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(windows), path = "none.rs")]
mod backend;
pub use backend::{is_managed, ready, run};
