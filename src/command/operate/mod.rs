//! What an operator does with queues that run: look at them, and keep clients from a
//! provider for a while.
//!
//! Owns which queues are meant, and how they are asked. Each command has its file.

pub mod drain;
pub mod status;
pub mod top;

mod table;

use super::exit;
use super::send::{key_for, ControlConnection};
use super::terminal::print_error;
use crate::config::settings::Settings;
use crate::config::source::default_file;
use getopts::{Matches, Options};
use pegasus_core::base::endpoint::{HostPort, QueueAddr};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::protocol::peer_key::KeyTable;
use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Queues that one command asks at the most.
const QUEUES_MAX: usize = 64;

/// The options that all of these commands have, besides the configuration.
pub fn add_options(options: &mut Options) {
    options.optopt("s", "service", "", "NAME");
}

/// A queue that is asked, and the keys that may be used for it.
#[derive(Clone)]
pub struct AskedQueue {
    address: HostPort,
    keys: Arc<KeyTable>,
}

impl Display for AskedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The queues that these addresses name, or the usual one of the configuration.
///
/// # Errors
/// The exit status; the mistake has been printed.
pub fn queues(name: &str, matches: &Matches, addresses: &[String]) -> Result<Vec<AskedQueue>, i32> {
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
    // Read also where the queues are named: a key that is there is always used.
    let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
    let settings = Settings::load(file.as_deref(), &matches.opt_strs("set")).map_err(|errors| {
        errors.iter().for_each(|error| print_error(format_args!("pegasus: {error}")));
        exit::CONFIG
    })?;
    if queues.is_empty() {
        queues.push(settings.usual_queue());
    }
    let asked = |address| AskedQueue { address, keys: settings.keys.clone() };
    Ok(queues.into_iter().map(asked).collect())
}

/// The service that was named with `-s`; people may write `_` for `-`.
///
/// # Errors
/// The exit status; the mistake has been printed.
pub fn service(name: &str, matches: &Matches) -> Result<Option<ServiceName>, i32> {
    let Some(text) = matches.opt_str("service") else { return Ok(None) };
    ServiceName::typed(&text).map(Some).map_err(|why| {
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
    queue: &AskedQueue,
    service: Option<ServiceName>,
) -> io::Result<String> {
    let parameter = service.map_or(String::new(), |service| format!("?service={service}"));
    let lines = ask(connection, queue, &format!("pegasus://{queue}/status{parameter}"))?;
    match lines.first().filter(|line| line.starts_with("error")) {
        Some(error) => Err(io::Error::other(format!("the queue answers: {error}"))),
        None => Ok(lines.join("\n")),
    }
}

/// Asks on a connection that is made where there is none, and kept. One connection serves
/// one kind of message: its key is that of the first.
///
/// # Errors
/// Returns the OS error.
pub fn ask(
    connection: &mut Option<ControlConnection>,
    queue: &AskedQueue,
    message: &str,
) -> io::Result<Vec<String>> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => {
            ControlConnection::connect_with(queue.address.clone(), key_for(&queue.keys, message))?
        }
    };
    let answer = open.ask(message)?;
    *connection = Some(open);
    Ok(answer)
}
