//! `/proc/net/tcp` and its relatives: the sockets of this network namespace.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// TCP_ESTABLISHED of the kernel.
const ESTABLISHED: &str = "01";

/// The number of established connections to these local ports. Reads a line for each socket
/// of the host, which may take some time.
pub fn established(ports: &[u16]) -> Option<u64> {
    let is_ours = |port| ports.contains(&port);
    if sockets("/proc/net/udp", |port, _| is_ours(port)).unwrap_or(0)
        + sockets("/proc/net/udp6", |port, _| is_ours(port)).unwrap_or(0)
        > 0
    {
        return None;
    }
    let open = |port, state: &str| is_ours(port) && state == ESTABLISHED;
    // Without IPv6 there is no second file.
    Some(sockets("/proc/net/tcp", open)? + sockets("/proc/net/tcp6", open).unwrap_or(0))
}

/// The number of sockets in a file of which the local port and the state fit.
fn sockets(file: &str, fits: impl Fn(u16, &str) -> bool) -> Option<u64> {
    let mut lines = BufReader::with_capacity(1 << 16, File::open(file).ok()?);
    let (mut line, mut count) = (String::new(), 0);
    while lines.read_line(&mut line).ok()? > 0 {
        if socket(&line).is_some_and(|(port, state)| fits(port, state)) {
            count += 1;
        }
        line.clear();
    }
    Some(count)
}

/// The local port and the state of a socket.
fn socket(line: &str) -> Option<(u16, &str)> {
    // Number, local address, remote address, state.
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some((port, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn a_line_has_the_port_and_the_state() {
        let line = "   0: 0100007F:1F90 0200007F:A455 01 00000000:00000000 00:00000000 00000000";
        assert_eq!(socket(line), Some((8080, "01")));
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }

    /// A table that others change while it is read may tell of a socket twice or not at all.
    fn counts(port: u16, count: u64) -> bool {
        (0..100).any(|_| established(&[port]) == Some(count))
    }

    #[test]
    fn connections_are_counted_at_the_side_of_the_service() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(counts(port, 0));
        let clients: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        assert!(counts(port, 3));
        // Not those that the service's port is the other side of.
        let client = clients[0].local_addr().unwrap().port();
        assert!(counts(client, 1));
        // Clients of datagrams are not seen.
        let _datagrams = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        assert_eq!(established(&[port]), None);
    }
}
