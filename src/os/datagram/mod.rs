//! Which address was a datagram sent to, how does an answer leave from it, and
//! who hears that nobody takes what was sent?
//!
//! A system answers with [`prepare`], [`receive`], [`send`] and `send_many` for
//! sockets that clients come to, and with [`prepare_upstream`] and
//! [`clear_errors`] for those that lead to providers.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod pktinfo;
#[cfg(any(target_os = "linux", target_os = "android"))]
use pktinfo::send_many;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use pktinfo::{clear_errors, prepare, prepare_upstream, receive, send};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod plain;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use plain::send_many;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use plain::{clear_errors, prepare, prepare_upstream, receive, send};

use mio::net::UdpSocket;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// The longest datagram, in bytes, and one more.
pub const DATAGRAM_BYTES: usize = 64 * 1024;

/// What Windows says (WSAENETRESET) where a datagram was on its way for too long.
const WINDOWS_NET_RESET: i32 = 10_052;

/// Whether an error of a datagram socket says that nobody takes what was sent.
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

    /// Sends them all, in their order. Tells `failed` of each that could not be.
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
    fn what_leaves_together_arrives_in_order_and_one_that_cannot_holds_nobody_up() {
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
                // Nobody can be at this port.
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
    fn what_says_that_nobody_is_there() {
        // Windows tells of a datagram that nobody took with 10054, WSAECONNRESET.
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
