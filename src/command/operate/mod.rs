//! What an operator does with queues that run: look at them, and keep clients from a
//! provider for a while.
//!
//! Owns which queues are meant, and how they are asked. Each command has its file.

pub mod drain;
pub mod status;
pub mod top;

mod table;

use super::exit;
use super::send::ControlConnection;
use super::terminal::print_error;
use crate::config::settings::Settings;
use crate::config::source::default_file;
use getopts::{Matches, Options};
use pegasus_core::base::address::{HostPort, QueueAddr};
use pegasus_core::base::service_name::ServiceName;
use std::io;
use std::path::PathBuf;

/// Queues that one command asks at the most.
const QUEUES_MAX: usize = 64;

/// The options that all of these commands have, besides the configuration.
pub fn add_options(options: &mut Options) {
    options.optopt("s", "service", "", "NAME");
}

/// The queues that these addresses name, or the usual one of the configuration.
///
/// # Errors
/// The exit status; the mistake has been printed.
fn queues(name: &str, matches: &Matches, addresses: &[String]) -> Result<Vec<HostPort>, i32> {
    if addresses.len() > QUEUES_MAX {
        print_error(format_args!("pegasus: {name}: more than {QUEUES_MAX} addresses"));
        return Err(exit::USAGE);
    }
    let mut queues = Vec::new();
    for address in addresses {
        match address.parse::<QueueAddr>() {
            Ok(QueueAddr(queue)) => queues.push(queue),
            Err(why) => {
                print_error(format_args!("pegasus: {name}: `{address}` is {why}"));
                return Err(exit::USAGE);
            }
        }
    }
    if queues.is_empty() {
        let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
        match Settings::load(file.as_deref(), &matches.opt_strs("set")) {
            Ok(settings) => queues.push(settings.usual_queue()),
            Err(errors) => {
                errors.iter().for_each(|error| print_error(format_args!("pegasus: {error}")));
                return Err(exit::CONFIG);
            }
        }
    }
    Ok(queues)
}

/// The service that was named with `-s`; people may write `_` for `-`.
///
/// # Errors
/// The exit status; the mistake has been printed.
fn service(name: &str, matches: &Matches) -> Result<Option<ServiceName>, i32> {
    let Some(text) = matches.opt_str("service") else { return Ok(None) };
    text.to_ascii_lowercase().replace('_', "-").parse().map(Some).map_err(|why| {
        print_error(format_args!("pegasus: {name}: -s: `{text}` is {why}"));
        exit::USAGE
    })
}

/// Asks a queue for its status; the lines of the answer.
///
/// # Errors
/// Returns the OS error, or the error that the queue answered.
fn ask_status(
    connection: &mut Option<ControlConnection>,
    queue: &HostPort,
    service: Option<ServiceName>,
) -> io::Result<String> {
    let parameter = service.map_or(String::new(), |service| format!("?service={service}"));
    let lines = ask(connection, queue, &format!("pegasus://{queue}/status{parameter}"))?;
    match lines.first().filter(|line| line.starts_with("error")) {
        Some(error) => Err(io::Error::other(format!("the queue answers: {error}"))),
        None => Ok(lines.join("\n")),
    }
}

/// Asks on a connection that is made where there is none, and kept.
fn ask(
    connection: &mut Option<ControlConnection>,
    queue: &HostPort,
    message: &str,
) -> io::Result<Vec<String>> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => ControlConnection::connect(queue.clone())?,
    };
    let answer = open.ask(message)?;
    *connection = Some(open);
    Ok(answer)
}
