//! Writes the last bytes of a stream, so that its end can leave in the same packet.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn write_last(&mut TcpStream, &[u8]) -> io::Result<usize>`: how many bytes were taken. If
//!   these are all, the sending side is shut down next; they may wait for that.

#[cfg_attr(pegasus_linux, path = "more.rs")]
#[cfg_attr(not(pegasus_linux), path = "plain.rs")]
mod backend;
pub use backend::write_last;

/// The portable back end, so that the tests run both.
#[cfg(all(test, pegasus_linux))]
mod plain;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::loopback::pair;
    use mio::net::TcpStream;
    use std::io::{self, Read};
    use std::net::Shutdown;

    type WriteLast = fn(&mut TcpStream, &[u8]) -> io::Result<usize>;

    #[test]
    fn the_peer_gets_the_last_bytes_and_then_the_end() {
        #[cfg(pegasus_linux)]
        let backends: [WriteLast; 2] = [write_last, plain::write_last];
        #[cfg(not(pegasus_linux))]
        let backends: [WriteLast; 1] = [write_last];
        for write_last in backends {
            let (mut stream, mut peer) = pair();
            assert_eq!(write_last(&mut stream, b"farewell").unwrap(), 8);
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"farewell");
        }
    }

    #[test]
    fn a_peer_that_reads_nothing_takes_no_more() {
        let (mut stream, _peer) = pair();
        let most = 1 << 24;
        let mut taken = 0;
        let error = loop {
            match write_last(&mut stream, &[0; 1 << 16]) {
                Ok(count) if taken < most => taken += count,
                Ok(_) => panic!("{most} bytes taken"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    #[cfg(pegasus_linux)]
    fn the_last_bytes_wait_for_the_end() {
        // A pause of this process may last until the system sends them alone.
        let waited = (0..10).any(|_| {
            let (mut stream, peer) = pair();
            write_last(&mut stream, b"farewell").unwrap();
            peer.set_nonblocking(true).unwrap();
            peer.peek(&mut [0; 8]).is_err()
        });
        assert!(waited);
    }
}
