//! Output of commands for people and scripts.
//!
//! Owns standard output and standard error, except for the log. A closed pipe, as with
//! `| head`, is no error: the command just ends.

use super::exit;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes text on standard output.
///
/// # Errors
/// Returns the status to end with: that of success if the reader left, else that of an
/// output that cannot be written, after a message on standard error.
pub fn write_text(text: impl Display) -> Result<(), i32> {
    let mut stdout = io::stdout().lock();
    // What is buffered would be lost without an error at the end of the process.
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(exit::OK),
        Err(error) => {
            print_error(format_args!("pegasus: standard output: {error}"));
            Err(exit::OUTPUT)
        }
    }
}

/// Prints text on standard output, or ends the process.
pub fn print_text(text: impl Display) {
    write_text(text).unwrap_or_else(|status| std::process::exit(status));
}

/// Prints a line on standard output, or ends the process.
pub fn print_line(line: impl Display) {
    print_text(format_args!("{line}\n"));
}

/// Prints a line on standard error, if that is possible.
pub fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether the locale names UTF-8: the first of these variables that is set decides.
#[cfg(any(feature = "operate", feature = "demo"))]
pub fn shows_unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    set.is_some_and(|value| value.to_ascii_lowercase().replace('-', "").contains("utf8"))
}
