//! The socket of syslogd, RFC 3164 as every libc speaks it: datagrams, or a stream.

use std::io::{self, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};

const PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const DAEMON: u8 = 3 << 3;

/// A sender of log lines, which connects when it must.
#[derive(Default)]
pub struct Syslog {
    connection: Option<Connection>,
}

enum Connection {
    Datagram(UnixDatagram),
    /// Some collectors (s6, syslog-ng) listen for streams, where a NUL ends each line.
    Stream(UnixStream),
}

impl Connection {
    fn open() -> io::Result<Connection> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for path in PATHS {
            let socket = UnixDatagram::unbound()?;
            match socket.connect(path) {
                Ok(()) => return Ok(Connection::Datagram(socket)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => last = error,
            }
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Connection::Stream(stream)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        match self {
            Connection::Datagram(socket) => socket.send(line.as_bytes()).map(drop),
            Connection::Stream(stream) => stream.write_all(format!("{line}\0").as_bytes()),
        }
    }
}

impl Syslog {
    /// Sends one line of this severity (0 the gravest, 7 debugging).
    ///
    /// # Errors
    /// Returns the OS error where there is no collector.
    pub fn send(&mut self, severity: u8, text: &str) -> io::Result<()> {
        // Without a time: the collector adds its own.
        let line = format!("<{}>pegasus[{}]: {text}", DAEMON | (severity & 7), std::process::id());
        if let Some(connection) = &mut self.connection {
            if connection.send(&line).is_ok() {
                return Ok(());
            }
            // The collector was restarted, perhaps.
            self.connection = None;
        }
        self.connection.insert(Connection::open()?).send(&line)
    }
}
