//! What a descriptor is, as `getsockopt`, `getsockname` and `fstat` tell it.

use std::os::fd::RawFd;

/// Whether clients come to this stream socket. Not every system tells; then one
/// without a peer is taken for such a one.
pub(super) fn listens(descriptor: RawFd) -> bool {
    // The systems of BSD say 2 for yes.
    socket_option(descriptor, libc::SO_ACCEPTCONN)
        .map_or_else(|| address(descriptor, libc::getpeername).is_none(), |yes| yes != 0)
}

/// A number that `getsockopt` tells of a socket.
pub(super) fn socket_option(descriptor: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = std::mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length are ours and of the right size.
    let failed = unsafe {
        libc::getsockopt(descriptor, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length)
    };
    (failed == 0).then_some(value)
}

/// Whether it is a socket of IPv4 or IPv6.
pub(super) fn is_internet(descriptor: RawFd) -> bool {
    let family =
        address(descriptor, libc::getsockname).map(|address| libc::c_int::from(address.ss_family));
    family.is_some_and(|family| [libc::AF_INET, libc::AF_INET6].contains(&family))
}

/// One of the two calls that tell a socket's addresses.
type AddressCall =
    unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(descriptor: RawFd, call: AddressCall) -> Option<libc::sockaddr_storage> {
    // SAFETY: zero is a valid start for the structure, which is filled by the call.
    unsafe {
        let mut address: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = std::mem::size_of_val(&address) as libc::socklen_t;
        (call(descriptor, (&raw mut address).cast(), &mut length) == 0).then_some(address)
    }
}

/// Whether two descriptors are of one file.
pub(super) fn same_file(one: RawFd, other: RawFd) -> bool {
    let stat = |descriptor| {
        // SAFETY: zero is a valid start for the structure, which is filled by the call.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(descriptor, &mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
        }
    };
    stat(one).is_some_and(|one| stat(other) == Some(one))
}
