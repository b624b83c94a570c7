//! Where log lines go: stderr, a file, syslog, nowhere.
//!
//! Owns the one logger of the process. A log never stops the work: a full disk, or a reader
//! that stopped reading, costs lines, which are counted.

mod flood;
mod line;
mod writer;

pub use line::Format;

use crate::os::syslog::Syslog;
use crate::os::{inherit, log_file};
use flood::FloodGuard;
use line::Line;
use log::{error, LevelFilter, Log, Metadata, Record};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use writer::{Sink, Writer};

/// How long the process waits at its end for its last lines to be written.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// Where log lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogDestination {
    /// Standard error, unless that is a client.
    Stderr,
    /// The log of the system.
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

/// What is logged, where and how.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where.
    pub destination: LogDestination,
    /// Up to this level.
    pub level: LevelFilter,
    /// How.
    pub format: Format,
    /// Standard error is a client and must not be used.
    pub stderr_was_client: bool,
}

/// A destination that is open. Its thread starts with the first line.
struct Output {
    destination: LogDestination,
    format: Format,
    file: Option<Arc<File>>,
    sink: Mutex<Option<Sink>>,
    writer: OnceLock<Option<Writer>>,
}

impl Output {
    fn open(options: &LogOptions) -> io::Result<Output> {
        let mut destination = options.destination.clone();
        if destination == LogDestination::Stderr && options.stderr_was_client {
            destination = LogDestination::Syslog;
        }
        let mut file = None;
        let sink = match &destination {
            LogDestination::Stderr => Some(Sink::Stderr(log_file::stderr_is_journal())),
            LogDestination::Syslog => Some(Sink::Syslog(Syslog::default())),
            LogDestination::Nowhere => None,
            LogDestination::File(path) => {
                let opened = file.insert(Arc::new(log_file::open(path)?));
                Some(Sink::File(opened.clone()))
            }
        };
        Ok(Output::of(destination, options.format, file, sink))
    }

    fn of(
        destination: LogDestination,
        format: Format,
        file: Option<Arc<File>>,
        sink: Option<Sink>,
    ) -> Output {
        let sink = Mutex::new(sink);
        Output { destination, format, file, sink, writer: OnceLock::new() }
    }

    /// None if there is nothing to write to, or no thread for it.
    fn writer(&self) -> Option<&Writer> {
        let start = || {
            let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Writer::start(sink).ok()
        };
        self.writer.get_or_init(start).as_ref()
    }
}

enum State {
    /// Before the start.
    Off,
    /// A command that ends by itself writes to standard error at once.
    Tool,
    Daemon(Output),
}

struct Logger {
    state: RwLock<State>,
    flood_guard: OnceLock<Mutex<FloodGuard>>,
}

static LOGGER: Logger = Logger { state: RwLock::new(State::Off), flood_guard: OnceLock::new() };

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        let Ok(state) = self.state.read() else { return };
        match &*state {
            State::Off => {}
            State::Tool => {
                let (level, target) = (record.level(), record.target());
                let _ = writeln!(io::stderr(), "{level:<5} [{target}] {}", record.args());
            }
            State::Daemon(output) => {
                let Some(writer) = output.writer() else { return };
                let flood_guard = self.flood_guard.get_or_init(Mutex::default);
                let admitted = flood_guard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .admit(record, Instant::now());
                let Some(left_out) = admitted else { return };
                if let Some(notice) = left_out {
                    writer.write(notice, output.format);
                }
                writer.write(Line::of(record), output.format);
            }
        }
    }

    fn flush(&self) {
        if let Ok(State::Daemon(output)) = self.state.read().as_deref() {
            if let Some(Some(writer)) = output.writer.get() {
                writer.flush(LAST_LINES_MAX);
            }
        }
    }
}

fn install(state: State, level: LevelFilter) {
    if let Ok(mut current) = LOGGER.state.write() {
        *current = state;
    }
    let _ = log::set_logger(&LOGGER);
    set_level(level);
}

/// Lines for nowhere are not even made.
fn set_level(level: LevelFilter) {
    let nowhere = matches!(LOGGER.state.read().as_deref(),
        Ok(State::Daemon(output)) if output.destination == LogDestination::Nowhere);
    log::set_max_level(if nowhere { LevelFilter::Off } else { level });
}

fn install_output(output: Output, level: LevelFilter) {
    inherit::set_log_file(output.file.clone());
    install(State::Daemon(output), level);
}

/// For a command that ends by itself: messages on standard error.
pub fn start_tool(level: LevelFilter) {
    install(State::Tool, level);
}

/// For a daemon, also with other options later. Where the destination cannot be opened, the
/// log stays where it is, or goes to standard error, and says so: clients are served anyway.
pub fn start(options: &LogOptions) {
    let running = match LOGGER.state.read().as_deref() {
        Ok(State::Daemon(output)) => Some(output.destination.clone()),
        _ => None,
    };
    let stays = running.as_ref() == Some(&options.destination)
        && !matches!(options.destination, LogDestination::File(_));
    if stays {
        set_format(options.format);
        return set_level(options.level);
    }
    let refused = match Output::open(options) {
        Ok(output) => return install_output(output, options.level),
        Err(error) => error,
    };
    let LogOptions { destination, format, .. } = options;
    if let Some(file) = inherit::take_log_file() {
        let sink = Sink::File(file.clone());
        let output = Output::of(destination.clone(), *format, Some(file), Some(sink));
        install_output(output, options.level);
        error!(
            target: "log",
            "log={destination}: {refused}; the previous process's file stays open"
        );
    } else if running.is_some() {
        set_format(*format);
        set_level(options.level);
        error!(target: "log", "log={destination}: {refused}; the log stays here");
    } else {
        let stderr = LogOptions { destination: LogDestination::Stderr, ..options.clone() };
        if let Ok(output) = Output::open(&stderr) {
            install_output(output, options.level);
        }
        error!(target: "log", "log={destination}: {refused}; the log goes here");
    }
}

fn set_format(format: Format) {
    if let Ok(State::Daemon(output)) = LOGGER.state.write().as_deref_mut() {
        output.format = format;
    }
}

/// Opens the log file again, after the old one was moved away. If that fails the old one
/// stays open, and says so.
pub fn reopen() {
    let options = match LOGGER.state.read().as_deref() {
        Ok(State::Daemon(output)) if output.file.is_some() => LogOptions {
            destination: output.destination.clone(),
            level: log::max_level(),
            format: output.format,
            stderr_was_client: false,
        },
        _ => return,
    };
    start(&options);
}

/// Makes a user the owner of the log file, who can open it again later.
pub fn give_to(user: &str) {
    let file = match LOGGER.state.read().as_deref() {
        Ok(State::Daemon(Output { file: Some(file), .. })) => file.clone(),
        _ => return,
    };
    if let Err(error) = log_file::give(&file, user) {
        log::warn!(target: "log", "user={user} cannot become the owner of the log: {error}");
    }
}

/// Waits until what was logged is written, for a second at most.
pub fn flush() {
    LOGGER.flush();
}

/// A panic is a line in the log, wherever that goes, never text to a client.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!(target: "panic", "{panic}");
        flush();
    }));
}
