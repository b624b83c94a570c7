//! The command line: selects the command, its options and its configuration.
//!
//! Owns usage errors. Nothing here may reach a client: under a superserver descriptor 2
//! is replaced before the first argument is read.

use super::bounds;
#[cfg(feature = "operate")]
use super::check;
use super::daemon::{warn_about_limit, Daemon};
use super::options::{options, COMMANDS, DAEMONS};
use super::terminal::{print_error, print_line};
use super::{exit, help, key, own_offers, send};
use crate::config::places;
use crate::config::reader::ConfigError;
use crate::config::settings::Settings;
use crate::config::source::{default_file, ConfigSource};
use crate::logging;
use crate::net::secure_link;
use crate::os::inherit::{self, Inherited, StartContext};
use crate::os::{cpu, keeper, loadavg, privileges, sandbox, service_manager};
use getopts::Matches;
use log::{debug, error, info, warn, LevelFilter};
use pegasus_core::base::service_name::ServiceName;
use std::io;
use std::path::{Path, PathBuf};

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name of a daemon command, and the function that runs it.
type Role = (&'static str, fn(Daemon) -> i32);
/// The daemon commands that were built in.
const ROLES: &[Role] = &[
    #[cfg(feature = "queue")]
    ("queue", super::queue::run),
    #[cfg(feature = "redirect")]
    ("redirect", super::redirect::run),
    #[cfg(feature = "monitor")]
    ("monitor", super::monitor::run),
];
/// Whether a command always talks to its caller, even over a socket.
fn is_interactive(command: &str) -> bool {
    let is_tool = COMMANDS.contains(&command) && !DAEMONS.contains(&command);
    is_tool || matches!(command, "-h" | "--help" | "-V" | "--version")
}

/// Returns the command and its arguments: from the program's name or the first argument.
fn command(arguments: &[String]) -> (Option<&str>, &[String]) {
    let program = arguments.first().map_or("", String::as_str);
    let name = Path::new(program).file_stem().and_then(|name| name.to_str()).unwrap_or("");
    let rest = arguments.get(1..).unwrap_or_default();
    let by_name = match name {
        // The stem of `pegasus.inetd`, the paper's name, is that of the plain program.
        _ if program.ends_with("pegasus.inetd") => Some("redirect"),
        // A line of inetd.conf that does not repeat the program's name.
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
    // Before anything is printed: descriptor 2 may be a superserver's client.
    let start_context = match command {
        Some(name) if is_interactive(name) => {
            StartContext { inherited: Inherited::Nothing, stderr_was_client: false }
        }
        _ => {
            let start_context = inherit::take();
            keeper::split_init();
            start_context
        }
    };
    if start_context.stderr_was_client {
        logging::start(&logging::LogOptions {
            destination: logging::LogDestination::Syslog,
            level: LevelFilter::Info,
            format: logging::Format::Text,
            stderr_was_client: true,
        });
    } else {
        logging::start_tool(LevelFilter::Info);
    }
    logging::log_panics();
    let borrowed = start_context.borrowed_socket();
    let status = run(command, rest, start_context);
    if let Some(socket) = borrowed.filter(|_| status != exit::OK) {
        socket.discard_one();
    }
    logging::flush();
    status
}

fn run(command: Option<&str>, rest: &[String], start_context: StartContext) -> i32 {
    let client = start_context.stderr_was_client;
    match command {
        None => usage_error("missing command", client),
        Some("-h" | "--help") => help::print(&[]),
        Some("help") => parse("help", rest, client, help::run),
        Some("-V" | "--version") => {
            print_line(format_args!(
                "pegasus {VERSION} {} load={} cpu={}",
                env!("PEGASUS_TARGET"),
                loadavg::MECHANISM,
                cpu::MECHANISM
            ));
            exit::OK
        }
        Some("send") => parse("send", rest, client, send::run),
        Some("key") => parse("key", rest, client, key::run),
        Some(option) if option.starts_with('-') => test_all(option, rest, client),
        #[cfg(feature = "operate")]
        Some("status") => parse("status", rest, client, super::operate::status::run),
        #[cfg(feature = "operate")]
        Some("top") => parse("top", rest, client, super::operate::top::run),
        #[cfg(feature = "operate")]
        Some("drain") => parse("drain", rest, client, super::operate::drain::run_drain),
        #[cfg(feature = "operate")]
        Some("resume") => parse("resume", rest, client, super::operate::drain::run_resume),
        #[cfg(feature = "operate")]
        Some("check") => parse("check", rest, client, check::run),
        #[cfg(feature = "export")]
        Some("export") => parse("export", rest, client, super::export::run),
        #[cfg(feature = "demo")]
        Some("demo") => parse("demo", rest, client, super::demo::run),
        Some(other) => match ROLES.iter().find(|(name, _)| *name == other) {
            Some(role) => {
                let rest = rest.to_vec();
                service_manager::run(move || daemon(role, &rest, start_context))
            }
            None if COMMANDS.contains(&other) => {
                usage_error(&format!("this program was built without {other}"), client)
            }
            None => usage_error(&format!("no such command: {other}"), client),
        },
    }
}

fn usage_error(why: &str, stderr_was_client: bool) -> i32 {
    if stderr_was_client {
        error!(target: "usage", "{why}");
    } else {
        print_error(format_args!("pegasus: {why}"));
        let commands = COMMANDS.join("|");
        print_error(format_args!("usage: pegasus {commands} [options]   (pegasus help COMMAND)"));
    }
    exit::USAGE
}

fn parse(name: &str, rest: &[String], client: bool, run: fn(&Matches) -> i32) -> i32 {
    match options(name).parse(rest) {
        Ok(matches) if matches.opt_present("help") && name == "help" => help::print(&[]),
        Ok(matches) if matches.opt_present("help") => help::print(&[name.to_string()]),
        Ok(matches) => run(&matches),
        Err(why) => usage_error(&format!("{name}: {why}"), client),
    }
}

fn daemon(&(name, run): &Role, rest: &[String], start_context: StartContext) -> i32 {
    let client = start_context.stderr_was_client;
    let matches = match options(name).parse(rest) {
        Ok(matches) => matches,
        Err(why) => return usage_error(&format!("{name}: {why}"), client),
    };
    if matches.opt_present("help") {
        return help::print(&[name.to_string()]);
    }
    if let Some(extra) = matches.free.first() {
        return usage_error(&format!("{name}: unexpected argument `{extra}`"), client);
    }
    let service = match service_of(name, &matches, &start_context) {
        Ok(service) => service,
        Err(why) => return usage_error(&format!("{name}: {why}"), client),
    };
    let once = name == "monitor" && matches.opt_present("once");
    let starts_itself =
        matches!(start_context.inherited, Inherited::Nothing | Inherited::Handed(_));
    let source = ConfigSource {
        file: matches.opt_str("config").map(PathBuf::from).or_else(default_file),
        assignments: matches.opt_strs("set"),
        verbosity: matches.opt_count("verbose") as i32 - matches.opt_count("quiet") as i32,
        stderr_was_client: client,
        under_superserver: !starts_itself,
    };
    if matches!(start_context.inherited, Inherited::Handed(_)) {
        sandbox::recall();
    }
    let settings = match source.load_within_sandbox() {
        Ok(settings) => settings,
        Err(errors) => return report_errors(&errors, &source, &start_context),
    };
    if matches.opt_present("test") {
        return report_test(name, &settings);
    }
    // Before the first line of the log, whose thread would keep what it had.
    let restricted = if settings.runs_commands() { Ok(()) } else { privileges::restrict() };
    let sandboxed = if starts_itself { enter_sandbox(name, &settings) } else { Ok(false) };
    logging::start(&source.log_options(&settings));
    if let Err(error) = restricted {
        // A sandbox that forbids to ask does not allow much either.
        debug!(target: "privileges", "privileges that are not needed were kept: {error}");
    }
    log_sandbox(sandboxed, settings.sandbox && starts_itself);
    if starts_itself {
        warn_about_limit(name, &settings);
        if !once {
            info!(target: "limits", "bounds {}", bounds::bounds(name, &settings));
        }
        own_offers::warnings(name, &settings)
            .iter()
            .for_each(|warning| log::warn!(target: "config", "{warning}"));
    }
    if !settings.keys.is_empty() {
        let waiting = || warn!(target: "keys", "waiting for the randomness of the system");
        if let Err(error) = secure_link::await_randomness(waiting) {
            error!(target: "keys", "no randomness: {error}");
            return exit::SYSTEM;
        }
    }
    run(Daemon { settings, source, service, inherited: start_context.inherited, once })
}

/// The service of `-s`, which a superserver's socket is for.
fn service_of(
    name: &str,
    matches: &Matches,
    start_context: &StartContext,
) -> Result<Option<ServiceName>, String> {
    // getopts panics if it is asked for an option that the command does not have.
    let typed = if name == "redirect" { matches.opt_str("service") } else { None };
    let Some(typed) = typed else { return Ok(None) };
    let service = ServiceName::typed(&typed).map_err(|why| format!("-s: {why}"))?;
    if matches!(start_context.inherited, Inherited::Nothing) && !matches.opt_present("test") {
        return Err("-s names the service of a socket from a superserver, and there is none: \
                    without it, redirect serves every service_NAME_listen"
            .to_string());
    }
    Ok(Some(service))
}

/// Gives up the files that a daemon does not need; returns whether it did. A command that
/// is configured needs who knows what.
fn enter_sandbox(name: &str, settings: &Settings) -> io::Result<bool> {
    if !settings.sandbox || settings.runs_commands() {
        return Ok(false);
    }
    let mut places = places::of(settings);
    if name == "redirect" {
        // For an upgrade, where there is one.
        let program = inherit::program().ok();
        let target = program.as_ref().and_then(|program| program.canonicalize().ok());
        let folders = [program, target].into_iter().flatten();
        places.run = folders.filter_map(|file| Some(file.parent()?.to_path_buf())).collect();
    }
    sandbox::enter(places)
}

/// Logs whether there is a sandbox; `wanted`: it is to be there.
fn log_sandbox(entered: io::Result<bool>, wanted: bool) {
    match entered {
        Ok(true) => {
            info!(target: "privileges", "sandbox: only files that the configuration names can be \
                reached")
        }
        Ok(false) if wanted => {
            warn!(target: "privileges", "no sandbox: a command is configured, or this system has \
                none");
        }
        Ok(false) => {}
        Err(error) => warn!(target: "privileges", "no sandbox: {error}"),
    }
}

/// `-t` without a command: whether the configuration is good for all commands.
fn test_all(first: &str, rest: &[String], client: bool) -> i32 {
    let mut options = options("");
    options.optflag("t", "test", "");
    let arguments: Vec<&str> = [first].into_iter().chain(rest.iter().map(String::as_str)).collect();
    let matches = match options.parse(&arguments) {
        Ok(matches) if matches.opt_present("test") && matches.free.is_empty() => matches,
        Ok(_) => return usage_error("missing command", client),
        Err(why) => return usage_error(&why.to_string(), client),
    };
    let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
    match Settings::load(file.as_deref(), &matches.opt_strs("set")) {
        Ok(settings) => {
            report_all(&settings);
            exit::OK
        }
        Err(errors) => {
            errors.iter().for_each(|error| print_error(format_args!("pegasus: {error}")));
            exit::CONFIG
        }
    }
}

/// What a valid configuration makes of each command.
fn report_all(settings: &Settings) {
    for warning in own_offers::warnings("", settings) {
        print_error(format_args!("pegasus: warning: {warning}"));
    }
    print_line("the configuration is good");
    for (name, _) in ROLES {
        let what = match *name {
            "queue" => format!("listens on {}", words(&settings.queue_listen)),
            "redirect" if has_no_listener(settings) => {
                "is for superservers: no service_NAME_listen".to_string()
            }
            "redirect" => {
                let served = settings.services.iter().filter(|service| !service.listen.is_empty());
                let served =
                    served.map(|service| format!("{} on {}", service.name, words(&service.listen)));
                format!("serves {}", served.collect::<Vec<_>>().join(", "))
            }
            _ if settings.to_offer().is_empty() => {
                "has nothing to offer: no service_NAME_provider".to_string()
            }
            _ => {
                let offered: Vec<_> =
                    settings.to_offer().iter().map(|service| service.name).collect();
                format!("offers {} to {}", words(&offered), words(&settings.monitor_balancers))
            }
        };
        print_line(format_args!("{name} {what}"));
    }
}

fn words<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn has_no_listener(settings: &Settings) -> bool {
    settings.services.iter().all(|service| service.listen.is_empty())
}

/// Reports the mistakes in a configuration where they will be seen; returns the exit status.
fn report_errors(
    errors: &[ConfigError],
    source: &ConfigSource,
    start_context: &StartContext,
) -> i32 {
    let client = start_context.stderr_was_client;
    let managed = service_manager::is_managed();
    if managed {
        logging::start(&source.log_options_among_mistakes());
    }
    for error in errors {
        if let Inherited::Handed(handover) = &start_context.inherited {
            handover.predecessor.report_failure(&error.to_string());
        }
        if client || managed {
            error!(target: "config", "{error}");
        } else {
            print_error(format_args!("pegasus: {error}"));
        }
    }
    exit::CONFIG
}

/// `-t`: reports whether a valid configuration is enough for this command.
fn report_test(name: &str, settings: &Settings) -> i32 {
    let idle = match name {
        "monitor" => settings.to_offer().is_empty(),
        "redirect" => has_no_listener(settings),
        _ => false,
    };
    if name == "redirect" && !cfg!(feature = "queue") {
        print_line(format_args!(
            "this program has no queue to embed: it asks {}",
            settings.usual_queue()
        ));
    }
    for warning in own_offers::warnings(name, settings) {
        print_error(format_args!("pegasus: warning: {warning}"));
    }
    match name {
        "monitor" if idle => {
            print_error("pegasus: nothing to offer: set service_NAME_provider");
            return exit::CONFIG;
        }
        "redirect" if idle => print_line(
            "the configuration is good for a superserver; standalone needs service_NAME_listen",
        ),
        _ => print_line("the configuration is good"),
    }
    exit::OK
}
