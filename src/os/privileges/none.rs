//! A system whose users are not changed like that.

use std::io;

/// Always refused.
///
/// # Errors
/// Always.
pub fn check_user(_: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such users"))
}

/// Always refused.
///
/// # Errors
/// Always.
pub fn become_user(wanted: &str) -> io::Result<()> {
    check_user(wanted)
}
