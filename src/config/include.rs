//! The files of a configuration: the first one, and those that it includes.
//!
//! Owns which files an `include=` means, in which order, how many there may be, and that
//! none is read twice, so that no circle is possible.

use std::fs;
use std::path::{Path, PathBuf};

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most files of one configuration.
const FILES_MAX: usize = 256;
/// An included file may include others; these may not.
const LEVELS: usize = 2;

/// The files that were read so far, and where each is named.
#[derive(Default)]
pub struct Files(Vec<(PathBuf, String)>);

impl Files {
    /// Reads a file that is named at this place of the configuration; empty: by `-c`.
    ///
    /// # Errors
    /// The OS error, or that the file is too large, one too many, or was read before.
    pub fn read(&mut self, path: &Path, place: &str) -> Result<String, String> {
        // A pipe has none.
        let identity = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some((_, before)) = self.0.iter().find(|(known, _)| *known == identity) {
            return Err(match before.as_str() {
                "" => "this is the configuration that includes it".into(),
                before => format!("already included at {before}"),
            });
        }
        if self.0.len() >= FILES_MAX {
            return Err(format!("more than {FILES_MAX} files"));
        }
        self.0.push((identity, place.to_string()));
        let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
        if length > FILE_BYTES_MAX {
            return Err(format!("file too large: {length} bytes (limit {FILE_BYTES_MAX})"));
        }
        fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// Returns what `include=value` names in the file `from`.
pub fn path(value: &str, from: &Path) -> PathBuf {
    from.parent().unwrap_or(Path::new("")).join(value)
}

/// Returns the files that `include=value` means in the file `from`: that file, or in the
/// order of their names the `*.conf` of that folder, hidden ones not. A relative path is
/// relative to the folder of `from`. `level`: how deep `from` is, 0 for the first file.
///
/// # Errors
/// Why there are none: the OS error, or that `from` is too deep.
pub fn files(value: &str, from: &Path, level: usize) -> Result<Vec<PathBuf>, String> {
    if value.is_empty() {
        return Err("name a file, or a folder of *.conf files".into());
    }
    if level >= LEVELS {
        return Err("too deep: an included file may include others, and these may not".into());
    }
    let path = path(value, from);
    let with_path = |error: std::io::Error| format!("{}: {error}", path.display());
    if !fs::metadata(&path).map_err(with_path)?.is_dir() {
        return Ok(vec![path]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(with_path)? {
        let file = entry.map_err(with_path)?.path();
        let is_hidden =
            file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if file.extension().is_some_and(|end| end == "conf") && !is_hidden && !file.is_dir() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}
