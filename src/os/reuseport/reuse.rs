//! `SO_REUSEPORT` of Linux 3.9, `SO_REUSEADDR` elsewhere. The first socket of a
//! address is bound without it: that the address is free is found out as ever.

use crate::os::sockaddr::SockAddr;
use crate::os::socket::is_dual_stack;
use crate::os::sockopt::set;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// BSD needs it of the second socket only, and for other addresses of the port;
/// Linux of both, where this is the one of which both must be one user's.
#[cfg(pegasus_linux)]
const SHARED: libc::c_int = libc::SO_REUSEPORT;
#[cfg(not(pegasus_linux))]
const SHARED: libc::c_int = libc::SO_REUSEADDR;

/// Opens one more socket at the address of this one. Which of them a client's
/// datagrams come to changes only where sockets are opened or closed there.
///
/// # Errors
/// Returns the OS error: another user opened the first, or the system is too old.
#[cfg(pegasus_linux)]
pub fn bind_shard(first: &UdpSocket) -> io::Result<UdpSocket> {
    bind_address(first, first.local_addr()?)
}

/// Opens a socket at one address of this host, beside one of all its addresses.
/// What is sent to that address comes to the new one.
///
/// # Errors
/// Returns the OS error: the address is in use, or the system is too old.
pub fn bind_address(first: &impl AsRawFd, address: SocketAddr) -> io::Result<UdpSocket> {
    set(first, libc::SOL_SOCKET, SHARED, 1)?;
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // A program that another thread starts now must not have it.
    #[cfg(pegasus_linux)]
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    #[cfg(not(pegasus_linux))]
    let kind = libc::SOCK_DGRAM;
    // SAFETY: no memory is involved.
    let socket = unsafe { libc::socket(family, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    set(&socket, libc::SOL_SOCKET, SHARED, 1)?;
    if address.is_ipv6() {
        set(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            libc::c_int::from(!is_dual_stack(first)),
        )?;
    }
    let sockaddr = SockAddr::from(address);
    let (pointer, length) = sockaddr.as_parts();
    // SAFETY: the sockaddr lives for the call, and says how long it is.
    if unsafe { libc::bind(socket.as_raw_fd(), pointer, length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::SocketAddr;

    #[test]
    fn what_is_sent_to_an_address_comes_to_its_own_socket() {
        for (all, ip) in [("0.0.0.0:0", "127.0.0.5"), ("[::]:0", "127.0.0.5"), ("[::]:0", "::1")] {
            let Ok(first) = UdpSocket::bind(all) else { continue };
            let port = first.local_addr().unwrap().port();
            let address = SocketAddr::new(ip.parse().unwrap(), port);
            let own = bind_address(&first, address).unwrap();
            own.set_nonblocking(false).unwrap();
            let client =
                UdpSocket::bind((if address.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            client.send_to(b"own", address).unwrap();
            let (count, from) = own.recv_from(&mut [0; 10]).unwrap();
            assert_eq!((count, from), (3, client.local_addr().unwrap()), "{all} {ip}");
            if address.is_ipv4() {
                client.send_to(b"all", ("127.0.0.1", port)).unwrap();
                assert_eq!(first.recv(&mut [0; 10]).unwrap(), 3);
            }
        }
    }

    #[test]
    #[cfg(pegasus_linux)]
    fn clients_are_divided_and_each_stays_where_it_was() {
        for (address, to) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let Ok(first) = UdpSocket::bind(address) else { continue };
            first.set_nonblocking(true).unwrap();
            let address = first.local_addr().unwrap();
            let sockets = [bind_shard(&first).unwrap(), bind_shard(&first).unwrap(), first];
            // A socket without the option cannot share the address.
            assert_eq!(UdpSocket::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            let to = SocketAddr::new(to.parse().unwrap(), address.port());
            let from = SocketAddr::new(to.ip(), 0);
            let clients: Vec<UdpSocket> = (0..60).map(|_| UdpSocket::bind(from).unwrap()).collect();
            let mut met = HashSet::new();
            for _ in 0..3 {
                for client in &clients {
                    client.send_to(b"?", to).unwrap();
                }
                for (number, socket) in sockets.iter().enumerate() {
                    while let Ok((_, from)) = socket.recv_from(&mut [0; 10]) {
                        met.insert((from.port(), number));
                    }
                }
            }
            assert_eq!(met.len(), clients.len(), "each client meets one socket");
            let used: HashSet<usize> = met.iter().map(|(_, number)| *number).collect();
            assert_eq!(used.len(), sockets.len(), "{address}: all are met");
        }
    }
}
