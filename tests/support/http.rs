//! Minimal HTTP: one request per connection.

use super::PATIENCE;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The result of a request.
pub struct Visit {
    /// The client's port.
    pub port: u16,
    /// The body, if it is as long as announced.
    pub body: io::Result<String>,
}

/// Requests a path.
pub fn get(server: SocketAddr, path: &str) -> io::Result<Visit> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let port = stream.local_addr()?.port();
    Ok(Visit { port, body: fetch(&mut stream, path) })
}

/// Sends one GET over an open connection.
pub fn fetch(stream: &mut TcpStream, path: &str) -> io::Result<String> {
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let broken =
        |why: &str| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{why}: {text:.100}"));
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Err(broken("no head")) };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(broken("not found"));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    if length != Some(body.len()) {
        return Err(broken("cut off"));
    }
    Ok(body.to_string())
}
