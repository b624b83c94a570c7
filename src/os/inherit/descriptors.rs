//! Descriptors 0, 1 and 2 of Unix, looked at with `getsockopt` and `fstat`.

use super::fd_info::{is_internet, listens, same_file, socket_option};
use super::{Inherited, StartContext};
use std::env;
use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// The first descriptor that systemd passes.
const LISTEN_FDS_START: RawFd = 3;

/// Beyond this number no descriptor is looked for where the system lists none.
const DESCRIPTORS: RawFd = 1024;

/// Looks at descriptor 0, and at those that systemd passed. Sockets of the
/// Internet are taken away, and the null device stands on 0, 1 and 2 where they
/// were one of them: nothing can be written to a client by accident any more,
/// and no later socket can become descriptor 0, 1 or 2 (one that was closed at
/// the start was opened by Rust's own start, before this). What else a
/// superserver left open, another service's socket perhaps, is closed, so that
/// this process keeps no other service's port: call it before anything is opened.
pub fn take() -> StartContext {
    if let Some(count) = passed_count() {
        close_from(LISTEN_FDS_START + count);
        let stderr_was_client = (LISTEN_FDS_START..LISTEN_FDS_START + count)
            .fold(false, |found, socket| redirect_stdio_to_null(socket) | found);
        return StartContext { inherited: passed(count), stderr_was_client };
    }
    let Some(kind) = socket_option(0, libc::SO_TYPE).filter(|_| is_internet(0)) else {
        return StartContext { inherited: Inherited::Nothing, stderr_was_client: false };
    };
    close_from(3);
    // SAFETY: descriptor 0 is open; the copy is new and owned by nothing else.
    let socket = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    let stderr_was_client = redirect_stdio_to_null(0);
    let inherited = if socket < 0 {
        Inherited::Other("a socket that cannot be copied")
    } else if kind == libc::SOCK_DGRAM {
        // SAFETY: the descriptor is a datagram socket that only we know.
        let datagrams = vec![(None, unsafe { UdpSocket::from_raw_fd(socket) })];
        Inherited::Sockets { listeners: Vec::new(), datagrams, borrowed: true }
    } else if kind != libc::SOCK_STREAM {
        Inherited::Other("a socket that is neither TCP nor UDP")
    } else if listens(socket) {
        // SAFETY: the descriptor is a listening stream socket that only we know.
        let listener = unsafe { TcpListener::from_raw_fd(socket) };
        Inherited::Sockets {
            listeners: vec![(None, listener)],
            datagrams: Vec::new(),
            borrowed: true,
        }
    } else {
        // SAFETY: the descriptor is a connected stream socket that only we know.
        Inherited::Client(unsafe { TcpStream::from_raw_fd(socket) })
    };
    StartContext { inherited, stderr_was_client }
}

/// How many sockets systemd passed to this very process, sd_listen_fds(3). The
/// variables stay: to a child they are another process's.
fn passed_count() -> Option<RawFd> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    let count = number("LISTEN_FDS").filter(|count| (1..=1024).contains(count))?;
    (number("LISTEN_PID")? == std::process::id()).then_some(count as RawFd)
}

/// Those sockets.
fn passed(count: RawFd) -> Inherited {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_string);
    let mut listeners = Vec::new();
    let mut datagrams = Vec::new();
    for descriptor in LISTEN_FDS_START..LISTEN_FDS_START + count {
        let name = names.next().filter(|name| !name.is_empty());
        let kind = socket_option(descriptor, libc::SO_TYPE).filter(|_| is_internet(descriptor));
        let stream = kind == Some(libc::SOCK_STREAM) && (listens(descriptor) || count == 1);
        if !stream && kind != Some(libc::SOCK_DGRAM) {
            return Inherited::Other("a passed socket that is no TCP listener, and not UDP");
        }
        // SAFETY: a plain call on an open descriptor.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        if !stream {
            // SAFETY: the descriptor was passed to us, and nothing else owns it.
            datagrams.push((name, unsafe { UdpSocket::from_raw_fd(descriptor) }));
            continue;
        }
        if !listens(descriptor) {
            // SAFETY: the descriptor was passed to us, and nothing else owns it.
            return Inherited::Client(unsafe { TcpStream::from_raw_fd(descriptor) });
        }
        // SAFETY: as above.
        listeners.push((name, unsafe { TcpListener::from_raw_fd(descriptor) }));
    }
    Inherited::Sockets { listeners, datagrams, borrowed: false }
}

/// Puts the null device on 1, 2 and at last 0 where they are this socket;
/// whether 2 was. Without a null device (in a chroot) something else that cannot
/// be written to stands there.
fn redirect_stdio_to_null(socket: RawFd) -> bool {
    let same: Vec<RawFd> =
        [1, 2, 0].into_iter().filter(|descriptor| same_file(socket, *descriptor)).collect();
    let stderr_too = same.contains(&2);
    if same.is_empty() {
        return false;
    }
    let null = File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let null = null.or_else(|_| UnixDatagram::unbound().map(OwnedFd::from));
    for descriptor in same {
        // SAFETY: descriptors 0 to 2 are replaced, which no Rust object owns.
        unsafe {
            match &null {
                Ok(null) => libc::dup2(null.as_raw_fd(), descriptor),
                Err(_) => libc::close(descriptor),
            }
        };
    }
    stderr_too
}

/// Closes this descriptor and all above it.
fn close_from(first: RawFd) {
    #[cfg(pegasus_linux)]
    // SAFETY: nothing of ours is open yet, so no owned descriptor is closed.
    if unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) }
        == 0
    {
        return;
    }
    // Not every kernel knows that call.
    // What is open on it while it is read is closed when it was read.
    let listed = std::fs::read_dir("/proc/self/fd").map(|entries| {
        let numbers =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.collect::<Vec<RawFd>>()
    });
    let all = listed.unwrap_or_else(|_| (first..DESCRIPTORS).collect());
    for descriptor in all.into_iter().filter(|descriptor| *descriptor >= first) {
        // SAFETY: nothing of ours is open yet, so no owned descriptor is closed.
        unsafe { libc::close(descriptor) };
    }
}
