//! `pegasus export`: the providers of a service, for an engine that leads the clients.
//!
//! Owns the options, the questions to the queue, and standard output. What has changed is
//! decided in the core; how an engine is told stands in a file for each.

mod frame;
mod haproxy;
mod ipvsadm;
mod nft;
mod nginx;

use super::exit;
use super::operate::{ask, queues, service, AskedQueue};
use super::terminal::{print_error, write_text};
use crate::config::settings::Settings;
use crate::config::source::default_file;
use crate::os::output;
use frame::Frame;
use getopts::{Matches, Options};
use haproxy::Haproxy;
use pegasus_core::base::key_value;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::export::follower::{Follower, Transaction};
use pegasus_core::export::plan::Plan;
use pegasus_core::protocol::request::Request;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

const ENGINES: &str = "nft, ipvsadm, haproxy or nginx";

/// The options of this command, besides the configuration.
pub fn add_options(options: &mut Options) {
    options.optopt("s", "service", "", "NAME");
    options.optflag("", "follow", "");
    options.optmulti("", "listen", "", "ADDRESS");
    options.optflag("", "masquerade", "");
    options.optopt("", "backend", "", "NAME");
    options.optopt("", "socket", "", "PATH");
}

/// What is told, and how.
enum Engine {
    Nft,
    Ipvsadm,
    Haproxy(Box<Haproxy>),
    Nginx,
}

impl Engine {
    /// The commands of a transaction.
    fn commands(&mut self, frame: &Frame, change: &Transaction) -> Vec<String> {
        match self {
            Engine::Nft => nft::ruleset(frame, &change.after),
            Engine::Ipvsadm => ipvsadm::commands(frame, change),
            Engine::Haproxy(haproxy) => haproxy.commands(frame, change),
            Engine::Nginx => nginx::upstream(frame, &change.after),
        }
    }

    /// Whether a transaction has to be one line, because the engine takes each line for one.
    fn in_one_line(&self) -> bool {
        matches!(self, Engine::Nft)
    }
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    match Export::new(matches) {
        Ok(export) if matches.opt_present("follow") => export.follow(),
        Ok(export) => export.once(),
        Err(status) => status,
    }
}

struct Export {
    queue: AskedQueue,
    service: ServiceName,
    interval: Span,
    frame: Frame,
    engine: Engine,
    /// A provider without a port was told of.
    warned: bool,
}

fn usage(why: impl std::fmt::Display) -> i32 {
    print_error(format_args!("pegasus: export: {why}"));
    exit::USAGE
}

impl Export {
    /// What the command line asks for.
    ///
    /// # Errors
    /// The exit status; the mistake has been printed.
    fn new(matches: &Matches) -> Result<Export, i32> {
        let Some((engine, addresses)) = matches.free.split_first() else {
            return Err(usage(format_args!("for which engine? ({ENGINES})")));
        };
        if !["nft", "ipvsadm", "haproxy", "nginx"].contains(&engine.as_str()) {
            return Err(usage(format_args!("`{engine}` is not {ENGINES}")));
        }
        if addresses.len() > 1 {
            return Err(usage("more than one queue"));
        }
        let Some(service) = service("export", matches)? else {
            return Err(usage("which service? (-s NAME)"));
        };
        let queue = queues("export", matches, addresses)?.remove(0);
        let file = matches.opt_str("config").map(PathBuf::from).or_else(default_file);
        let settings =
            Settings::load(file.as_deref(), &matches.opt_strs("set")).map_err(|_| exit::CONFIG)?;
        let frame = Frame::new(service, &settings, matches).map_err(usage)?;
        let engine = match engine.as_str() {
            "nft" => Engine::Nft,
            "ipvsadm" => Engine::Ipvsadm,
            "haproxy" => Engine::Haproxy(Box::new(haproxy(&frame, matches)?)),
            _ => Engine::Nginx,
        };
        let needs_address = match engine {
            Engine::Nft => frame.listen.is_empty(),
            Engine::Ipvsadm => frame.listen.iter().all(|listen| listen.ip.is_none()),
            Engine::Haproxy(_) | Engine::Nginx => false,
        };
        if needs_address {
            let what = if frame.listen.is_empty() { "an address" } else { "an IP address, not *," };
            print_error(format_args!(
                "pegasus: export: the engine needs {what} to which clients of {service} connect: \
                 set service_{}_listen, or give --listen ADDRESS",
                service.to_string().replace('-', "_")
            ));
            return Err(exit::CONFIG);
        }
        let interval = settings.monitor_interval;
        Ok(Export { queue, service, interval, frame, engine, warned: false })
    }

    /// Prints what turns an empty engine into the wanted one.
    fn once(mut self) -> i32 {
        let mut connection = None;
        let status = match self.ask(&mut connection, None) {
            Ok(status) => status,
            Err(error) => {
                print_error(format_args!("pegasus: {}: {error}", self.queue));
                return exit::UNAVAILABLE;
            }
        };
        if let Some(error) = status.strip_prefix("error ") {
            print_error(format_args!("pegasus: {}: the queue answers: {error}", self.queue));
            return exit::ANSWER;
        }
        let change = Transaction { before: None, after: Plan::read(&status, self.service) };
        let text = self.text(&status, &change, false);
        write_text(text).err().unwrap_or(exit::OK)
    }

    /// Stays, and prints each change.
    fn follow(mut self) -> i32 {
        let reader = thread::Builder::new().name("reader".into()).spawn(|| {
            output::wait_until_reader_left();
            std::process::exit(exit::OUTPUT);
        });
        if let Err(error) = reader {
            print_error(format_args!("pegasus: export: {error}"));
            return exit::SYSTEM;
        }
        let mut follower = Follower::new(self.interval);
        let mut connection = None;
        let start = Instant::now();
        loop {
            let asked = Instant::now();
            // When it asked: an answer that is quicker than the one before is not too early.
            let now = Moment::after_start((asked - start).into());
            let answer = self.ask(&mut connection, Some(follower.lease()));
            let why = match answer {
                Ok(status) => match status.strip_prefix("error ") {
                    Some(error) => Some(format!("the queue answers: {error}")),
                    None => {
                        let plan = Plan::read(&status, self.service);
                        if let Some(change) = follower.told(plan, now) {
                            let text = self.text(&status, &change, true);
                            if print(&text).is_err() {
                                return exit::OUTPUT;
                            }
                        }
                        None
                    }
                },
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why.filter(|_| follower.lost()) {
                let queue = &self.queue;
                print_error(format_args!("pegasus: {queue}: {why}; what was printed last stands"));
            }
            thread::sleep(std::time::Duration::from(self.interval).saturating_sub(asked.elapsed()));
        }
    }

    /// The status of the service; `lease`: for so long an engine counts on this reader.
    ///
    /// # Errors
    /// Returns the OS error.
    fn ask(
        &self,
        connection: &mut Option<super::send::ControlConnection>,
        lease: Option<Span>,
    ) -> io::Result<String> {
        let request = Request::Status { service: Some(self.service), export: lease };
        let mut line = Vec::new();
        request.write(&self.queue, &mut line);
        let lines = ask(connection, &self.queue, String::from_utf8_lossy(&line).trim_end())?;
        Ok(lines.join("\n"))
    }

    /// A transaction as text.
    fn text(&mut self, status: &str, change: &Transaction, stays: bool) -> String {
        let name = self.service.to_string();
        let own = |line: &&str| {
            line.starts_with("service ") && key_value::find(line, "name") == Some(&name)
        };
        let scheduler =
            status.lines().find(own).and_then(|line| key_value::find(line, "scheduler"));
        self.frame.scheduler = scheduler.unwrap_or_default().to_string();
        self.frame.stays = stays;
        let mut providers = change.after.backends().iter().map(|backend| backend.provider);
        let lost = match self.engine {
            Engine::Nft => None,
            _ => providers.find(|provider| self.frame.socket(*provider).is_none()),
        };
        if let Some(provider) = lost.filter(|_| !std::mem::replace(&mut self.warned, true)) {
            print_error(format_args!(
                "pegasus: export: provider {provider} is left out: it has no port, and neither \
                 service_NAME_listen nor --listen names one"
            ));
        }
        let one_line = stays && self.engine.in_one_line();
        let commands = self.engine.commands(&self.frame, change);
        if commands.is_empty() {
            return String::new();
        }
        commands.join(if one_line { "; " } else { "\n" }) + "\n"
    }
}

/// Prints a transaction.
///
/// # Errors
/// Returns the OS error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// A HAProxy, with the servers that it has, as far as it can be asked.
///
/// # Errors
/// The exit status; the mistake has been printed.
fn haproxy(frame: &Frame, matches: &Matches) -> Result<Haproxy, i32> {
    let backend = matches.opt_str("backend").unwrap_or_else(|| frame.name());
    let valid = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if backend.is_empty() || !backend.chars().all(valid) {
        return Err(usage(format_args!("`{backend}` is not a name of a backend")));
    }
    let Some(socket) = matches.opt_str("socket") else { return Ok(Haproxy::empty(backend)) };
    Haproxy::ask(backend, &socket).map_err(|why| {
        print_error(format_args!("pegasus: export: {socket}: {why}"));
        exit::UNAVAILABLE
    })
}
