//! `recvmsg` and `sendmsg` with `IP_PKTINFO` and `IPV6_PKTINFO`; `IP_RECVERR`.

use super::{is_unreachable, OutDatagram, Received};
use crate::os::sockaddr::{self, SockAddr};
use crate::os::sockopt::set;
use mio::net::UdpSocket;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::ptr;

/// The receive buffer of a socket that clients send to, in bytes as the system counts them:
/// some thousand short datagrams.
const RECEIVE_BYTES: libc::c_int = 4 << 20;

const ON: libc::c_int = 1;

/// Room for an address of each family with its head, aligned as the head must be.
#[repr(C, align(8))]
struct CmsgBuffer([u8; CMSG_BYTES]);
const CMSG_BYTES: usize = 128;

/// Makes the system tell where each datagram was sent to, if that is not known,
/// and keep more of them than usual. Whether it is known where each was sent to.
pub fn prepare(socket: &std::net::UdpSocket) -> bool {
    let enabled = match socket.local_addr() {
        Ok(local) if local.ip().is_unspecified() => {
            // An IPv6 socket may serve both families, and needs both options then.
            let enabled = set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, ON);
            let enabled_v6 = set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, ON);
            if local.is_ipv4() { enabled } else { enabled_v6 }.is_ok()
        }
        _ => true,
    };
    // The first may be cut by net.core.rmem_max, the second is for root only.
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BYTES);
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BYTES);
    enabled
}

/// Makes the system keep who refused a datagram, and which one.
pub fn prepare_upstream(socket: &UdpSocket, to: SocketAddr) {
    // Of a mapped address a socket of IPv6 hears by the option of IPv4. A system that has
    // neither reports no errors, and dead providers are found by their monitors.
    let _ = set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, ON);
    if to.is_ipv6() {
        let _ = set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, ON);
    }
}

/// Empties the error queue of a [prepared](prepare_upstream) socket. Returns how many
/// datagrams to `to` were refused by that host itself. What routers say is no proof.
/// `error`: one that a connected socket returned. Without an entry in the queue the system
/// has no such queue, and a refusal is believed as elsewhere.
pub fn take_refusals(socket: &UdpSocket, to: SocketAddr, error: Option<&io::Error>) -> usize {
    let mut refusals = 0;
    let mut entries = 0;
    let mut control = CmsgBuffer([0; CMSG_BYTES]);
    loop {
        // SAFETY: zero is a valid start for both structures, which are filled by the call.
        let (mut sockaddr, mut message): (libc::sockaddr_storage, libc::msghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        message.msg_name = (&raw mut sockaddr).cast();
        message.msg_namelen = mem::size_of_val(&sockaddr) as libc::socklen_t;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: every pointer leads to something that is ours, lives for the call, and
        // has the given length.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE) } < 0 {
            let refused = error.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            return refusals + usize::from(entries == 0 && refused);
        }
        entries += 1;
        // SAFETY: the storage holds an address of any family, and was filled.
        let sent_to = unsafe { sockaddr::read((&raw const sockaddr).cast()) };
        let same = |address: SocketAddr| {
            address.ip().to_canonical() == to.ip().to_canonical() && address.port() == to.port()
        };
        let refused = refused_by(&message).map(|ip| ip.to_canonical());
        refusals +=
            usize::from(sent_to.is_some_and(same) && refused == Some(to.ip().to_canonical()));
    }
}

/// The host that reports in this message that a datagram did not reach it.
fn refused_by(message: &libc::msghdr) -> Option<IpAddr> {
    const ICMP_ORIGINS: [u8; 2] = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6];
    // SAFETY: the message was filled by recvmsg and its control bytes still live. The
    // macros stay inside of the length that it tells. An address follows the error there.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            let kind = ((*head).cmsg_level, (*head).cmsg_type);
            if [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)]
                .contains(&kind)
            {
                let data = libc::CMSG_DATA(head);
                let error: libc::sock_extended_err = ptr::read_unaligned(data.cast());
                let number = io::Error::from_raw_os_error(error.ee_errno as i32);
                if !ICMP_ORIGINS.contains(&error.ee_origin) || !is_unreachable(&number) {
                    return None;
                }
                let offender = data.add(mem::size_of::<libc::sock_extended_err>());
                return sockaddr::read(offender.cast()).map(|address| address.ip());
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
    None
}

/// Takes a datagram, with its local address.
///
/// # Errors
/// Returns the OS error.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = CmsgBuffer([0; CMSG_BYTES]);
    // SAFETY: zero is a valid start for both structures, which are filled by the call.
    let (mut sockaddr, mut message): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    message.msg_name = (&raw mut sockaddr).cast();
    message.msg_namelen = mem::size_of_val(&sockaddr) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer leads to something that is ours, lives for the call,
    // and has the given length.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the storage holds an address of any family, and was filled.
    let from = unsafe { sockaddr::read((&raw const sockaddr).cast()) }
        .ok_or(io::ErrorKind::InvalidData)?;
    let (local, to_group) = destination(&message);
    Ok(Received { count, from, local, to_group })
}

/// The local address of a datagram, and whether it was sent to a group or broadcast. No
/// reply can leave from such an address: the local one is that of the interface then.
fn destination(message: &libc::msghdr) -> (Option<IpAddr>, bool) {
    let mut local = None;
    let mut to_group = false;
    // SAFETY: the message was filled by recvmsg and its control bytes still live;
    // the macros stay inside of the length that it tells.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            let data = libc::CMSG_DATA(head);
            match ((*head).cmsg_level, (*head).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    let interface = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    to_group = info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr;
                    // A socket of IPv6 reports both, and needs the mapped form to reply.
                    local = Some(match local {
                        Some(IpAddr::V6(_)) => interface.to_ipv6_mapped().into(),
                        _ => interface.into(),
                    });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    to_group = ip.is_multicast();
                    local = (!to_group).then_some(ip.into());
                }
                _ => {}
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
    (local, to_group)
}

/// Sends a datagram from this address of ours, or from one that the system
/// chooses.
///
/// # Errors
/// Returns the OS error.
pub fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<()> {
    if from.is_none() {
        return socket.send_to(bytes, to).map(drop);
    }
    let mut buffers = MsgBuffers::new(bytes, to);
    let message = buffers.as_msghdr(from);
    // SAFETY: the buffers, to which every pointer leads, live for the call, which
    // reads only.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends datagrams in one call; the result is how many of the first ones were
/// sent. The next one could not be, for a reason that [`send`] tells.
pub fn send_many(socket: &UdpSocket, datagrams: &mut dyn Iterator<Item = OutDatagram>) -> usize {
    let datagrams: Vec<OutDatagram> = datagrams.collect();
    let mut buffers: Vec<MsgBuffers> =
        datagrams.iter().map(|datagram| MsgBuffers::new(datagram.bytes, datagram.to)).collect();
    let to_header = |(buffers, datagram): (&mut MsgBuffers, &OutDatagram)| libc::mmsghdr {
        msg_hdr: buffers.as_msghdr(datagram.from),
        msg_len: 0,
    };
    let mut messages: Vec<libc::mmsghdr> =
        buffers.iter_mut().zip(&datagrams).map(to_header).collect();
    // SAFETY: the buffers, to which every pointer leads, stay where they are and
    // live for the call, which writes nothing but the lengths of the messages.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as libc::c_uint, 0)
    };
    usize::try_from(sent).unwrap_or(0)
}

/// What a message header's pointers lead to. It must not move once its header was made.
struct MsgBuffers {
    part: libc::iovec,
    sockaddr: SockAddr,
    control: CmsgBuffer,
}

impl MsgBuffers {
    fn new(bytes: &[u8], to: SocketAddr) -> MsgBuffers {
        let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        MsgBuffers { part, sockaddr: to.into(), control: CmsgBuffer([0; CMSG_BYTES]) }
    }

    /// The message; its pointers lead into the buffers and to the bytes.
    fn as_msghdr(&mut self, from: Option<IpAddr>) -> libc::msghdr {
        // SAFETY: zero is a valid start; what counts is set below.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        let (sockaddr, length) = self.sockaddr.as_parts();
        // It is only read.
        (message.msg_name, message.msg_namelen) = (sockaddr.cast_mut().cast(), length);
        message.msg_iov = &raw mut self.part;
        message.msg_iovlen = 1;
        // SAFETY: the control bytes are aligned, and longer than either message in
        // them; zero is a valid start for what is put there.
        unsafe {
            match from {
                None => {}
                Some(IpAddr::V4(ip)) => {
                    let mut info: libc::in_pktinfo = mem::zeroed();
                    info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
                    message.msg_control = self.control.0.as_mut_ptr().cast();
                    push_cmsg(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
                }
                Some(IpAddr::V6(ip)) => {
                    let mut info: libc::in6_pktinfo = mem::zeroed();
                    info.ipi6_addr.s6_addr = ip.octets();
                    message.msg_control = self.control.0.as_mut_ptr().cast();
                    push_cmsg(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
                }
            }
        }
        message
    }
}

/// # Safety
/// The message's control pointer leads to as many aligned bytes as `info` and
/// its head need.
unsafe fn push_cmsg<T>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) {
    let length = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: the caller's promise.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(length) as _;
        let head = libc::CMSG_FIRSTHDR(message);
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        (*head).cmsg_len = libc::CMSG_LEN(length) as _;
        ptr::write_unaligned(libc::CMSG_DATA(head).cast(), info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::udp_interest;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    #[test]
    fn an_answer_leaves_from_where_the_question_came_to() {
        for (wildcard, asked, from) in [
            ("0.0.0.0:0", "127.0.0.5", "127.0.0.1:0"),
            ("[::]:0", "127.0.0.6", "127.0.0.1:0"),
            ("[::]:0", "::1", "[::1]:0"),
        ] {
            let Ok(ours) = std::net::UdpSocket::bind(wildcard) else { continue };
            prepare(&ours);
            let address =
                SocketAddr::new(asked.parse().unwrap(), ours.local_addr().unwrap().port());
            let ours = UdpSocket::from_std(ours);
            let Ok(client) = std::net::UdpSocket::bind(from) else { continue };
            client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            client.send_to(b"question", address).unwrap();
            let mut buffer = [0; 100];
            let Received { count, from: peer, local: to, to_group } =
                receive(&ours, &mut buffer).unwrap();
            assert_eq!(
                (&buffer[..count], to.map(|to| to.to_canonical())),
                (&b"question"[..], Some(address.ip()))
            );
            assert!(!to_group);
            send(&ours, b"answer", peer, to).unwrap();
            let datagrams =
                [b"second", b"third!"].map(|bytes| OutDatagram { bytes, to: peer, from: to });
            assert_eq!(send_many(&ours, &mut datagrams.into_iter()), 2);
            for text in [b"answer", b"second", b"third!"] {
                assert_eq!(
                    client.recv_from(&mut buffer).unwrap(),
                    (6, address),
                    "{wildcard} {asked}"
                );
                assert_eq!(&buffer[..6], text);
            }
        }
    }

    #[test]
    fn a_broadcast_is_answered_from_the_interface() {
        for wildcard in ["0.0.0.0:0", "[::]:0"] {
            let Ok(ours) = std::net::UdpSocket::bind(wildcard) else { continue };
            prepare(&ours);
            let port = ours.local_addr().unwrap().port();
            let ours = UdpSocket::from_std(ours);
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.set_broadcast(true).unwrap();
            client.send_to(b"question", ("127.255.255.255", port)).unwrap();
            let Received { from, local, to_group, .. } = receive(&ours, &mut [0; 100]).unwrap();
            assert!(to_group, "{wildcard}");
            send(&ours, b"answer", from, local).unwrap();
            let answer = client.recv_from(&mut [0; 100]).unwrap();
            assert_eq!(answer, (6, ([127, 0, 0, 1], port).into()), "{wildcard}");
        }
    }

    #[test]
    fn an_unconnected_socket_reports_a_refused_datagram() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ours = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        prepare_upstream(&ours, gone);
        ours.send_to(b"hello", gone).unwrap();
        let error = ours.recv_from(&mut [0; 10]).unwrap_err();
        assert!(super::super::is_unreachable(&error), "{error}");
        // Until it is forgotten an event tells of it again and again.
        let mut poll = Poll::new().unwrap();
        let mut ours = ours;
        let mut events = Events::with_capacity(1);
        udp_interest::register_readable(poll.registry(), &mut ours, Token(0)).unwrap();
        let stranger = SocketAddr::new(gone.ip(), 1);
        assert_eq!(take_refusals(&ours, stranger, None), 0);
        ours.send_to(b"hello", gone).unwrap();
        for forgotten in [false, false, true] {
            if forgotten {
                assert_eq!(take_refusals(&ours, gone, None), 1);
            }
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert_eq!(events.is_empty(), forgotten);
        }
    }
}
