//! Ends a command together with all that it started.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn separate(&mut Command)`: called before the start, makes the tree one that can be ended.
//! - `fn end(&mut Child)`: kills the tree, and reaps the child.

#[cfg_attr(unix, path = "group.rs")]
#[cfg_attr(not(unix), path = "alone.rs")]
mod backend;
pub use backend::{end, separate};
