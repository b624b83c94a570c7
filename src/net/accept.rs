//! How clients come in: listening sockets, and what to do when the system has
//! no socket to spare.
//!
//! Owns binding and accepting. Who is accepted, and why, is its user's business.

use super::drive::Desk;
use crate::os::socket;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use pegasus_core::base::address::{ListenAddr, Transport};
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::time::{Moment, Span};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Clients taken from one listener before others get their turn.
const BATCH: usize = 64;
/// How long accepting pauses when the system has no socket to spare.
const PAUSE: Span = Span::from_millis(100);
/// How often that is told.
const TELL: Span = Span::from_secs(60);

/// How long a socket that is to be closed goes on taking in who waits there
/// while there is no room: newcomers cannot be told from them.
const LEAVE: Span = Span::from_secs(3);

/// A socket that clients can come to.
pub trait Bound: Sized {
    /// What is spoken on it.
    const TRANSPORT: Transport;
    /// Opens one that does not block.
    ///
    /// # Errors
    /// What the system says.
    fn bind(address: SocketAddr) -> io::Result<Self>;
    /// Where it is.
    ///
    /// # Errors
    /// What the system says.
    fn address(&self) -> io::Result<SocketAddr>;
    /// Whether one on the IPv6 wildcard takes IPv4 clients too.
    fn serves_both_families(&self) -> bool;
}

impl Bound for std::net::TcpListener {
    const TRANSPORT: Transport = Transport::Tcp;

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        socket::prepare_listener(&listener)?;
        Ok(listener)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn serves_both_families(&self) -> bool {
        socket::serves_both_families(self)
    }
}

impl Bound for std::net::UdpSocket {
    const TRANSPORT: Transport = Transport::Udp;

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn serves_both_families(&self) -> bool {
        socket::serves_both_families(self)
    }
}

/// Opens the sockets of a listening place: every port of its range, and for
/// `*` both families as far as the host has them.
///
/// # Errors
/// What the system says, with the address.
pub fn bind<S: Bound>(listen: &ListenAddr) -> io::Result<Vec<S>> {
    debug_assert_eq!(listen.transport, S::TRANSPORT);
    let mut bound = Vec::new();
    for port in listen.first..=listen.last {
        if listen.host == "*" {
            both_families(port, &mut bound)?;
            continue;
        }
        let place = || format!("{}:{port}", listen.host);
        let found: Vec<SocketAddr> =
            (listen.host.as_str(), port).to_socket_addrs().map_err(|error| with(error, place()))?.collect();
        for address in &found {
            bound.push(one(*address)?);
        }
        if found.is_empty() {
            return Err(with(io::ErrorKind::AddrNotAvailable.into(), place()));
        }
    }
    Ok(bound)
}

/// An error of a place where nobody can listen.
pub fn with(error: io::Error, place: String) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {place}: {error}"))
}

fn one<S: Bound>(address: SocketAddr) -> io::Result<S> {
    S::bind(address).map_err(|error| with(error, address.to_string()))
}

fn both_families<S: Bound>(port: u16, bound: &mut Vec<S>) -> io::Result<()> {
    let v4 = |port| one::<S>((Ipv4Addr::UNSPECIFIED, port).into());
    let Ok(v6) = one::<S>((Ipv6Addr::UNSPECIFIED, port).into()) else {
        // No IPv6 on this host, or somebody has the port: then this says so.
        bound.push(v4(port)?);
        return Ok(());
    };
    if !v6.serves_both_families() {
        bound.push(v4(v6.address()?.port())?);
    }
    bound.push(v6);
    Ok(())
}

/// A listening socket on the loop.
struct Listener<T> {
    socket: TcpListener,
    address: SocketAddr,
    of: T,
    /// Somebody may be waiting to be accepted.
    ready: bool,
    /// It is closed when nobody is waiting any more, and at this moment.
    leaving: Option<Moment>,
}

/// All listening sockets of a loop, which pause together. Each has a number
/// that its user gave it, and is one of `T`'s.
pub struct Listeners<T> {
    listeners: BTreeMap<usize, Listener<T>>,
    leaving: bool,
    paused_until: Option<Moment>,
    told: LogThrottle,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Listeners { listeners: BTreeMap::new(), leaving: false, paused_until: None, told: LogThrottle::default() }
    }
}

/// Somebody who came in, or why nobody can.
pub enum Came<T, P> {
    /// A client.
    Client {
        /// Whose listener it came to.
        of: T,
        /// The port of that.
        port: u16,
        /// Its connection.
        stream: TcpStream,
        /// Where it comes from.
        from: SocketAddr,
        /// What was made of the room for it.
        room: P,
    },
    /// The system has no socket to spare; said once a minute.
    NoSocket(io::Error),
}

impl<T: Copy> Listeners<T> {
    /// Adds a socket under a number that is free; events for it come under `token`.
    ///
    /// # Errors
    /// What the system says of it.
    pub fn add(
        &mut self,
        number: usize,
        of: T,
        socket: std::net::TcpListener,
        token: Token,
        desk: &Desk,
    ) -> io::Result<()> {
        let address = socket.local_addr()?;
        let mut socket = TcpListener::from_std(socket);
        desk.registry.register(&mut socket, token, Interest::READABLE)?;
        self.listeners.insert(number, Listener { socket, address, of, ready: true, leaving: None });
        Ok(())
    }

    /// The listener of this number has clients.
    pub fn ready(&mut self, number: usize) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.ready = true;
        }
    }

    /// The listener of this number is another one's from now on.
    pub fn give(&mut self, number: usize, to: T) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.of = to;
        }
    }

    /// Closes the listener of this number, once all are taken in who wait there
    /// now, as far as there is room for them within three seconds.
    pub fn leave(&mut self, number: usize, now: Moment) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.leaving.get_or_insert(now + LEAVE);
            listener.ready = true;
            self.leaving = true;
        }
    }

    /// The same with all of them.
    pub fn leave_all(&mut self, now: Moment) {
        let numbers: Vec<usize> = self.listeners.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.leave(number, now));
    }

    /// The address of each.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.values().map(|listener| listener.address)
    }

    /// No more clients: closes all.
    pub fn close(&mut self) {
        self.listeners.clear();
    }

    /// Somebody left: there may be room again.
    pub fn resume(&mut self) {
        self.paused_until = None;
    }

    /// When a pause ends.
    pub fn deadline(&self) -> Option<Moment> {
        self.paused_until
    }

    /// Takes clients in while `room` says that there is room for one more.
    /// Whoever is left waits in the backlog until the next turn.
    pub fn accept<P>(&mut self, desk: &mut Desk, room: impl FnMut() -> Option<P>) -> Vec<Came<T, P>> {
        let came = self.take(desk, room);
        if self.leaving {
            let waits =
                |listener: &Listener<T>| listener.leaving.is_none_or(|until| listener.ready && desk.now < until);
            self.listeners.retain(|_, listener| waits(listener));
            self.leaving = self.listeners.values().any(|listener| listener.leaving.is_some());
        }
        came
    }

    fn take<P>(&mut self, desk: &mut Desk, mut room: impl FnMut() -> Option<P>) -> Vec<Came<T, P>> {
        let mut came = Vec::new();
        if self.paused_until.is_some_and(|until| desk.now < until) {
            return came;
        }
        self.paused_until = None;
        for listener in self.listeners.values_mut() {
            for turn in 0.. {
                if !listener.ready {
                    break;
                }
                let Some(room) = room() else {
                    // Another loop's client may leave without a word to this one.
                    self.paused_until = Some(desk.now + PAUSE);
                    return came;
                };
                if turn == BATCH {
                    desk.again = true;
                    break;
                }
                match accept(&listener.socket) {
                    Ok((stream, from)) => {
                        let (of, port) = (listener.of, listener.address.port());
                        came.push(Came::Client { of, port, stream, from, room });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                    Err(error) if socket::out_of_sockets(&error) => {
                        // Readiness is told once: it stays noted, and a timer looks again.
                        self.paused_until = Some(desk.now + PAUSE);
                        if self.told.allow(desk.now, TELL).is_some() {
                            came.push(Came::NoSocket(error));
                        }
                        return came;
                    }
                    // The client is gone again, or the call was interrupted.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                    Err(_) => {
                        self.paused_until = Some(desk.now + PAUSE);
                        return came;
                    }
                }
            }
        }
        came
    }
}

/// Takes a client in, also where the system or its guard lacks the newer call.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    match listener.accept() {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            let (stream, from) = socket::accept(listener)?;
            Ok((TcpStream::from_std(stream), from))
        }
        came => came,
    }
}
