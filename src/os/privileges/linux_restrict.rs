//! `PR_SET_NO_NEW_PRIVS` and `capset(2)`.

use std::io;

/// Capabilities that a daemon started by root may need again, at a reload or an upgrade:
/// ports below 1024, its files, more descriptors, and to become its user.
const KEPT: [u32; 9] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    2,  // DAC_READ_SEARCH
    3,  // FOWNER
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    10, // NET_BIND_SERVICE
    24, // SYS_RESOURCE
];

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits, in two halves.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up, for this thread and all that it starts, what the program never needs.
///
/// # Errors
/// Returns the OS error. A kernel that does not know the call is none.
pub fn restrict() -> io::Result<()> {
    // SAFETY: a plain call; the unused arguments must be zero.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done != 0 {
        let error = io::Error::last_os_error();
        // Before Linux 3.5.
        return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
    }
    let mut header = Header { version: VERSION, process: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the structures are those of the kernel for this version.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    for (half, sets) in sets.iter_mut().enumerate() {
        let bits = KEPT.iter().filter(|bit| **bit / 32 == half as u32);
        let kept = bits.fold(0, |kept, bit| kept | 1 << (bit % 32));
        sets.effective &= kept;
        sets.permitted &= kept;
        sets.inheritable &= kept;
    }
    // SAFETY: as above; the kernel only reads them.
    let written = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if written == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
