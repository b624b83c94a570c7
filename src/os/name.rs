//! Addresses of sockets as the calls of Unix take and give them.

use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

/// An address, in the structure of its family.
pub enum Name {
    /// `AF_INET`.
    V4(libc::sockaddr_in),
    /// `AF_INET6`.
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Name {
        match address {
            SocketAddr::V4(address) => {
                // SAFETY: zero is a valid start; what counts is set below.
                let mut name: libc::sockaddr_in = unsafe { zeroed() };
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = address.port().to_be();
                name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
                Name::V4(name)
            }
            SocketAddr::V6(address) => {
                // SAFETY: as above.
                let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = address.port().to_be();
                name.sin6_flowinfo = address.flowinfo();
                name.sin6_addr.s6_addr = address.ip().octets();
                name.sin6_scope_id = address.scope_id();
                Name::V6(name)
            }
        }
    }
}

impl Name {
    /// Where it is, for as long as it stays there, and how long.
    pub fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Name::V4(name) => ((&raw const *name).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t),
            Name::V6(name) => ((&raw const *name).cast(), size_of::<libc::sockaddr_in6>() as libc::socklen_t),
        }
    }
}

/// An address that the system told, if it is one of these families.
///
/// # Safety
/// It leads to as many bytes as the family that is there has, or to two bytes of
/// another family.
pub unsafe fn read(name: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: the caller's promise. The structure need not be aligned.
    let family = unsafe { ptr::read_unaligned(&raw const (*name).sa_family) };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure is there.
            let v4: libc::sockaddr_in = unsafe { ptr::read_unaligned(name.cast()) };
            Some(SocketAddrV4::new(u32::from_be(v4.sin_addr.s_addr).into(), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: libc::sockaddr_in6 = unsafe { ptr::read_unaligned(name.cast()) };
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
