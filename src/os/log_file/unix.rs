//! `open(2)` without waiting, and the variable of systemd.exec(5).

use crate::os::privileges;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{fchown, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a file to append to.
///
/// # Errors
/// Returns the OS error.
pub fn open(path: &Path) -> io::Result<File> {
    let is_fifo = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    let mut options = OpenOptions::new();
    // Open for both, a FIFO needs no other reader, and what is written waits for one.
    options.create(!is_fifo).append(true).read(is_fifo);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Whether `$JOURNAL_STREAM` names descriptor 2. A child of a service inherits the variable,
/// perhaps with another standard error.
pub fn stderr_is_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    File::from(stderr)
        .metadata()
        .is_ok_and(|meta| device.parse() == Ok(meta.dev()) && inode.parse() == Ok(meta.ino()))
}

/// Makes a user the owner of an open file.
///
/// # Errors
/// No such user, or no permission.
pub fn give(file: &File, user: &str) -> io::Result<()> {
    let (uid, gid) = privileges::ids(user)?;
    fchown(file, Some(uid), Some(gid))
}
