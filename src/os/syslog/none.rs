//! A system without syslog.

use std::io;

/// Takes no line.
#[derive(Default)]
pub struct Syslog;

impl Syslog {
    /// Nothing to send to.
    ///
    /// # Errors
    /// Always `Unsupported`.
    pub fn send(&mut self, _severity: u8, _text: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
