//! A connection of this host to itself, for tests.

use mio::net::TcpStream;
use std::net::TcpListener;
use std::time::Duration;

/// No read of the other end takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An end for the event loop, and its other end, of which reads and writes wait.
pub fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_nonblocking(true).unwrap();
    let theirs = listener.accept().unwrap().0;
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (TcpStream::from_std(ours), theirs)
}
