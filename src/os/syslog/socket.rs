//! The datagram socket of syslogd, RFC 3164 as every libc speaks it.

use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

/// A sender of log lines. A line that syslogd does not take at once is lost:
/// the log must never hold the work up.
#[derive(Default)]
pub struct Syslog {
    socket: Mutex<Option<UnixDatagram>>,
}

const PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const DAEMON: u8 = 3 << 3;

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    PATHS.iter().any(|path| socket.connect(path).is_ok()).then_some(socket)
}

impl Syslog {
    /// Sends one line of this severity (0 the gravest, 7 debugging).
    pub fn send(&self, severity: u8, text: &str) {
        // Without a time: syslogd takes its own.
        let line = format!("<{}>pegasus[{}]: {text}", DAEMON | (severity & 7), std::process::id());
        let Ok(mut socket) = self.socket.lock() else { return };
        for _ in 0..2 {
            if socket.is_none() {
                *socket = connect();
            }
            match socket.as_ref().map(|socket| socket.send(line.as_bytes())) {
                Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    *socket = None
                }
                _ => return,
            }
        }
    }
}
