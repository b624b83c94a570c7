//! Reads the file of keys.
//!
//! Owns who may read it, and where a mistake is. What a line means is the key table's.

use crate::net::secure_link;
use crate::os::file_mode;
use pegasus_core::protocol::peer_key::KeyTable;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file, in bytes: more than `KEYS_MAX` ordinary lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads it.
///
/// # Errors
/// Every mistake, with file and line, and what would be right.
pub fn read(path: &Path) -> Result<KeyTable, Vec<String>> {
    let name = path.display();
    let text = read_text(path).map_err(|why| vec![format!("key_file={name}: {why}")])?;
    let keys = KeyTable::parse(&text).map_err(|errors| {
        errors.into_iter().map(|(line, why)| format!("{name}:{line}: {why}")).collect::<Vec<_>>()
    })?;
    if keys.is_empty() {
        // A configuration that names a file of keys does not mean to go on in plain.
        let why = "no key in it (`pegasus key` makes a line; key_file= for none)";
        return Err(vec![format!("key_file={name}: {why}")]);
    }
    Ok(keys)
}

fn read_text(path: &Path) -> Result<String, String> {
    if !secure_link::BUILT_IN {
        return Err("this program was built without encrypted control connections \
                    (cargo feature `secure`)"
            .into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    // Of the open file, so that it is the one that is read.
    if let Some(mode) = file_mode::too_open(&file).map_err(|error| error.to_string())? {
        let path = path.display();
        return Err(format!("its mode is {mode:04o}, others can use it: chmod 0640 {path}"));
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes are no key file"));
    }
    Ok(text)
}
