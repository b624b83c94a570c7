//! May others read or change this file?
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn too_open(file: &File) -> io::Result<Option<u32>>`: the mode of a file that others can
//!   read, or that more than its owner can change; none where that is not so, or not known.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::too_open;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::too_open;
