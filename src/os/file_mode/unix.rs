//! The mode of `stat(2)`.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;

/// What others may have no part of: all of theirs, and the group's but to read.
const CLOSED: u32 = 0o037;

/// The mode of a file that others can read, or that more than its owner can change.
///
/// # Errors
/// Returns the OS error.
pub fn too_open(file: &File) -> io::Result<Option<u32>> {
    let metadata = file.metadata()?;
    // What is no file has another place to be kept from others: a pipe, for example.
    let mode = metadata.permissions().mode() & 0o777;
    Ok(Some(mode).filter(|mode| metadata.is_file() && mode & CLOSED != 0))
}
