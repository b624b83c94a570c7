//! What commands print for people and scripts.
//!
//! Owns standard output and standard error, as far as they are not the log's.
//! A reader that left, as with `| head`, is no error: the command just ends.

use super::exit;
use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line on standard output, or ends the process if nobody reads it.
pub fn print_line(line: impl Display) {
    if writeln!(io::stdout().lock(), "{line}").is_err() {
        std::process::exit(exit::OK);
    }
}

/// Prints a line on standard error, if anybody reads it.
pub fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
