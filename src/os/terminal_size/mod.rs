//! How large the terminal on standard output is.
//!
//! Required items of a back end: `get`.

#[cfg_attr(unix, path = "ioctl.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod mechanism;

/// Columns and rows; none where there is no terminal, or it does not say.
pub fn get() -> Option<(usize, usize)> {
    mechanism::get().filter(|(columns, rows)| *columns > 0 && *rows > 0)
}
