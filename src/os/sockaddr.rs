//! Addresses of sockets as the calls of Unix take and give them.

use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

/// An address, in the structure of its family.
pub enum SockAddr {
    /// `AF_INET`.
    V4(libc::sockaddr_in),
    /// `AF_INET6`.
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> SockAddr {
        match address {
            SocketAddr::V4(address) => {
                // SAFETY: zero is a valid start; what counts is set below.
                let mut sockaddr: libc::sockaddr_in = unsafe { zeroed() };
                sockaddr.sin_family = libc::AF_INET as libc::sa_family_t;
                sockaddr.sin_port = address.port().to_be();
                sockaddr.sin_addr.s_addr = u32::from(*address.ip()).to_be();
                SockAddr::V4(sockaddr)
            }
            SocketAddr::V6(address) => {
                // SAFETY: as above.
                let mut sockaddr: libc::sockaddr_in6 = unsafe { zeroed() };
                sockaddr.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                sockaddr.sin6_port = address.port().to_be();
                sockaddr.sin6_flowinfo = address.flowinfo();
                sockaddr.sin6_addr.s6_addr = address.ip().octets();
                sockaddr.sin6_scope_id = address.scope_id();
                SockAddr::V6(sockaddr)
            }
        }
    }
}

impl SockAddr {
    /// Where it is, for as long as it stays there, and how long.
    pub fn as_parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            SockAddr::V4(sockaddr) => {
                ((&raw const *sockaddr).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SockAddr::V6(sockaddr) => {
                ((&raw const *sockaddr).cast(), size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }
}

/// An address from the system, if it is of one of these families.
///
/// # Safety
/// It leads to as many bytes as the family that is there has, or to two bytes of
/// another family.
pub unsafe fn read(sockaddr: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: the caller's promise. The structure need not be aligned.
    let family = unsafe { ptr::read_unaligned(&raw const (*sockaddr).sa_family) };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure is there.
            let v4: libc::sockaddr_in = unsafe { ptr::read_unaligned(sockaddr.cast()) };
            Some(
                SocketAddrV4::new(
                    u32::from_be(v4.sin_addr.s_addr).into(),
                    u16::from_be(v4.sin_port),
                )
                .into(),
            )
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: libc::sockaddr_in6 = unsafe { ptr::read_unaligned(sockaddr.cast()) };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
