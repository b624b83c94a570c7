//! `setsockopt(2)`, `listen(2)` and `accept(2)`.

use super::BACKLOG;
use crate::os::sockopt::set;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// Makes the system find out when the peer is gone: a probe after a minute of
/// silence, then every ten seconds, three times (where these can be set).
pub fn keepalive(socket: &impl AsRawFd) {
    let on: libc::c_int = 1;
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, on);
    #[cfg(any(pegasus_linux, target_os = "freebsd", target_os = "netbsd", target_os = "illumos"))]
    for (name, value) in
        [(libc::TCP_KEEPIDLE, 60), (libc::TCP_KEEPINTVL, 10), (libc::TCP_KEEPCNT, 3)]
    {
        let value: libc::c_int = value;
        let _ = set(socket, libc::IPPROTO_TCP, name, value);
    }
}

/// How long the peer has sent no acknowledgement, if it owes one.
///
/// A peer that reads nothing answers each probe of its window, so this tells it
/// from a dead one. `TCP_USER_TIMEOUT` does not: it ends both.
#[cfg(pegasus_linux)]
pub fn unacknowledged_for(socket: &impl AsRawFd) -> Option<Duration> {
    /// The beginning of `struct tcp_info` in `linux/tcp.h`.
    #[repr(C)]
    #[derive(Default)]
    struct TcpInfo {
        state: u8,
        congestion_state: u8,
        retransmits: u8,
        probes: u8,
        others: [u8; 4],
        rto: u32,
        ato: u32,
        send_mss: u32,
        receive_mss: u32,
        unacked: u32,
        sacked: u32,
        lost: u32,
        retransmitted: u32,
        fackets: u32,
        last_data_sent: u32,
        last_ack_sent: u32,
        last_data_received: u32,
        last_ack_received: u32,
    }
    let mut info = TcpInfo::default();
    let mut length = std::mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: value and length are ours and of the right size. The system fills as
    // much as there is room for.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    let owes = info.unacked > 0 || info.probes > 0;
    (failed == 0 && owes).then(|| Duration::from_millis(info.last_ack_received.into()))
}

/// Not asked here.
#[cfg(not(pegasus_linux))]
pub fn unacknowledged_for(_: &impl AsRawFd) -> Option<Duration> {
    None
}

/// Keepalive, no delay and urgent data inline, which the sockets that are accepted
/// inherit: urgent data that came before this was set would be lost.
pub fn set_inherited_options(listener: &impl AsRawFd) {
    keepalive(listener);
    set_oob_inline(listener);
    let on: libc::c_int = 1;
    let _ = set(listener, libc::IPPROTO_TCP, libc::TCP_NODELAY, on);
}

/// A long backlog, and what accepted sockets [inherit](set_inherited_options).
///
/// # Errors
/// What `listen` says.
pub fn prepare_listener(socket: &impl AsRawFd) -> io::Result<()> {
    set_inherited_options(socket);
    // SAFETY: a second listen on a listening socket changes its backlog.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Urgent data (RFC 6093) is read where it stands among the other bytes.
pub fn set_oob_inline(socket: &impl AsRawFd) {
    let on: libc::c_int = 1;
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE, on);
}

/// Closing this socket will reset the connection instead of ending it.
pub fn reset_on_close(socket: &impl AsRawFd) {
    let _ =
        set(socket, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Whether a listener on the IPv6 wildcard takes IPv4 clients too.
pub fn is_dual_stack(socket: &impl AsRawFd) -> bool {
    let mut only_v6: libc::c_int = 1;
    let mut length = std::mem::size_of_val(&only_v6) as libc::socklen_t;
    // SAFETY: value and length are ours and of the right size.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            (&raw mut only_v6).cast(),
            &mut length,
        )
    };
    failed == 0 && only_v6 == 0
}

/// Accepts by `accept(2)`, which every kernel has; the stream does not block.
///
/// # Errors
/// Returns the OS error; `NotConnected` if the client is gone again.
pub fn accept(listener: &impl AsRawFd) -> io::Result<(TcpStream, SocketAddr)> {
    // SAFETY: null pointers ask for no address.
    let descriptor =
        unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    let stream = unsafe { TcpStream::from_raw_fd(descriptor) };
    // SAFETY: a plain call on an open descriptor. A program that this one starts
    // would have it; no more than that.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    stream.set_nonblocking(true)?;
    let from = stream.peer_addr()?;
    Ok((stream, from))
}
