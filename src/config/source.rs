//! Where a configuration comes from, and how to reload it.
//!
//! Owns the rule that a bad configuration changes nothing in a running daemon.

use super::keys;
use super::places;
use super::reader::ConfigError;
use super::settings::Settings;
use crate::logging::{self, LogOptions};
use crate::os::{notify, sandbox};
use log::{error, info, warn, LevelFilter};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file and the command line of a configuration.
#[derive(Clone)]
pub struct ConfigSource {
    /// A file, if there is one.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` of the command line.
    pub assignments: Vec<String>,
    /// Log levels to add; negative: to remove.
    pub verbosity: i32,
    /// Standard error was the client and must not be used.
    pub stderr_was_client: bool,
    /// A superserver opened the sockets of this process.
    pub under_superserver: bool,
}

impl ConfigSource {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Returns every mistake in it.
    pub fn load(&self) -> Result<Settings, Vec<ConfigError>> {
        let mut settings = Settings::load(self.file.as_deref(), &self.assignments)?;
        settings.under_superserver = self.under_superserver;
        let levels = LevelFilter::iter().collect::<Vec<_>>();
        let level = settings.log_level as i32 + self.verbosity;
        settings.log_level = levels[level.clamp(0, levels.len() as i32 - 1) as usize];
        Ok(settings)
    }

    /// Reads the configuration of a daemon that may have given up what it names.
    ///
    /// # Errors
    /// Returns every mistake in it, or what needs a restart: half of a configuration is
    /// worse than the one before.
    pub fn load_within_sandbox(&self) -> Result<Settings, Vec<ConfigError>> {
        let loaded = self.load();
        if !sandbox::is_entered() {
            return loaded;
        }
        // What cannot be read may be no more than out of reach.
        let mistaken = || Settings::with_mistakes(self.file.as_deref(), &self.assignments);
        let (settings, mut errors) = match loaded {
            Ok(settings) => (settings, Vec::new()),
            Err(errors) => (mistaken(), errors),
        };
        const LATER: &str = "needs a restart (sandbox=on)";
        let beyond = sandbox::beyond(&places::of(&settings)).into_iter();
        let beyond = beyond.map(|path| format!("{}: a new folder {LATER}", path.display()));
        let command = settings.runs_commands().then(|| format!("exec: a first command {LATER}"));
        errors.extend(beyond.chain(command).map(ConfigError));
        if errors.is_empty() {
            Ok(settings)
        } else {
            Err(errors)
        }
    }

    /// How it logs.
    pub fn log_options(&self, settings: &Settings) -> LogOptions {
        LogOptions {
            destination: settings.log.clone(),
            level: settings.log_level,
            format: settings.log_format,
            stderr_was_client: self.stderr_was_client,
        }
    }

    /// How it logs, as far as that can be read among mistakes.
    pub fn log_options_among_mistakes(&self) -> LogOptions {
        let settings = Settings::with_mistakes(self.file.as_deref(), &self.assignments);
        LogOptions { level: LevelFilter::Info, ..self.log_options(&settings) }
    }

    /// Reloads the configuration of a daemon that uses the sections `parts` of the table.
    /// A bad configuration changes nothing, and the log says why. Keys that need a restart
    /// keep their `running` value, and the log names them.
    pub fn reload(&self, running: &Settings, parts: &[&str]) -> Option<Settings> {
        self.reload_if(running, parts, |_| Ok(())).map(|(settings, ())| settings)
    }

    /// As [`reload`](ConfigSource::reload), with a further step that may fail: then
    /// nothing changes either.
    pub fn reload_if<T>(
        &self,
        running: &Settings,
        parts: &[&str],
        prepare: impl FnOnce(&Settings) -> io::Result<T>,
    ) -> Option<(Settings, T)> {
        notify::reloading();
        let read = self
            .load_within_sandbox()
            .map_err(|errors| errors.into_iter().map(|error| error.to_string()).collect());
        let prepared = read.and_then(|settings| match prepare(&settings) {
            Ok(prepared) => Ok((settings, prepared)),
            Err(error) => Err(vec![error.to_string()]),
        });
        match prepared {
            Ok((mut settings, prepared)) => {
                logging::start(&self.log_options(&settings));
                info!(target: "config", "configuration reloaded");
                note_reload(true);
                notify::ready();
                for key in keys::keep_running(&mut settings, running, parts) {
                    warn!(target: "config", "a new {key} takes effect at the next start");
                }
                Some((settings, prepared))
            }
            Err(errors) => {
                let errors: Vec<String> = errors;
                errors.iter().for_each(|error| error!(target: "config", "{error}"));
                error!(target: "config", "keeping the running configuration");
                note_reload(false);
                notify::ready();
                None
            }
        }
    }
}

/// Whether the last reload was good, and when the last good one was, in seconds since
/// 1970.
static LAST_RELOAD: Mutex<(bool, u64)> = Mutex::new((true, 0));

fn note_reload(good: bool) {
    let mut last = LAST_RELOAD.lock().unwrap_or_else(PoisonError::into_inner);
    last.0 = good;
    if good {
        last.1 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    }
}

/// Returns whether the last reload was good, and when the last good one was, in seconds
/// since 1970; 0: there was none since the start.
pub fn last_reload() -> (bool, u64) {
    *LAST_RELOAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the configuration file that is used if none is named and it exists.
pub fn default_file() -> Option<PathBuf> {
    let path = if cfg!(windows) {
        std::env::current_exe().ok()?.with_file_name("pegasus.conf")
    } else {
        PathBuf::from("/etc/pegasus.conf")
    };
    path.exists().then_some(path)
}
