//! Output of commands for people and scripts.
//!
//! Owns standard output and standard error, except for the log. A closed pipe, as with
//! `| head`, is no error: the command just ends.

use super::exit;
use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line on standard output; ends the process if that is closed.
pub fn print_line(line: impl Display) {
    if writeln!(io::stdout().lock(), "{line}").is_err() {
        std::process::exit(exit::OK);
    }
}

/// Prints a line on standard error, and ignores a failure to do so.
pub fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
