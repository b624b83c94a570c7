//! Sockets in states that the standard library cannot create.

use super::PATIENCE;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Returns a connection whose calls time out after [`PATIENCE`].
#[track_caller]
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Returns the two ends of a TCP connection: the client's and the server's.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = connect(listener.local_addr().unwrap());
    (client, listener.accept().unwrap().0)
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    set(&stream, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Sends one byte as urgent data.
#[track_caller]
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    // SAFETY: one byte is read, from where it stands.
    let sent =
        unsafe { libc::send(stream.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1, "{}", io::Error::last_os_error());
}

/// A listener on all IPv6 addresses and no IPv4 one, if this host has IPv6.
pub fn listen_v6_only() -> Option<TcpListener> {
    // SAFETY: the descriptor is new and owned by nothing else.
    let socket = unsafe {
        let descriptor = libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if descriptor < 0 {
            crate::support::skip("this host has no IPv6");
            return None;
        }
        TcpListener::from_raw_fd(descriptor)
    };
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1_i32);
    // SAFETY: a plain call on an open descriptor: it binds to a free port.
    let done = unsafe { libc::listen(socket.as_raw_fd(), 1) };
    (done == 0).then_some(socket)
}

/// Makes a socket deaf: no packet reaches it any more, as if its host were gone.
#[track_caller]
pub fn deafen(stream: &TcpStream) {
    // A filter of one step, which lets nothing through.
    let mut drop_all =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
    set(stream, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program);
}

#[track_caller]
fn set<T>(socket: &impl AsRawFd, level: i32, option: i32, value: T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the option has the size that is given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Buffer sizes of a socket, in bytes. The send buffer that its peer gets depends on
/// the segment size.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub send: i32,
    pub receive: i32,
    pub segment: i32,
}

/// Sets the buffer sizes of a socket before it connects or listens; accepted sockets
/// inherit them.
#[track_caller]
pub fn furnish(socket: &impl AsRawFd, room: Room) {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, room.send);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, room.receive);
    set(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, room.segment);
}

/// Returns a connection with buffers of this size from its first packet on.
#[track_caller]
pub fn connect_with(to: SocketAddrV4, room: Room) -> TcpStream {
    let stream = unconnected();
    furnish(&stream, room);
    finish_connect(stream, to)
}

/// A client's connection from this address of the host.
#[track_caller]
pub fn connect_from(source: Ipv4Addr, to: SocketAddrV4) -> TcpStream {
    let stream = unconnected();
    let (place, length) = address(SocketAddrV4::new(source, 0));
    // SAFETY: the address is of the size that is told.
    let done = unsafe { libc::bind(stream.as_raw_fd(), (&raw const place).cast(), length) };
    assert_eq!(done, 0, "{source}: {}", io::Error::last_os_error());
    finish_connect(stream, to)
}

/// Whether a listener can have this port at every address of this host. It does not listen to
/// find that out: a child of another thread has a copy of each descriptor until it executes its
/// program, and clients would come to that copy.
pub fn is_free(port: u16) -> bool {
    let socket = unconnected();
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1_i32);
    let (place, length) = address(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    // SAFETY: the address is of the size that is told.
    unsafe { libc::bind(socket.as_raw_fd(), (&raw const place).cast(), length) == 0 }
}

/// A socket of which nothing is asked yet.
#[track_caller]
fn unconnected() -> TcpStream {
    // SAFETY: the descriptor is new and of this stream alone.
    unsafe {
        let descriptor = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(descriptor >= 0, "{}", io::Error::last_os_error());
        TcpStream::from_raw_fd(descriptor)
    }
}

fn address(place: SocketAddrV4) -> (libc::sockaddr_in, libc::socklen_t) {
    let place = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: place.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(place.ip().octets()) },
        sin_zero: [0; 8],
    };
    (place, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

#[track_caller]
fn finish_connect(stream: TcpStream, to: SocketAddrV4) -> TcpStream {
    let (place, length) = address(to);
    // SAFETY: the address is of the size that is told.
    let done = unsafe { libc::connect(stream.as_raw_fd(), (&raw const place).cast(), length) };
    assert_eq!(done, 0, "{to}: {}", io::Error::last_os_error());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Returns a listener whose backlog is full: the system drops every further connect.
pub struct Deaf {
    pub address: SocketAddr,
    _listener: TcpListener,
    _full: Vec<TcpStream>,
}

impl Deaf {
    pub fn start() -> Deaf {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // SAFETY: the descriptor is that of an open listening socket.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let call = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let full = (0..4).filter_map(call).collect();
        Deaf { address, _listener: listener, _full: full }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer closed the connection.
    Fin,
    /// The peer reset the connection.
    Reset,
}

/// Reads to the end; returns the bytes and how the connection ended.
#[track_caller]
pub fn drain(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, End::Fin),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return (bytes, End::Reset)
            }
            // A read with a timeout is interrupted when the process was stopped for a
            // moment.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("after {} bytes: {error}", bytes.len()),
        }
    }
}

/// Raises the limit of descriptors as far as this process may; returns the limit.
pub fn raise_descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid structure.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0
            && limit.rlim_cur < limit.rlim_max
        {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Sends packets to this host whose headers a test writes itself.
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Nothing if this user may not have one.
    pub fn open(protocol: libc::c_int) -> Option<RawSocket> {
        // SAFETY: no memory is involved.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, protocol) };
        if socket < 0 {
            crate::support::skip("a raw socket needs CAP_NET_RAW");
            return None;
        }
        // SAFETY: the descriptor is new and owned by nothing else.
        Some(RawSocket(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    /// Sends what follows the IP header.
    #[track_caller]
    pub fn send(&self, bytes: &[u8]) {
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: the bytes and the address live for the call and have these lengths.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        assert_eq!(sent, bytes.len() as isize, "{}", io::Error::last_os_error());
    }
}
