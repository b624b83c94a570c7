//! `getifaddrs(3)`.

use crate::os::sockaddr;
use std::io;
use std::net::SocketAddr;
use std::ptr;

/// What its interfaces have that are up.
///
/// # Errors
/// Returns the OS error.
pub fn list() -> io::Result<Vec<SocketAddr>> {
    let mut first = ptr::null_mut();
    // SAFETY: the pointer lives for the call, which sets it to a list.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = first;
    // SAFETY: the list is ours until it is freed, and ends with a null pointer; an
    // address of it has the length of its family, or is null.
    unsafe {
        while let Some(interface) = next.as_ref() {
            if interface.ifa_flags as libc::c_int & libc::IFF_UP as libc::c_int != 0
                && !interface.ifa_addr.is_null()
            {
                addresses.extend(sockaddr::read(interface.ifa_addr));
            }
            next = interface.ifa_next;
        }
        libc::freeifaddrs(first);
    }
    Ok(addresses)
}
