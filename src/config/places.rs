//! The places on a host that a configuration names.
//!
//! Owns which folders a daemon needs to read its configuration again, and to write its log
//! and its process id. What every daemon needs of a system is not in it.

use super::settings::Settings;
use crate::logging::LogDestination;
use crate::net::load_sampler::LoadSource;
use crate::os::sandbox::Places;
use std::fs;
use std::path::{Path, PathBuf};

/// Adds the folder that a file is in, or the folder itself; and what a link leads to.
fn add(places: &mut Vec<PathBuf>, path: &Path) {
    let mut add = |path: &Path| {
        let folder = if path.is_dir() { Some(path) } else { path.parent() };
        let here = Path::new(".");
        let folder = folder.map(|folder| if folder == Path::new("") { here } else { folder });
        places.extend(folder.map(Path::to_path_buf).filter(|folder| !places.contains(folder)));
    };
    add(path);
    if let Ok(target) = fs::canonicalize(path) {
        add(&target);
    }
}

/// What a daemon with these settings reads and writes.
pub fn of(settings: &Settings) -> Places {
    let mut places = Places::default();
    settings.read_from.iter().for_each(|path| add(&mut places.read, path));
    settings.key_file.iter().for_each(|path| add(&mut places.read, path));
    for source in &settings.monitor_load {
        if let LoadSource::File(path) = source {
            add(&mut places.read, path);
        }
    }
    if let LogDestination::File(path) = &settings.log {
        add(&mut places.write, path);
        // A device is not made anew, and its folder may be another one's.
        places.write.extend(fs::canonicalize(path).ok().filter(|target| !target.is_dir()));
    }
    settings.pid_file.iter().for_each(|path| add(&mut places.write, path));
    places
}
