//! Datagram sockets: the address that a datagram was sent to, answers that leave from it,
//! and errors of datagrams that did not arrive.
//!
//! # Required items
//!
//! A back end supplies, for sockets that clients send to:
//!
//! - `fn prepare(&UdpSocket) -> bool`: returns whether [`receive`] reports the local address.
//! - `fn receive(..)`, `fn send(..)`: one datagram, with its local address.
//! - `fn send_many(..) -> usize`: the first of these datagrams in one call; returns how many
//!   were sent. 0 where there is no such call.
//!
//! And for sockets that lead to providers:
//!
//! - `fn prepare_upstream(&UdpSocket, SocketAddr) -> bool`: returns whether the socket reports
//!   unreachable providers although it is not connected.
//! - `fn clear_errors(&UdpSocket)`: discards what the system keeps about such errors.

#[cfg_attr(pegasus_linux, path = "pktinfo.rs")]
#[cfg_attr(not(pegasus_linux), path = "plain.rs")]
mod backend;
use backend::send_many;
pub use backend::{clear_errors, prepare, prepare_upstream, receive, send};

use mio::net::UdpSocket;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// The longest datagram, in bytes, and one more.
pub const DATAGRAM_BYTES: usize = 64 * 1024;

/// WSAENETRESET of Windows: a datagram expired on its way.
const WINDOWS_NET_RESET: i32 = 10_052;

/// Whether an error of a datagram socket means that a datagram did not reach its destination.
pub fn is_unreachable(error: &Error) -> bool {
    let lost_on_windows = cfg!(windows) && error.raw_os_error() == Some(WINDOWS_NET_RESET);
    lost_on_windows
        || matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        )
}

/// A datagram, where to, and from which address of ours.
struct OutDatagram<'a> {
    bytes: &'a [u8],
    to: SocketAddr,
    from: Option<IpAddr>,
}

/// Datagrams that may be sent in one call.
const OUT_DATAGRAMS_MAX: usize = 64;
/// Bytes of them.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// Datagrams that leave together.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// Where each one's bytes end.
    datagrams: Vec<(usize, SocketAddr, Option<IpAddr>)>,
}

impl Outgoing {
    /// Adds one, to be sent to an address, from one of ours.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) {
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((self.bytes.len(), to, from));
    }

    /// Whether they should leave before another one is added.
    pub fn full(&self) -> bool {
        self.datagrams.len() >= OUT_DATAGRAMS_MAX || self.bytes.len() >= OUT_BYTES_MAX
    }

    /// Sends them all, in order. Calls `failed` for each that could not be sent.
    pub fn send(&mut self, socket: &UdpSocket, mut failed: impl FnMut(SocketAddr, Error)) {
        let datagram = |at: usize| {
            let (end, to, from) = self.datagrams[at];
            let start = at.checked_sub(1).map_or(0, |before| self.datagrams[before].0);
            OutDatagram { bytes: &self.bytes[start..end], to, from }
        };
        let count = self.datagrams.len();
        let mut next = 0;
        while next < count {
            if count - next > 1 {
                next += send_many(socket, &mut (next..count).map(datagram));
            }
            if next < count {
                // A single one, or one that could not be sent with the others.
                let OutDatagram { bytes, to, from } = datagram(next);
                send(socket, bytes, to, from).unwrap_or_else(|error| failed(to, error));
                next += 1;
            }
        }
        self.bytes.clear();
        self.datagrams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_leave_in_order_and_one_that_fails_delays_no_other() {
        let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&ours);
        let ours = UdpSocket::from_std(ours);
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let address = client.local_addr().unwrap();
        let mut outgoing = Outgoing::default();
        for round in 0..2u8 {
            let texts =
                [&[round, 1][..], b"", &[round, 2], &[round; 9000], b"lost", &[round, 3], b"lost"];
            for text in texts {
                // No socket can have this port.
                let to = if text == b"lost" { SocketAddr::new(address.ip(), 0) } else { address };
                outgoing.push(text, to, None);
            }
            let mut failed = 0;
            outgoing.send(&ours, |to, _| failed += usize::from(to.port() == 0));
            assert_eq!(failed, 2);
            for text in texts.into_iter().filter(|text| text != b"lost") {
                let mut buffer = [0; 10_000];
                let count = client.recv(&mut buffer).unwrap();
                assert!(buffer[..count] == *text, "{text:?}");
            }
        }
        let mut failed = 0;
        outgoing.send(&ours, |_, _| failed += 1);
        assert_eq!(failed, 0);
    }

    #[test]
    fn it_is_full_before_it_grows() {
        for (bytes, most) in
            [(&[0; 10][..], OUT_DATAGRAMS_MAX), (&[0; 30_000], 3), (&[0; DATAGRAM_BYTES], 1)]
        {
            let mut outgoing = Outgoing::default();
            while !outgoing.full() {
                outgoing.push(bytes, "127.0.0.1:9".parse().unwrap(), None);
            }
            assert_eq!(outgoing.datagrams.len(), most);
        }
    }

    #[test]
    fn errors_that_mean_unreachable() {
        // Windows reports a refused datagram as 10054, WSAECONNRESET.
        for (kind, says) in [
            (ErrorKind::ConnectionRefused, true),
            (ErrorKind::ConnectionReset, true),
            (ErrorKind::HostUnreachable, true),
            (ErrorKind::NetworkUnreachable, true),
            (ErrorKind::WouldBlock, false),
            (ErrorKind::Interrupted, false),
            (ErrorKind::OutOfMemory, false),
            (ErrorKind::PermissionDenied, false),
        ] {
            assert_eq!(is_unreachable(&kind.into()), says, "{kind:?}");
        }
        if cfg!(windows) {
            assert!([10_052, 10_054]
                .into_iter()
                .all(|code| is_unreachable(&Error::from_raw_os_error(code))));
        }
    }
}
