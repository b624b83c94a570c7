//! `pegasus send`: control messages for scripts.
//!
//! Owns one blocking connection at a time, and prints answers as they come.

use super::exit;
use super::terminal::{print_error, write_text};
use crate::config::settings::Settings;
use crate::config::source::default_file;
use getopts::Matches;
use pegasus_core::base::address::{HostPort, CONTROL_PORT};
use pegasus_core::base::url::Url;
use pegasus_core::protocol::line_decoder::LINE_BYTES_MAX;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any wait that a queue grants by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one ticket queue.
pub struct ControlConnection {
    target: HostPort,
    stream: BufReader<TcpStream>,
}

impl ControlConnection {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// Returns the OS error of the last one.
    pub fn connect(target: HostPort) -> io::Result<ControlConnection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
        for address in (target.host.as_str(), target.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                    stream.set_nodelay(true)?;
                    return Ok(ControlConnection { target, stream: BufReader::new(stream) });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends one message and reads its answer: one line, or those of `status`
    /// without the dot that ends them.
    ///
    /// # Errors
    /// Returns the OS error, or that the queue closed the connection.
    pub fn ask(&mut self, url: &str) -> io::Result<Vec<String>> {
        self.stream.get_mut().write_all(format!("{url}\n").as_bytes())?;
        let many = Url::parse(url).is_ok_and(|url| url.path == "/status");
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the queue closed the connection",
                ));
            }
            let line = line.trim_end().to_string();
            if many && line == "." {
                return Ok(lines);
            }
            let last = !many || line.starts_with("error ");
            lines.push(line);
            if last {
                return Ok(lines);
            }
        }
    }
}

/// Runs the command; the result is its exit status.
pub fn run(matches: &Matches) -> i32 {
    let mut sender = Sender { matches, queue: None, connection: None, status: exit::OK };
    if matches.free.is_empty() {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if !line.trim().is_empty() && !sender.send(line.trim()) {
                break;
            }
        }
    } else {
        let _ = matches.free.iter().all(|url| sender.send(url));
    }
    sender.status
}

struct Sender<'a> {
    matches: &'a Matches,
    /// Where messages go that name no queue; read for the first one.
    queue: Option<HostPort>,
    connection: Option<ControlConnection>,
    status: i32,
}

impl Sender<'_> {
    /// The queue of the configuration, whose mistakes are printed.
    fn queue(&mut self) -> Option<HostPort> {
        if self.queue.is_none() {
            let file = self.matches.opt_str("config").map(PathBuf::from).or_else(default_file);
            match Settings::load(file.as_deref(), &self.matches.opt_strs("set")) {
                Ok(settings) => self.queue = Some(settings.usual_queue()),
                Err(errors) => {
                    errors.iter().for_each(|error| print_error(format_args!("pegasus: {error}")));
                    self.status = exit::CONFIG;
                }
            }
        }
        self.queue.clone()
    }

    /// Sends one message; returns whether to go on.
    fn send(&mut self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix("pegasus:///") else { return self.send_to(text) };
        self.queue().is_some_and(|queue| self.send_to(&format!("pegasus://{queue}/{rest}")))
    }

    fn send_to(&mut self, text: &str) -> bool {
        let target = match Url::parse(text) {
            Ok(url)
                if url.scheme.eq_ignore_ascii_case("pegasus") && text.len() < LINE_BYTES_MAX =>
            {
                HostPort { host: url.host.to_string(), port: url.port.unwrap_or(CONTROL_PORT) }
            }
            Ok(_) if text.len() >= LINE_BYTES_MAX => {
                return self.fail(exit::USAGE, text, "longer than a message may be")
            }
            Ok(_) => return self.fail(exit::USAGE, text, "not pegasus://…"),
            Err(why) => return self.fail(exit::USAGE, text, why),
        };
        if self.connection.as_ref().is_none_or(|connection| connection.target != target) {
            match ControlConnection::connect(target) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return self.fail(exit::UNAVAILABLE, text, &error.to_string()),
            }
        }
        let Some(connection) = &mut self.connection else { return false };
        match connection.ask(text) {
            Ok(answers) => {
                let mut text = String::new();
                for answer in answers {
                    if answer == "error" || answer.starts_with("error ") {
                        self.status = exit::ANSWER;
                    }
                    text.push_str(&answer);
                    text.push('\n');
                }
                match write_text(text) {
                    Ok(()) => true,
                    Err(status) => {
                        self.status = self.status.max(status);
                        false
                    }
                }
            }
            Err(error) => {
                self.connection = None;
                self.fail(exit::UNAVAILABLE, text, &error.to_string())
            }
        }
    }

    fn fail(&mut self, status: i32, text: &str, why: &str) -> bool {
        print_error(format_args!("pegasus: {text}: {why}"));
        self.status = status;
        false
    }
}
