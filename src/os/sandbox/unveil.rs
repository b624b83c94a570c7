//! `unveil(2)` and `pledge(2)` of OpenBSD. What is not pledged fails with ENOSYS (`error`);
//! the process goes on.

use super::Places;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SYSTEM: [&str; 4] = ["/etc", "/usr/lib", "/usr/libexec/ld.so", "/usr/share/zoneinfo"];
const PROMISES: &CStr =
    c"error stdio rpath wpath cpath fattr chown flock inet mcast unix dns getpw id proc ps vminfo \
        route sendfd recvfd";
const RUNNING_PROMISES: &CStr =
    c"error stdio rpath wpath cpath fattr chown flock inet mcast unix dns getpw id proc ps vminfo \
        route sendfd recvfd exec";

fn unveil(path: &Path, permissions: &CStr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both strings end with a zero and outlive the call.
    if unsafe { libc::unveil(path.as_ptr(), permissions.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // What does not exist is not needed.
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// Keeps to these places and those of the system.
///
/// # Errors
/// Returns the OS error.
pub fn enter(places: &Places) -> io::Result<bool> {
    SYSTEM.iter().try_for_each(|path| unveil(Path::new(path), c"rx"))?;
    unveil(Path::new("/dev/null"), c"rw")?;
    unveil(Path::new("/dev/log"), c"rw")?;
    places.read.iter().try_for_each(|path| unveil(path, c"r"))?;
    places.write.iter().try_for_each(|path| unveil(path, c"rwc"))?;
    places.run.iter().try_for_each(|path| unveil(path, c"rx"))?;
    let promises = if places.run.is_empty() { PROMISES } else { RUNNING_PROMISES };
    // SAFETY: the string ends with a zero; a null pointer leaves the others as they are.
    if unsafe { libc::pledge(promises.as_ptr(), std::ptr::null()) } == 0 {
        Ok(true)
    } else {
        Err(io::Error::last_os_error())
    }
}
