//! Connections to a program by the path of its socket, or by its host and port.
//!
//! A back end has: `connect_path`, a connection to the socket of this path.

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
