//! What all daemons have: a configuration that can be read again, and
//! descriptors that may not be enough for it.
//!
//! Owns where the configuration comes from and how the limits fit it. Knows no
//! command.

use super::logging;
use super::settings::{Mistake, Settings};
use crate::base::address::Transport;
use crate::base::name::Service;
use crate::os::inherit::Inherited;
use crate::os::limits;
use log::{error, LevelFilter};
use std::io;
use std::path::PathBuf;

/// A daemon's command line, read.
pub struct Daemon {
    /// The configuration.
    pub settings: Settings,
    /// Where it came from, to read it again.
    pub source: Source,
    /// The service of an inherited socket.
    pub service: Option<Service>,
    /// What the starter left on descriptor 0.
    pub inherited: Inherited,
    /// Only print what would be sent.
    pub once: bool,
}

/// Where the configuration comes from.
#[derive(Clone)]
pub struct Source {
    /// A file, if there is one.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` of the command line.
    pub assignments: Vec<String>,
    /// How many levels more are logged; fewer, if negative.
    pub louder: i32,
    /// Standard error must not be used.
    pub stderr_was_client: bool,
}

impl Source {
    /// Reads it, perhaps again.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(&self) -> Result<Settings, Vec<Mistake>> {
        let mut settings = Settings::load(self.file.as_deref(), &self.assignments)?;
        let levels = LevelFilter::iter().collect::<Vec<_>>();
        let level = settings.log_level as i32 + self.louder;
        settings.log_level = levels[level.clamp(0, levels.len() as i32 - 1) as usize];
        Ok(settings)
    }

    /// Reads it again for a running daemon: a bad one changes nothing and says why.
    pub fn reload(&self) -> Option<Settings> {
        self.reload_if(|_| Ok(())).map(|(settings, ())| settings)
    }

    /// The same where more than reading may go wrong: then nothing changes, too.
    pub fn reload_if<T>(&self, prepare: impl FnOnce(&Settings) -> io::Result<T>) -> Option<(Settings, T)> {
        let read = self.load().map_err(|mistakes| mistakes.into_iter().map(|mistake| mistake.to_string()).collect());
        let prepared = read.and_then(|settings| match prepare(&settings) {
            Ok(prepared) => Ok((settings, prepared)),
            Err(error) => Err(vec![error.to_string()]),
        });
        match prepared {
            Ok((settings, prepared)) => {
                logging::start_or_fall_back(&settings.log, settings.log_level, self.stderr_was_client);
                log::info!(target: "config", "read again");
                Some((settings, prepared))
            }
            Err(mistakes) => {
                let mistakes: Vec<String> = mistakes;
                mistakes.iter().for_each(|mistake| error!(target: "config", "{mistake}"));
                error!(target: "config", "the old configuration stays");
                None
            }
        }
    }
}

/// The configuration that is read when none is named.
pub fn default_file() -> Option<PathBuf> {
    let path = if cfg!(windows) {
        std::env::current_exe().ok()?.with_file_name("pegasus.conf")
    } else {
        PathBuf::from("/etc/pegasus.conf")
    };
    path.exists().then_some(path)
}

/// Descriptors that a process needs besides those of its connections.
const DESCRIPTORS_ASIDE: u64 = 32;

/// How many connections of so many descriptors each fit into this process.
fn fit(each: u64) -> usize {
    let fit = limits::raise().map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_ASIDE).max(each) / each);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

/// How many clients a redirector takes: each needs two descriptors.
pub fn clients_max(settings: &Settings) -> usize {
    settings.redirect_connections_max.min(fit(2))
}

/// How many flows of datagrams it takes: each needs one. Where it has clients
/// of the other kind too, these get their share.
pub fn flows_max(settings: &Settings) -> usize {
    let streams = settings.services.iter().flat_map(|service| &service.listen);
    let shared = streams.filter(|listen| listen.transport == Transport::Tcp).count() > 0;
    settings.redirect_flows_max.min(fit(if shared { 2 } else { 1 }))
}

/// Raises the limit of descriptors, and says so if it is still too low.
pub fn warn_of_limit(name: &str, settings: &Settings) {
    let (key, wanted, fit) = match name {
        "queue" => ("queue_connections_max", settings.queue_connections_max, fit(1)),
        "redirect" => ("redirect_connections_max", settings.redirect_connections_max, fit(2)),
        _ => return,
    };
    // A default that nearly fits is no news.
    if wanted > fit + fit / 10 {
        log::warn!(
            target: "limits",
            "{key}={wanted}: the descriptors of this process are enough for {fit} (ulimit -n, LimitNOFILE=)"
        );
    }
}
