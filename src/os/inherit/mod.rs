//! What the starter of this process left on its descriptors, and a process that takes the
//! place of this one.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn take() -> StartContext`: what was inherited. Called first of all.
//! - `fn start_successor(sockets, data) -> io::Result<Successor>`: starts this program again
//!   and leaves it these sockets.
//! - `fn program() -> io::Result<PathBuf>`: the file that it starts then.
//! - `struct Successor` with `id()`, `wait(Duration)`, `end()`, `send_socket(&str, &UdpSocket)`
//!   and `end_sockets()`.
//! - `struct Predecessor` with `read_data()`, `take_sockets()`, `report_ready()` and
//!   `report_failure(&str)`.
//! - `struct MovedSockets`, an iterator: what `Successor::send_socket()` sends.

#[cfg(unix)]
mod descriptors;
#[cfg(unix)]
mod fd_info;
#[cfg(unix)]
mod handover;
#[cfg(unix)]
mod moved_sockets;
#[cfg(unix)]
pub use handover::{program, start_successor, Predecessor, Successor};
#[cfg(unix)]
pub use moved_sockets::MovedSockets;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::{program, start_successor, take, MovedSockets, Predecessor, Successor};

use super::socket::Socket;
use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// What the starter left: the sockets of a process that this one takes the place
/// of, or else what is on the descriptors. Call it before anything is opened: what
/// a superserver left open besides is closed.
#[cfg(unix)]
pub fn take() -> StartContext {
    match handover::take() {
        Some(handover) => {
            StartContext { inherited: Inherited::Handed(handover), stderr_was_client: false }
        }
        None => descriptors::take(),
    }
}

/// The open log file: that of the process before, then that of this one.
static LOG_FILE: Mutex<Option<Arc<File>>> = Mutex::new(None);

/// Names the log file that a successor gets. It may have no permission to open that itself.
pub fn set_log_file(file: Option<Arc<File>>) {
    *LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner) = file;
}

/// Takes the log file that the process before left, until this one opens its own.
pub fn take_log_file() -> Option<Arc<File>> {
    LOG_FILE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What was found among the descriptors.
#[cfg_attr(not(unix), allow(dead_code))] // only Unix passes sockets
#[derive(Debug)]
pub enum Inherited {
    /// No socket of the Internet: this process was not started by a superserver.
    Nothing,
    /// One client (inetd `nowait`, tcpserver): a connected stream.
    Client(TcpStream),
    /// Sockets that clients come to: one on descriptor 0 (inetd `wait`, for a
    /// while), or those that systemd passed, for good.
    Sockets {
        /// With the name that systemd gave each.
        listeners: Vec<(Option<String>, TcpListener)>,
        /// The same of datagrams; one that is connected has one client only.
        datagrams: Vec<(Option<String>, UdpSocket)>,
        /// The starter takes its socket back when this process ends.
        borrowed: bool,
    },
    /// The sockets of a process that this one takes the place of.
    Handed(Handover),
    /// A socket of a kind that is not served: what it is.
    Other(&'static str),
}

/// What a process leaves to the one that takes its place.
#[derive(Debug)]
pub struct Handover {
    /// The sockets that clients come to, each with what it was called.
    pub sockets: Vec<(String, Socket)>,
    /// Waits for the report that this process is ready.
    pub predecessor: Predecessor,
}

/// What was found, and what was done about it.
#[derive(Debug)]
pub struct StartContext {
    /// On descriptor 0.
    pub inherited: Inherited,
    /// Descriptor 2 was the client: nothing may be written there, and by now
    /// it is the null device.
    pub stderr_was_client: bool,
}

impl StartContext {
    /// A copy of the socket that a superserver lent. The superserver starts this program
    /// again and again while a client is left waiting there.
    pub fn borrowed_socket(&self) -> Option<BorrowedSocket> {
        let Inherited::Sockets { listeners, datagrams, borrowed: true } = &self.inherited else {
            return None;
        };
        let listener =
            listeners.first().map(|(_, socket)| socket.try_clone().map(BorrowedSocket::Listener));
        let socket = listener.or(datagrams
            .first()
            .map(|(_, socket)| socket.try_clone().map(BorrowedSocket::Datagrams)));
        socket?.ok()
    }
}

/// A copy of a socket that goes back to its owner.
#[derive(Debug)]
pub enum BorrowedSocket {
    /// Clients connect to it.
    Listener(TcpListener),
    /// Clients send to it.
    Datagrams(UdpSocket),
}

impl BorrowedSocket {
    /// Discards one client, if there is one: closes its connection at once, or drops its
    /// datagram.
    pub fn discard_one(&self) {
        // The setting is that of the socket, not of this copy.
        match self {
            BorrowedSocket::Listener(socket) => {
                let _ = socket.set_nonblocking(true);
                let _ = socket.accept();
                let _ = socket.set_nonblocking(false);
            }
            BorrowedSocket::Datagrams(socket) => {
                let _ = socket.set_nonblocking(true);
                let _ = socket.recv(&mut [0; 1]);
                let _ = socket.set_nonblocking(false);
            }
        }
    }
}
