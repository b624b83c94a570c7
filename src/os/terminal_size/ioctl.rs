//! The terminal driver knows.

/// Columns and rows.
pub(super) fn get() -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills in the structure that it is given, which lives until then.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}
