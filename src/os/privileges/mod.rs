//! The user that this process becomes once its ports are bound.
//!
//! # Required items
//!
//! A back end supplies, for `USER` or `USER:GROUP`, names or numbers:
//!
//! - `fn check_user(&str) -> io::Result<()>`: whether this host has them.
//! - `fn become_user(&str) -> io::Result<()>`: becomes them for good.

#[cfg_attr(unix, path = "setuid.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
#[cfg(unix)]
pub(super) use backend::ids;
pub use backend::{become_user, check_user};
