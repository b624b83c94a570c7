//! A network of a test's own: nothing else is on it, and its counters count
//! nothing else.

use std::{fs, io, thread};

/// Runs a test in a network of its own, which has nothing but loopback. All
/// threads and processes that the test starts are in it. Passes over the test
/// where this host allows no such network.
pub fn in_own_network(test: impl FnOnce() + Send) {
    let alone = thread::scope(|scope| scope.spawn(|| enter_own_network().map(|()| test())).join());
    match alone {
        Ok(Ok(())) => {}
        Ok(Err(error)) => crate::support::skip(&format!("no network of its own here: {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Gives this thread a network of its own.
fn enter_own_network() -> io::Result<()> {
    // SAFETY: a plain call, which concerns this thread only.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: zero is a valid start, and the name is shorter than its place.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the structure is complete, and lives for the call.
    checked(unsafe {
        use std::os::fd::AsRawFd;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    })
}

fn checked(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A counter of TCP in this thread's network, as `DelayedACKs`.
#[track_caller]
pub fn tcp_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next().unwrap().split(' ');
    let values = lines.next().unwrap().split(' ');
    let (_, value) = names.zip(values).find(|(known, _)| *known == name).unwrap();
    value.parse().unwrap()
}
