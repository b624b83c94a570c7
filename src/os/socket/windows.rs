//! `setsockopt` of Winsock.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::windows::io::AsRawSocket;
use windows_sys::Win32::Networking::WinSock as winsock;

fn set<T>(socket: &impl AsRawSocket, level: i32, name: i32, value: T) {
    let length = std::mem::size_of::<T>() as i32;
    // SAFETY: the value lives for the call and has this length.
    unsafe {
        winsock::setsockopt(
            socket.as_raw_socket() as winsock::SOCKET,
            level,
            name,
            (&raw const value).cast(),
            length,
        );
    }
}

/// Makes the system find out when the peer is gone.
pub fn keepalive(socket: &impl AsRawSocket) {
    let on: i32 = 1;
    set(socket, winsock::SOL_SOCKET, winsock::SO_KEEPALIVE, on);
}

/// Keepalive and no delay, which the sockets that are accepted inherit.
pub fn set_inherited_options(listener: &impl AsRawSocket) {
    keepalive(listener);
    let on: i32 = 1;
    set(listener, winsock::IPPROTO_TCP, winsock::TCP_NODELAY, on);
}

/// What accepted sockets [inherit](set_inherited_options).
///
/// # Errors
/// None; the signature is that of the other systems.
pub fn prepare_listener(socket: &impl AsRawSocket) -> io::Result<()> {
    set_inherited_options(socket);
    Ok(())
}

/// Urgent data (RFC 6093) is read where it stands among the other bytes.
pub fn set_oob_inline(socket: &impl AsRawSocket) {
    let on: i32 = 1;
    set(socket, winsock::SOL_SOCKET, winsock::SO_OOBINLINE, on);
}

/// Closing this socket will reset the connection instead of ending it.
pub fn reset_on_close(socket: &impl AsRawSocket) {
    set(
        socket,
        winsock::SOL_SOCKET,
        winsock::SO_LINGER,
        winsock::LINGER { l_onoff: 1, l_linger: 0 },
    );
}

/// Whether a listener on the IPv6 wildcard takes IPv4 clients too: not here.
pub fn is_dual_stack(_: &impl AsRawSocket) -> bool {
    false
}

/// Not needed here.
///
/// # Errors
/// Always `Unsupported`.
pub fn accept(_: &impl AsRawSocket) -> io::Result<(TcpStream, SocketAddr)> {
    Err(io::ErrorKind::Unsupported.into())
}
