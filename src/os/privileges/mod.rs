//! The user that this process becomes once its ports are bound.
//!
//! # Required items
//!
//! A back end supplies, for `USER` or `USER:GROUP`, names or numbers:
//!
//! - `fn check_user(&str) -> io::Result<()>`: whether this host has them.
//! - `fn become_user(&str) -> io::Result<()>`: becomes them for good.
//!
//! Another one, on Linux:
//!
//! - `fn restrict() -> io::Result<()>`: gives up what the program never needs. Called before
//!   any thread starts, and not where commands are configured: they may need it.

#[cfg_attr(unix, path = "setuid.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod backend;
#[cfg(unix)]
pub(super) use backend::ids;
pub use backend::{become_user, check_user};

#[cfg_attr(pegasus_linux, path = "linux_restrict.rs")]
#[cfg_attr(not(pegasus_linux), path = "no_restrict.rs")]
mod restriction;
pub use restriction::restrict;
