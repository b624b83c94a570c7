//! The files that this process may still reach, once it has read its configuration.
//!
//! Owns which places of a system every daemon needs: its resolver, its load, its libraries.
//! What a configuration names is told by the caller.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn enter(&Places) -> io::Result<bool>`: from now on this thread, and all that it
//!   starts, reaches these places and those of the system alone; false: it has no such
//!   means. Called before any other thread starts.

#[cfg_attr(target_os = "linux", path = "landlock.rs")]
#[cfg_attr(target_os = "openbsd", path = "unveil.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "openbsd")), path = "none.rs")]
mod mechanism;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, io};

/// What a process needs besides the places that each one needs. They are folders, or what
/// files are in now: a file is often replaced by another one of its name.
#[derive(Clone, Default, Debug)]
pub struct Places {
    /// To read.
    pub read: Vec<PathBuf>,
    /// To read, write, make and remove files.
    pub write: Vec<PathBuf>,
    /// To run this program again.
    pub run: Vec<PathBuf>,
}

impl Places {
    /// One place a line, each after a letter.
    fn text(&self) -> String {
        let lines = |letter: char, places: &[PathBuf]| {
            let line = |place: &PathBuf| format!("{letter}{}\n", place.display());
            places.iter().map(line).collect::<String>()
        };
        lines('r', &self.read) + &lines('w', &self.write)
    }

    fn of_text(text: &str) -> Places {
        let places = |letter| text.lines().filter_map(move |line| line.strip_prefix(letter));
        let paths = |letter| places(letter).map(PathBuf::from).collect();
        Places { read: paths('r'), write: paths('w'), run: Vec::new() }
    }

    /// Those of these that are in none of the others.
    fn beyond(&self, others: &Places) -> Vec<PathBuf> {
        let within = |place: &Path, others: &[&Vec<PathBuf>]| {
            others.iter().copied().flatten().any(|other| place.starts_with(other))
        };
        let read = self.read.iter().filter(|at| !within(at, &[&others.read, &others.write]));
        let write = self.write.iter().filter(|at| !within(at, &[&others.write]));
        read.chain(write).cloned().collect()
    }
}

/// Tells a successor where it is: it cannot leave.
const VARIABLE: &str = "PEGASUS_SANDBOX";

/// What this process keeps to.
static ENTERED: OnceLock<Places> = OnceLock::new();

/// Keeps to these places from now on; returns whether the system can do that. See the
/// file's head.
///
/// # Errors
/// Returns the OS error.
pub fn enter(places: Places) -> io::Result<bool> {
    let entered = mechanism::enter(&places)?;
    if entered {
        // Before there is another thread that might read it.
        let places = ENTERED.get_or_init(|| places);
        env::set_var(VARIABLE, places.text());
    }
    Ok(entered)
}

/// Recalls what the process before this one kept to.
pub fn recall() {
    if let Ok(text) = env::var(VARIABLE) {
        let _ = ENTERED.set(Places::of_text(&text));
    }
}

/// Whether it keeps to some.
pub fn is_entered() -> bool {
    ENTERED.get().is_some()
}

/// Which of these it cannot reach before its next start, although they may be of use.
pub fn beyond(places: &Places) -> Vec<PathBuf> {
    ENTERED.get().map_or_else(Vec::new, |entered| places.beyond(entered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_may_be_read_and_not_the_other_way() {
        let places = |read: &[&str], write: &[&str]| {
            let all = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
            Places { read: all(read), write: all(write), run: Vec::new() }
        };
        let entered = places(&["/etc"], &["/var/log"]);
        let wanted = places(&["/etc/pegasus.d", "/var/log", "/etcetera"], &["/var/log", "/etc"]);
        assert_eq!(wanted.beyond(&entered), [PathBuf::from("/etcetera"), PathBuf::from("/etc")]);
        assert!(entered.beyond(&Places::of_text(&entered.text())).is_empty());
    }
}
