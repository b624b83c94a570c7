//! The protocol as a client of the queue sees it, over a plain socket.

use super::PATIENCE;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One control connection.
pub struct ControlConnection(BufReader<TcpStream>);

impl ControlConnection {
    #[track_caller]
    pub fn to(queue: SocketAddr) -> ControlConnection {
        ControlConnection::over(TcpStream::connect(queue).unwrap())
    }

    /// A connection that stands already.
    #[track_caller]
    pub fn over(stream: TcpStream) -> ControlConnection {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        ControlConnection(BufReader::new(stream))
    }

    /// Limits the time that a write may take.
    pub fn patience(&mut self, patience: Duration) {
        let _ = self.0.get_mut().set_write_timeout(Some(patience));
    }

    /// Sends raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Sends a message, given without its `pegasus://B/`.
    #[track_caller]
    pub fn say(&mut self, message: &str) {
        self.write(format!("pegasus://b/{message}\n").as_bytes()).unwrap();
    }

    /// Returns the next line; empty at the end of the connection.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        if !line.is_empty() {
            assert_eq!(line.pop(), Some('\n'), "an unfinished line: {line}");
        }
        line
    }

    #[track_caller]
    pub fn ask(&mut self, message: &str) -> String {
        self.say(message);
        self.hear()
    }

    /// Closes the sending side.
    pub fn end(&mut self) {
        let _ = self.0.get_mut().shutdown(Shutdown::Write);
    }

    #[track_caller]
    pub fn status(&mut self) -> Status {
        self.say("status");
        let mut rows = Vec::new();
        loop {
            let line = self.hear();
            if line == "." {
                return Status(rows);
            }
            assert!(!line.is_empty(), "the queue closed within its status");
            rows.push(Row::read(&line));
        }
    }
}

/// A line of the status: its kind, then `key=value`.
#[derive(Clone, Debug)]
pub struct Row {
    pub kind: String,
    pairs: HashMap<String, String>,
}

impl Row {
    /// Parses `kind key=value…`; other words are skipped.
    pub fn read(line: &str) -> Row {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or("").to_string();
        let pair = |word: &str| {
            word.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()))
        };
        Row { kind, pairs: words.filter_map(pair).collect() }
    }

    /// Returns all its keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        self.pairs.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} is no number in {self:?}"))
    }
}

/// The reply to `status`.
#[derive(Clone, Debug)]
pub struct Status(Vec<Row>);

impl Status {
    #[track_caller]
    pub fn queue(&self) -> &Row {
        self.0.iter().find(|row| row.kind == "queue").unwrap()
    }

    pub fn service(&self, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.kind == "service" && row.text("name") == name)
    }

    pub fn provider(&self, address: impl ToString) -> Option<&Row> {
        let address = address.to_string();
        self.0.iter().find(|row| row.kind == "provider" && row.text("address") == address)
    }

    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    pub fn providers(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.kind == "provider")
    }

    /// Returns the tickets of a provider, if it is known.
    pub fn tickets(&self, address: impl ToString) -> u64 {
        self.provider(address).map_or(0, |row| row.number("tickets"))
    }

    /// Returns the number of requests in progress at a provider.
    pub fn active(&self, address: impl ToString) -> u64 {
        self.provider(address).map_or(0, |row| row.number("active"))
    }

    /// Asserts that every offered ticket is free, active or spent.
    #[track_caller]
    pub fn check(&self) {
        for row in self.providers() {
            let sum = row.number("free") + row.number("active") + row.number("spent");
            assert_eq!(row.number("offered"), sum, "{row:?}");
        }
    }
}
