//! `pegasus send`: control messages for scripts.
//!
//! Owns one blocking connection at a time, and prints answers as they come.

use super::exit;
use super::terminal::{print_error, write_text};
use crate::config::settings::Settings;
use crate::config::source::default_file;
use crate::net::secure_link::SecureStream;
use getopts::Matches;
use pegasus_core::base::endpoint::{HostPort, CONTROL_PORT};
use pegasus_core::base::printable::printable;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::url::Url;
use pegasus_core::protocol::line_decoder::LINE_BYTES_MAX;
use pegasus_core::protocol::peer_key::{KeyRole, KeyTable, PeerKey};
use pegasus_core::protocol::request::Request;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest piece of an answer that is taken as one line, in bytes.
const ANSWER_LINE_MAX: u64 = 64 * 1024;
/// Longer than any wait that a queue grants by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one ticket queue.
pub struct ControlConnection {
    target: HostPort,
    /// The key that it proved; none: it is plain.
    key: Option<Arc<PeerKey>>,
    stream: BufReader<Box<dyn Stream>>,
}

/// What lines are written to and read from.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl ControlConnection {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// Returns the OS error of the last one.
    pub fn connect(target: HostPort) -> io::Result<ControlConnection> {
        ControlConnection::connect_with(target, None)
    }

    /// The same with a key, if there is one; then never in plain.
    ///
    /// # Errors
    /// The same, or that the queue refused the key.
    pub fn connect_with(
        target: HostPort,
        key: Option<Arc<PeerKey>>,
    ) -> io::Result<ControlConnection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
        for address in (target.host.as_str(), target.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                    stream.set_nodelay(true)?;
                    let stream: Box<dyn Stream> = match &key {
                        Some(key) => Box::new(SecureStream::connect(stream, key)?),
                        None => Box::new(stream),
                    };
                    return Ok(ControlConnection { target, key, stream: BufReader::new(stream) });
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
            let mut line = Vec::new();
            if self.stream.by_ref().take(ANSWER_LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the queue closed the connection",
                ));
            }
            let line = printable(String::from_utf8_lossy(&line).trim_end());
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
    let mut sender = Sender { matches, settings: None, connection: None, status: exit::OK };
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

/// The key of a role that may send this message. Words that are no message go with
/// whichever key there is, so that they do not go in plain.
pub fn key_for(keys: &KeyTable, text: &str) -> Option<Arc<PeerKey>> {
    let key = match Request::parse(text.as_bytes()) {
        Ok(request) => keys.first_of(KeyRole::of(&request)),
        Err(_) => keys.iter().next(),
    };
    key.cloned()
}

/// A service may be written as in a key of the configuration; in messages it has `-` for
/// `_`, and no capitals.
fn with_typed_service(url: &str) -> String {
    let Some((start, query)) = url.split_once('?') else { return url.to_string() };
    let parameter = |text: &str| match text.strip_prefix("service=").map(ServiceName::typed) {
        Some(Ok(service)) => format!("service={service}"),
        _ => text.to_string(),
    };
    let parameters: Vec<String> = query.split('&').map(parameter).collect();
    format!("{start}?{}", parameters.join("&"))
}

struct Sender<'a> {
    matches: &'a Matches,
    /// Which queue is meant where none is named, and with which keys; read when the first
    /// message comes.
    settings: Option<Box<Settings>>,
    connection: Option<ControlConnection>,
    status: i32,
}

impl Sender<'_> {
    /// The configuration, whose mistakes are printed.
    fn settings(&mut self) -> Option<&Settings> {
        if self.settings.is_none() {
            let file = self.matches.opt_str("config").map(PathBuf::from).or_else(default_file);
            match Settings::load(file.as_deref(), &self.matches.opt_strs("set")) {
                Ok(settings) => self.settings = Some(Box::new(settings)),
                Err(errors) => {
                    errors.iter().for_each(|error| print_error(format_args!("pegasus: {error}")));
                    self.status = exit::CONFIG;
                }
            }
        }
        self.settings.as_deref()
    }

    /// Sends one message; returns whether to go on.
    fn send(&mut self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix("pegasus:///") else { return self.send_to(text) };
        let Some(queue) = self.settings().map(Settings::usual_queue) else { return false };
        self.send_to(&format!("pegasus://{queue}/{rest}"))
    }

    fn send_to(&mut self, text: &str) -> bool {
        let text = &with_typed_service(text);
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
        // Read also where the message names the queue: a key that is there is always used.
        let Some(settings) = self.settings() else { return false };
        let key = key_for(&settings.keys, text);
        let same =
            |connection: &ControlConnection| connection.target == target && connection.key == key;
        if !self.connection.as_ref().is_some_and(same) {
            match ControlConnection::connect_with(target, key) {
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

#[cfg(test)]
mod tests {
    use super::with_typed_service;

    #[test]
    fn a_service_may_be_typed_as_in_a_key() {
        for (typed, sent) in [
            ("pegasus://b/next?service=my_app&id=1", "pegasus://b/next?service=my-app&id=1"),
            ("pegasus://b/next?id=1&service=MY_APP", "pegasus://b/next?id=1&service=my-app"),
            ("pegasus://b/next?service=_x", "pegasus://b/next?service=_x"),
            ("pegasus://b_b/status", "pegasus://b_b/status"),
            ("what?", "what?"),
        ] {
            assert_eq!(with_typed_service(typed), sent);
        }
    }
}
