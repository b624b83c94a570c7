//! Landlock, of Linux 5.13 and later: `landlock(7)`.
//!
//! A rule belongs to a file or folder as it is now, not to its name. Therefore folders are
//! allowed: what a rename puts into them later counts as well.

use super::Places;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
/// All rights of the first version; what a later one adds is named.
const FIRST_RIGHTS: u64 = (1 << 13) - 1;
/// Since version 3.
const TRUNCATE: u64 = 1 << 14;

const READ: u64 = READ_FILE | READ_DIR;
const WRITE: u64 = READ | WRITE_FILE | TRUNCATE | REMOVE_FILE | MAKE_REG;
/// Those that a file can have.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

const RULE_PATH_BENEATH: i32 = 1;
const CREATE_RULESET_VERSION: u32 = 1 << 0;

/// Where names, users, load and modules of the C library are told.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/proc",
    "/sys",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/dev/urandom",
    "/dev/random",
];
/// Files of the resolver that are often links to where another program writes them.
const LINKED: [&str; 4] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime"];
/// Where such a program may start later than this one.
const RESOLVERS: [&str; 4] =
    ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"];
/// A program that is not one static file needs its loader, which is a program itself.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

#[repr(C)]
struct RulesetAttributes {
    handled: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

struct Ruleset {
    descriptor: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// None: the kernel has no Landlock, or it is switched off.
    fn new() -> io::Result<Option<Ruleset>> {
        let create = libc::SYS_landlock_create_ruleset;
        // SAFETY: with this flag the kernel reads nothing.
        let version = unsafe {
            libc::syscall(
                create,
                std::ptr::null::<RulesetAttributes>(),
                0usize,
                CREATE_RULESET_VERSION,
            )
        };
        if version < 1 {
            return Ok(None);
        }
        let handled = FIRST_RIGHTS | if version >= 3 { TRUNCATE } else { 0 };
        let attributes = RulesetAttributes { handled };
        let size = size_of::<RulesetAttributes>();
        // SAFETY: the structure is the kernel's for this size, and outlives the call.
        let descriptor = unsafe { libc::syscall(create, &raw const attributes, size, 0u32) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, and nothing else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
        Ok(Some(Ruleset { descriptor, handled }))
    }

    /// Allows this in a folder, or for a file. One that does not exist is passed over.
    fn allow(&self, path: &Path, rights: u64) -> io::Result<()> {
        let Ok(opened) = open_path(path) else { return Ok(()) };
        let mut allowed = rights & self.handled;
        if !opened.metadata()?.is_dir() {
            allowed &= OF_FILES;
        }
        let rule = PathBeneath { allowed, parent: opened.as_raw_fd() };
        // SAFETY: the structure is the kernel's for this kind, and outlives the call, as do
        // the descriptors.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.descriptor.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0u32,
            )
        };
        if added == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn allow_all<P: AsRef<Path>>(&self, paths: &[P], rights: u64) -> io::Result<()> {
        paths.iter().try_for_each(|path| self.allow(path.as_ref(), rights))
    }

    fn restrict_self(&self) -> io::Result<bool> {
        // SAFETY: a plain call on an open descriptor.
        let done = unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.descriptor.as_raw_fd(), 0u32)
        };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        // After many upgrades there are as many layers as the kernel bears: they are in force.
        if error.raw_os_error() == Some(libc::E2BIG) {
            Ok(true)
        } else {
            Err(error)
        }
    }
}

fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

/// The folder that a file is in, whatever links lead there.
fn folder_of(file: &str) -> Option<PathBuf> {
    fs::canonicalize(file).ok()?.parent().map(Path::to_path_buf)
}

/// Keeps to these places and those of the system; false: this kernel has no Landlock.
///
/// # Errors
/// Returns the OS error.
pub fn enter(places: &Places) -> io::Result<bool> {
    let Some(ruleset) = Ruleset::new()? else { return Ok(false) };
    ruleset.allow_all(&SYSTEM, READ)?;
    ruleset.allow_all(&RESOLVERS, READ)?;
    let linked: Vec<PathBuf> = LINKED.iter().filter_map(|file| folder_of(file)).collect();
    ruleset.allow_all(&linked, READ)?;
    ruleset.allow(Path::new("/dev/null"), READ | WRITE)?;
    ruleset.allow_all(&places.read, READ)?;
    ruleset.allow_all(&places.write, WRITE)?;
    ruleset.allow_all(&places.run, READ | EXECUTE)?;
    // The next version of the program may be another kind of file than this one.
    if !places.run.is_empty() {
        ruleset.allow_all(&LIBRARIES, READ | EXECUTE)?;
    }
    ruleset.restrict_self()
}
