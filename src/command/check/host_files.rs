//! The files of superservers: reading them, and the lines that start this program.

use std::fs;
use std::path::{Path, PathBuf};

/// The text of a file, of at most a mebibyte.
pub fn read(path: &Path) -> Option<String> {
    let length = fs::metadata(path).ok()?.len();
    (length <= 1 << 20)
        .then(|| fs::read(path).ok())?
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The files of a folder in the order of their names.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Whether a command line starts this program: as the command, or behind tcpd.
pub fn is_ours(mut words: impl Iterator<Item = impl AsRef<str>>) -> bool {
    words.any(|word| {
        let name = word.as_ref().rsplit('/').next().unwrap_or_default();
        name == "pegasus" || name.starts_with("pegasus-") || name.starts_with("pegasus.")
    })
}
