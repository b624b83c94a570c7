//! Where log lines go: stderr, a file, syslog, nowhere.
//!
//! Owns the one logger of the process. A log that cannot be written never
//! stops the work: a full disk or a reader that left costs lines, not clients.

use crate::os::syslog::Syslog;
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::RwLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where log lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogDestination {
    /// Standard error, unless that is a client.
    Stderr,
    /// The system's log.
    Syslog,
    /// Nowhere.
    Nowhere,
    /// A file, appended to.
    File(PathBuf),
}

impl fmt::Display for LogDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogDestination::Stderr => f.write_str("stderr"),
            LogDestination::Syslog => f.write_str("syslog"),
            LogDestination::Nowhere => f.write_str("none"),
            LogDestination::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for LogDestination {
    type Err = String;

    fn from_str(text: &str) -> Result<LogDestination, String> {
        match text {
            "stderr" => Ok(LogDestination::Stderr),
            "syslog" => Ok(LogDestination::Syslog),
            "none" => Ok(LogDestination::Nowhere),
            "" => Err("empty (stderr, syslog, none or a file)".into()),
            path => Ok(LogDestination::File(path.into())),
        }
    }
}

enum Sink {
    /// For commands that end by themselves.
    Tool(SimpleLogger),
    /// For daemons; `bool`: the reader is the system's journal.
    Stderr(bool),
    Syslog(Syslog),
    File(PathBuf, Option<File>),
    Nowhere,
}

struct Logger(RwLock<Sink>);

static LOGGER: Logger = Logger(RwLock::new(Sink::Nowhere));

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        let Ok(sink) = self.0.read() else { return };
        let level = record.level();
        match &*sink {
            Sink::Tool(logger) => logger.log(record),
            Sink::Stderr(true) => {
                let line = format!("<{}>{}: {}\n", severity(level), record.target(), record.args());
                let _ = io::stderr().write_all(line.as_bytes());
            }
            Sink::Stderr(false) => {
                let line = format!("{level:<5} [{}] {}\n", record.target(), record.args());
                let _ = io::stderr().write_all(line.as_bytes());
            }
            Sink::Syslog(syslog) => {
                syslog.send(severity(level), &format!("{}: {}", record.target(), record.args()))
            }
            Sink::File(_, Some(file)) => {
                let line = format!(
                    "{} {level:<5} [{}] {}\n",
                    utc(SystemTime::now()),
                    record.target(),
                    record.args()
                );
                let _ = (&*file).write_all(line.as_bytes());
            }
            Sink::File(_, None) | Sink::Nowhere => {}
        }
    }

    fn flush(&self) {}
}

/// As syslog counts.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// `2026-11-23T15:20:00Z`, by the civil calendar (Hinnant's days algorithm).
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86_400 + 719_468;
    let second = seconds % 86_400;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let hour = second / 3600;
    let minute = second / 60 % 60;
    let second = second % 60;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn become_logger(sink: Sink, level: LevelFilter) {
    if let Ok(mut current) = LOGGER.0.write() {
        *current = sink;
    }
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// For a command that ends by itself: messages on standard error.
pub fn start_tool(level: LevelFilter) {
    become_logger(Sink::Tool(SimpleLogger::new().with_level(level)), level);
}

/// For a daemon. `stderr_was_client`: standard error must not be used.
///
/// # Errors
/// A log file that cannot be opened.
pub fn start(
    destination: &LogDestination,
    level: LevelFilter,
    stderr_was_client: bool,
) -> io::Result<()> {
    let sink = match destination {
        LogDestination::Stderr if stderr_was_client => Sink::Syslog(Syslog::default()),
        LogDestination::Stderr => Sink::Stderr(std::env::var_os("JOURNAL_STREAM").is_some()),
        LogDestination::Syslog => Sink::Syslog(Syslog::default()),
        LogDestination::Nowhere => Sink::Nowhere,
        LogDestination::File(path) => Sink::File(path.clone(), Some(open(path)?)),
    };
    become_logger(sink, level);
    Ok(())
}

/// The same; where it cannot be had, the usual place, and a line there. A log
/// must not keep anybody from being served.
pub fn start_or_fall_back(
    destination: &LogDestination,
    level: LevelFilter,
    stderr_was_client: bool,
) {
    if let Err(error) = start(destination, level, stderr_was_client) {
        let _ = start(&LogDestination::Stderr, level, stderr_was_client);
        log::error!(target: "log", "log={destination}: {error}; it goes on here");
    }
}

/// Opens the log file again, after somebody moved the old one away.
pub fn reopen() {
    if let Ok(mut sink) = LOGGER.0.write() {
        if let Sink::File(path, file) = &mut *sink {
            if let Ok(fresh) = open(path) {
                *file = Some(fresh);
            }
        }
    }
}

/// A panic is a line in the log, wherever that goes, never text to a client.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error!(target: "panic", "{panic}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_civil_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_446_000, "2026-11-23T15:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
