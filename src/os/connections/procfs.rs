//! The kernel's table of sockets.

use crate::os::socket_table::{for_each, ESTABLISHED};

/// The number of established connections to these local ports. Reads a line for each socket
/// of the host, which may take some time.
pub fn established(ports: &[u16]) -> Option<u64> {
    let mut datagram_sockets = 0;
    for table in ["udp", "udp6"] {
        for_each(table, |socket| datagram_sockets += usize::from(ports.contains(&socket.port)));
    }
    if datagram_sockets > 0 {
        return None;
    }
    let mut count = 0;
    let mut count_established = |table| {
        for_each(table, |socket| {
            let counts = ports.contains(&socket.port) && socket.state == ESTABLISHED;
            count += u64::from(counts);
        })
    };
    count_established("tcp")?;
    count_established("tcp6");
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

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
