//! Descriptors 0, 1 and 2 of Unix, looked at with `getsockopt` and `fstat`.

use super::{handover, Found, Inherited};
use std::env;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, RawFd};

/// The first descriptor that systemd passes.
const LISTEN_FDS_START: RawFd = 3;

/// Looks at descriptor 0. If it is a socket of the Internet it is taken away,
/// and the null device stands on 0, and on 1 and 2 where they were the same
/// socket: nothing can be written to a client by accident any more, and no
/// later socket can become descriptor 0, 1 or 2.
pub fn take() -> Found {
    if let Some(handover) = handover::take() {
        return Found { inherited: Inherited::Handed(handover), stderr_was_client: false };
    }
    if let Some(inherited) = passed() {
        return Found { inherited, stderr_was_client: false };
    }
    let Some(kind) = option(0, libc::SO_TYPE).filter(|_| is_internet(0)) else {
        return Found { inherited: Inherited::Nothing, stderr_was_client: false };
    };
    let stdout_too = same_file(0, 1);
    let stderr_too = same_file(0, 2);
    // SAFETY: descriptor 0 is open; the copy is new and nobody else's.
    let socket = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the path is a C string; descriptors 0 to 2 are replaced, which no
    // Rust object owns.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for (descriptor, replace) in [(0, true), (1, stdout_too), (2, stderr_too)] {
            if replace && null >= 0 {
                libc::dup2(null, descriptor);
            } else if replace {
                libc::close(descriptor);
            }
        }
        if null > 2 {
            libc::close(null);
        }
    }
    let inherited = if socket < 0 {
        Inherited::Other("a socket that cannot be copied")
    } else if kind == libc::SOCK_DGRAM {
        // SAFETY: the descriptor is a datagram socket that only we know.
        let datagrams = vec![(None, unsafe { UdpSocket::from_raw_fd(socket) })];
        Inherited::Sockets { listeners: Vec::new(), datagrams, lent: true }
    } else if kind != libc::SOCK_STREAM {
        Inherited::Other("a socket that is neither TCP nor UDP")
    } else if listens(socket) {
        // SAFETY: the descriptor is a listening stream socket that only we know.
        let listener = unsafe { TcpListener::from_raw_fd(socket) };
        Inherited::Sockets { listeners: vec![(None, listener)], datagrams: Vec::new(), lent: true }
    } else {
        // SAFETY: the descriptor is a connected stream socket that only we know.
        Inherited::Client(unsafe { TcpStream::from_raw_fd(socket) })
    };
    Found { inherited, stderr_was_client: stderr_too }
}

/// What systemd passed to this very process, sd_listen_fds(3). The variables
/// are not looked at again, and nobody is started who could.
fn passed() -> Option<Inherited> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID")? != std::process::id() {
        return None;
    }
    let count = number("LISTEN_FDS").filter(|count| (1..=1024).contains(count))?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_string);
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for descriptor in LISTEN_FDS_START..LISTEN_FDS_START + count as RawFd {
        let name = names.next().filter(|name| !name.is_empty());
        let kind = option(descriptor, libc::SO_TYPE).filter(|_| is_internet(descriptor));
        let stream = kind == Some(libc::SOCK_STREAM) && (listens(descriptor) || count == 1);
        if !stream && kind != Some(libc::SOCK_DGRAM) {
            return Some(Inherited::Other("a passed socket that is no TCP listener, and not UDP"));
        }
        // SAFETY: a plain call on an open descriptor.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        if !stream {
            // SAFETY: the descriptor was passed to us, and nobody else knows it.
            datagrams.push((name, unsafe { UdpSocket::from_raw_fd(descriptor) }));
            continue;
        }
        if !listens(descriptor) {
            // SAFETY: the descriptor was passed to us, and nobody else knows it.
            return Some(Inherited::Client(unsafe { TcpStream::from_raw_fd(descriptor) }));
        }
        // SAFETY: as above.
        listeners.push((name, unsafe { TcpListener::from_raw_fd(descriptor) }));
    }
    Some(Inherited::Sockets { listeners, datagrams, lent: false })
}

pub(super) fn listens(descriptor: RawFd) -> bool {
    option(descriptor, libc::SO_ACCEPTCONN) == Some(1)
}

pub(super) fn option(descriptor: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = std::mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length are ours and of the right size.
    let failed = unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length) };
    (failed == 0).then_some(value)
}

pub(super) fn is_internet(descriptor: RawFd) -> bool {
    // SAFETY: zero is a valid start for the structure, which is filled by the call.
    let (failed, address) = unsafe {
        let mut address: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = std::mem::size_of_val(&address) as libc::socklen_t;
        (libc::getsockname(descriptor, (&raw mut address).cast(), &mut length), address)
    };
    failed == 0 && [libc::AF_INET, libc::AF_INET6].contains(&libc::c_int::from(address.ss_family))
}

fn same_file(one: RawFd, other: RawFd) -> bool {
    let stat = |descriptor| {
        // SAFETY: zero is a valid start for the structure, which is filled by the call.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(descriptor, &mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
        }
    };
    stat(one).is_some_and(|one| stat(other) == Some(one))
}
