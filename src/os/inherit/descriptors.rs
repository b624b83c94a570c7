//! Descriptors 0, 1 and 2 of Unix, looked at with `getsockopt` and `fstat`.

use super::{Found, Inherited};
use std::net::TcpStream;
use std::os::fd::{FromRawFd, RawFd};

/// Looks at descriptor 0. If it is a socket of the Internet it is taken away,
/// and the null device stands on 0, and on 1 and 2 where they were the same
/// socket: nothing can be written to a client by accident any more, and no
/// later socket can become descriptor 0, 1 or 2.
pub fn take() -> Found {
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
    } else if kind == libc::SOCK_STREAM && option(socket, libc::SO_ACCEPTCONN) != Some(1) {
        // SAFETY: the descriptor is a stream socket that only we know.
        Inherited::Client(unsafe { TcpStream::from_raw_fd(socket) })
    } else {
        Inherited::Other(if kind == libc::SOCK_STREAM { "a listening socket (wait mode)" } else { "a datagram socket" })
    };
    Found { inherited, stderr_was_client: stderr_too }
}

fn option(descriptor: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = std::mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length are ours and of the right size.
    let failed = unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length) };
    (failed == 0).then_some(value)
}

fn is_internet(descriptor: RawFd) -> bool {
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
