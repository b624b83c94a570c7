//! `recvmsg` and `sendmsg` with `IP_PKTINFO` and `IPV6_PKTINFO`; `IP_RECVERR`.

use super::OutDatagram;
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

/// Room for one address with its head, aligned as the head must be.
#[repr(C, align(8))]
struct CmsgBuffer([u8; 64]);

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

/// Makes an unconnected socket report datagrams that were refused. Returns whether it does
/// for this destination.
pub fn prepare_upstream(socket: &UdpSocket, to: SocketAddr) -> bool {
    // Of a mapped address a socket of IPv6 hears by the option of IPv4.
    let v4 = set(socket, libc::IPPROTO_IP, libc::IP_RECVERR, ON);
    if to.is_ipv4() { v4 } else { set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, ON) }.is_ok()
}

/// Discards the details of errors that a [prepared](prepare_upstream) socket keeps.
/// `recv` and `send` have already returned the errors.
pub fn clear_errors(socket: &UdpSocket) {
    loop {
        // SAFETY: zero is a valid message: no room for anything.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        // SAFETY: the message lives for the call and leads nowhere.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE) } < 0 {
            return;
        }
    }
}

/// Takes a datagram: its length, who sent it, and which address of ours it was
/// sent to.
///
/// # Errors
/// Returns the OS error.
pub fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = CmsgBuffer([0; 64]);
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
    Ok((count, from, destination(&message)))
}

/// The local address of a datagram. For a group, from which no answer can come, it is the
/// address of the interface.
fn destination(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the message was filled by recvmsg and its control bytes still live;
    // the macros stay inside of the length that it tells.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            let data = libc::CMSG_DATA(head);
            match ((*head).cmsg_level, (*head).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    return (!ip.is_multicast()).then_some(ip.into());
                }
                _ => head = libc::CMSG_NXTHDR(message, head),
            }
        }
    }
    None
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
        MsgBuffers { part, sockaddr: to.into(), control: CmsgBuffer([0; 64]) }
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
            let (count, peer, to) = receive(&ours, &mut buffer).unwrap();
            assert_eq!(
                (&buffer[..count], to.map(|to| to.to_canonical())),
                (&b"question"[..], Some(address.ip()))
            );
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
    fn an_unconnected_socket_reports_a_refused_datagram() {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ours = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(prepare_upstream(&ours, gone));
        ours.send_to(b"hello", gone).unwrap();
        let error = ours.recv_from(&mut [0; 10]).unwrap_err();
        assert!(super::super::is_unreachable(&error), "{error}");
        // Until it is forgotten an event tells of it again and again.
        let mut poll = Poll::new().unwrap();
        let mut ours = ours;
        let mut events = Events::with_capacity(1);
        udp_interest::register_readable(poll.registry(), &mut ours, Token(0)).unwrap();
        for forgotten in [false, false, true] {
            if forgotten {
                clear_errors(&ours);
            }
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert_eq!(events.is_empty(), forgotten);
        }
    }
}
