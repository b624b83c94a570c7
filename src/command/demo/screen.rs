//! Where tables go. Owns the place of the last one.

use crate::command::terminal::print_line;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Where the table goes: in place on a terminal, else line after line.
#[derive(Default)]
pub struct Screen {
    /// Lines of the table that is shown.
    pub lines: usize,
}

impl Screen {
    /// Between two tables.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(if io::stdout().is_terminal() { 500 } else { 1000 })
    }

    /// Shows a table.
    pub fn show(&mut self, table: &[String]) {
        let mut text = String::new();
        if io::stdout().is_terminal() && self.lines > 0 {
            // Up to where it stood, and away with all that is below.
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines));
        }
        text.push_str(&table.join("\n"));
        print_line(text);
        self.lines = table.len();
    }
}
