//! A system without process groups: the child alone.

use std::process::{Child, Command};

/// Nothing to prepare.
pub fn separate(_: &mut Command) {}

/// Ends a command.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
