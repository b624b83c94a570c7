//! Connections to a program by the path of its socket, or by its host and port.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn connect_path(path: &str, timeout: Duration) -> io::Result<Box<dyn Stream>>`: a
//!   connection to the socket of this path, of which no read or write takes longer.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "none.rs")]
mod mechanism;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is written to and read from.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Connects to a path, which has a slash, or to `HOST:PORT`.
///
/// # Errors
/// Returns the OS error.
pub fn connect(target: &str) -> io::Result<Box<dyn Stream>> {
    if target.contains(['/', '\\']) {
        return mechanism::connect_path(target, TIMEOUT);
    }
    let stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(Box::new(stream))
}
