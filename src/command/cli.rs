//! The command line: which command, which options, which configuration.
//!
//! Owns usage and its errors. Nothing here may reach a client: under a
//! superserver descriptor 2 is made safe before the first word is read.

use super::logging;
use super::settings::{Mistake, Settings};
use super::terminal::{complain, say};
use super::{demo, exit, help, monitor, queue, redirect, send};
use crate::base::address::Transport;
use crate::base::name::Service;
use crate::os::inherit::{self, Found, Inherited};
use crate::os::{cpu, limits, load};
use getopts::{Matches, Options};
use log::{error, LevelFilter};
use std::path::{Path, PathBuf};

/// What `--version` prints.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    file: Option<PathBuf>,
    assignments: Vec<String>,
    louder: i32,
    stderr_was_client: bool,
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
        match self.load() {
            Ok(settings) => {
                logging::start_or_fall_back(&settings.log, settings.log_level, self.stderr_was_client);
                log::info!(target: "config", "read again");
                Some(settings)
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| error!(target: "config", "{mistake}"));
                error!(target: "config", "the old configuration stays");
                None
            }
        }
    }
}

const COMMANDS: [&str; 6] = ["queue", "redirect", "monitor", "send", "demo", "help"];
/// What talks to whoever started it, even over a socket.
const TALKING: [&str; 7] = ["send", "demo", "help", "-h", "--help", "-V", "--version"];

/// The command, and what follows it: from the program's name, or the first argument.
fn command(arguments: &[String]) -> (Option<&str>, &[String]) {
    let program = arguments.first().map_or("", String::as_str);
    let name = Path::new(program).file_stem().and_then(|name| name.to_str()).unwrap_or("");
    let rest = arguments.get(1..).unwrap_or_default();
    let by_name = match name {
        // The stem of `pegasus.inetd`, the paper's name, is that of the plain program.
        _ if program.ends_with("pegasus.inetd") => Some("redirect"),
        // A superserver's line that forgot to repeat the program's name.
        "redirect" => Some("redirect"),
        _ => name.strip_prefix("pegasus-").filter(|name| COMMANDS.contains(name)),
    };
    match (by_name, rest.split_first()) {
        (Some(command), _) => (Some(command), rest),
        (None, Some((first, rest))) => (Some(first), rest),
        (None, None) => (None, rest),
    }
}

/// Runs the program; the result is its exit status.
pub fn main(arguments: &[String]) -> i32 {
    let (command, rest) = command(arguments);
    // Before anything can be said: a superserver's client may be on descriptor 2.
    let found = match command {
        Some(name) if TALKING.contains(&name) => Found { inherited: Inherited::Nothing, stderr_was_client: false },
        _ => inherit::take(),
    };
    if found.stderr_was_client {
        let _ = logging::start(&logging::Place::Syslog, LevelFilter::Info, true);
    } else {
        logging::start_tool(LevelFilter::Info);
    }
    logging::log_panics();
    let lent = found.lent_datagrams();
    let status = run(command, rest, found);
    if let Some(socket) = lent.filter(|_| status != exit::OK) {
        inherit::take_one(&socket);
    }
    status
}

fn run(command: Option<&str>, rest: &[String], found: Found) -> i32 {
    let client = found.stderr_was_client;
    match command {
        None => wrong_usage("which command?", client),
        Some("-h" | "--help") => help::print(&[]),
        Some("help") => help::print(rest),
        Some("-V" | "--version") => {
            say(format_args!(
                "pegasus {VERSION} {} load={} cpu={}",
                env!("PEGASUS_TARGET"),
                load::MECHANISM,
                cpu::MECHANISM
            ));
            exit::OK
        }
        Some("send") => parse("send", Options::new(), rest, client, send::run),
        Some("demo") => {
            let mut options = Options::new();
            options.optopt("", "seconds", "", "N");
            parse("demo", options, rest, client, demo::run)
        }
        Some(name @ ("queue" | "redirect" | "monitor")) => daemon(name, rest, found),
        Some(other) => wrong_usage(&format!("no such command: {other}"), client),
    }
}

fn wrong_usage(why: &str, stderr_was_client: bool) -> i32 {
    if stderr_was_client {
        error!(target: "usage", "{why}");
    } else {
        complain(format_args!("pegasus: {why}"));
        complain("usage: pegasus queue|redirect|monitor|send|demo|help [options]   (pegasus help COMMAND)");
    }
    exit::USAGE
}

fn parse(name: &str, mut options: Options, rest: &[String], client: bool, run: fn(&Matches) -> i32) -> i32 {
    options.optflag("h", "help", "");
    match options.parse(rest) {
        Ok(matches) if matches.opt_present("help") => help::print(&[name.to_string()]),
        Ok(matches) => run(&matches),
        Err(why) => wrong_usage(&format!("{name}: {why}"), client),
    }
}

fn daemon(name: &str, rest: &[String], found: Found) -> i32 {
    let client = found.stderr_was_client;
    let mut options = Options::new();
    options.optopt("c", "config", "", "FILE");
    options.optmulti("o", "set", "", "KEY=VALUE");
    options.optflag("t", "test", "");
    options.optflagmulti("v", "verbose", "");
    options.optflagmulti("q", "quiet", "");
    options.optflag("h", "help", "");
    if name == "redirect" {
        options.optopt("s", "service", "", "NAME");
    }
    if name == "monitor" {
        options.optflag("", "once", "");
    }
    let matches = match options.parse(rest) {
        Ok(matches) => matches,
        Err(why) => return wrong_usage(&format!("{name}: {why}"), client),
    };
    if matches.opt_present("help") {
        return help::print(&[name.to_string()]);
    }
    if let Some(extra) = matches.free.first() {
        return wrong_usage(&format!("{name}: what is `{extra}`?"), client);
    }
    let given = |option| name == "redirect" && option == "service" || name == "monitor" && option == "once";
    let service = match given("service").then(|| matches.opt_str("service")).flatten().map(|name| name.parse()) {
        Some(Err(why)) => return wrong_usage(&format!("{name}: -s: {why}"), client),
        Some(Ok(service)) => Some(service),
        None => None,
    };
    let source = Source {
        file: matches.opt_str("config").map(PathBuf::from).or_else(default_file),
        assignments: matches.opt_strs("set"),
        louder: matches.opt_count("verbose") as i32 - matches.opt_count("quiet") as i32,
        stderr_was_client: client,
    };
    let settings = match source.load() {
        Ok(settings) => settings,
        Err(mistakes) => {
            for mistake in mistakes {
                if client {
                    error!(target: "config", "{mistake}");
                } else {
                    complain(format_args!("pegasus: {mistake}"));
                }
            }
            return exit::CONFIG;
        }
    };
    if matches.opt_present("test") {
        return tell_test(name, &settings);
    }
    logging::start_or_fall_back(&settings.log, settings.log_level, client);
    if matches!(found.inherited, Inherited::Nothing) {
        warn_of_limit(name, &settings);
    }
    let once = given("once") && matches.opt_present("once");
    let daemon = Daemon { settings, source, service, inherited: found.inherited, once };
    match name {
        "queue" => queue::run(daemon),
        "redirect" => redirect::run(daemon),
        _ => monitor::run(daemon),
    }
}

/// `-t`: the configuration reads well, but is it enough for this command?
fn tell_test(name: &str, settings: &Settings) -> i32 {
    let idle = match name {
        "monitor" => settings.offered().is_empty(),
        "redirect" => settings.services.iter().all(|service| service.listen.is_empty()),
        _ => false,
    };
    match name {
        "monitor" if idle => {
            complain("pegasus: nothing to offer: set service_NAME_provider");
            return exit::CONFIG;
        }
        "redirect" if idle => say("the configuration is good for a superserver; standalone needs service_NAME_listen"),
        _ => say("the configuration is good"),
    }
    exit::OK
}

/// The configuration that is read when none is named.
fn default_file() -> Option<PathBuf> {
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
fn warn_of_limit(name: &str, settings: &Settings) {
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
