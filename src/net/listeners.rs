//! Listening sockets, and a pause when the system has no descriptor to spare.
//!
//! Owns binding and accepting. Not responsible for which clients are accepted.

use super::event_loop::Context;
use crate::os::{accept_interest, socket};
use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};
use pegasus_core::base::address::{ListenAddr, Transport};
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::time::{Moment, Span};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Clients taken from one listener before others get their turn.
const BATCH: usize = 64;
/// Clients that one loop accepts before another one is woken first.
const TURN: usize = 8;
/// How long accepting pauses when the system has no socket to spare.
const PAUSE: Span = Span::from_millis(100);
/// How often that is logged.
const LOG_INTERVAL: Span = Span::from_secs(60);

/// How long a closing socket goes on accepting its backlog while there is no room. New
/// clients cannot be told from those that waited.
const CLOSE_TIMEOUT: Span = Span::from_secs(3);

/// A socket that clients can come to.
pub trait Bind: Sized {
    /// What is spoken on it.
    const TRANSPORT: Transport;
    /// Opens one that does not block.
    ///
    /// # Errors
    /// Returns the OS error.
    fn bind(address: SocketAddr) -> io::Result<Self>;
    /// Its local address.
    ///
    /// # Errors
    /// Returns the OS error.
    fn address(&self) -> io::Result<SocketAddr>;
    /// Whether one on the IPv6 wildcard takes IPv4 clients too.
    fn is_dual_stack(&self) -> bool;
}

impl Bind for std::net::TcpListener {
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

    fn is_dual_stack(&self) -> bool {
        socket::is_dual_stack(self)
    }
}

impl Bind for std::net::UdpSocket {
    const TRANSPORT: Transport = Transport::Udp;

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn is_dual_stack(&self) -> bool {
        socket::is_dual_stack(self)
    }
}

/// Opens the sockets of one ListenAddr: every port of its range, and for
/// `*` both families as far as the host has them.
///
/// # Errors
/// Returns the OS error, with the address.
pub fn bind<S: Bind>(listen: &ListenAddr) -> io::Result<Vec<S>> {
    debug_assert_eq!(listen.transport, S::TRANSPORT);
    let mut sockets = Vec::new();
    for port in listen.first..=listen.last {
        if listen.host == "*" {
            bind_both_families(port, &mut sockets)?;
            continue;
        }
        let address = || format!("{}:{port}", listen.host);
        let found: Vec<SocketAddr> = (listen.host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| listen_error(error, address()))?
            .collect();
        for resolved in &found {
            sockets.push(bind_one(*resolved)?);
        }
        if found.is_empty() {
            return Err(listen_error(io::ErrorKind::AddrNotAvailable.into(), address()));
        }
    }
    Ok(sockets)
}

/// An error to listen, with the address.
pub fn listen_error(error: io::Error, address: String) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

fn bind_one<S: Bind>(address: SocketAddr) -> io::Result<S> {
    S::bind(address).map_err(|error| listen_error(error, address.to_string()))
}

fn bind_both_families<S: Bind>(port: u16, sockets: &mut Vec<S>) -> io::Result<()> {
    let v4 = |port| bind_one::<S>((Ipv4Addr::UNSPECIFIED, port).into());
    let Ok(v6) = bind_one::<S>((Ipv6Addr::UNSPECIFIED, port).into()) else {
        // No IPv6 on this host, or the port is taken: then this fails too.
        sockets.push(v4(port)?);
        return Ok(());
    };
    if !v6.is_dual_stack() {
        sockets.push(v4(v6.address()?.port())?);
    }
    sockets.push(v6);
    Ok(())
}

/// A listening socket on the loop.
struct Listener<T> {
    socket: TcpListener,
    address: SocketAddr,
    token: Token,
    owner: T,
    /// A client may be waiting to be accepted.
    readable: bool,
    /// Clients that this loop accepted since it let other loops have a turn.
    accepted: usize,
    /// It is closed when its backlog is empty, and at this moment at the latest.
    closing_at: Option<Moment>,
}

impl<T> Listener<T> {
    fn deregister(&mut self, registry: &Registry) {
        accept_interest::deregister(registry, &mut self.socket);
    }

    fn take_turns(&mut self, registry: &Registry) {
        if self.accepted >= TURN {
            self.accepted = 0;
            accept_interest::take_turns(registry, &mut self.socket, self.token);
        }
    }
}

/// All listening sockets of a loop, which pause together. Each has a number and an owner
/// that the user of this gave it.
pub struct Listeners<T> {
    listeners: BTreeMap<usize, Listener<T>>,
    closing: bool,
    paused_until: Option<Moment>,
    out_of_sockets_log: LogThrottle,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Listeners {
            listeners: BTreeMap::new(),
            closing: false,
            paused_until: None,
            out_of_sockets_log: LogThrottle::default(),
        }
    }
}

/// An accepted client, or why there can be none.
pub enum Accepted<T, P> {
    /// A client.
    Client {
        /// The owner of the listener.
        owner: T,
        /// The port of that.
        port: u16,
        /// Its connection.
        stream: TcpStream,
        /// Where it comes from.
        from: SocketAddr,
        /// What allowed it.
        permit: P,
    },
    /// The system has no descriptor to spare; reported once a minute.
    OutOfSockets(io::Error),
}

impl<T: Copy> Listeners<T> {
    /// Adds a socket under a number that is free; events for it come under `token`.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn add(
        &mut self,
        number: usize,
        owner: T,
        socket: std::net::TcpListener,
        token: Token,
        cx: &Context,
    ) -> io::Result<()> {
        let address = socket.local_addr()?;
        let mut socket = TcpListener::from_std(socket);
        accept_interest::register(&cx.registry, &mut socket, token)?;
        let listener = Listener {
            socket,
            address,
            token,
            owner,
            readable: true,
            accepted: 0,
            closing_at: None,
        };
        self.listeners.insert(number, listener);
        Ok(())
    }

    /// The listener of this number has clients.
    pub fn on_readable(&mut self, number: usize) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.readable = true;
        }
    }

    /// Gives the listener of this number another owner.
    pub fn reassign(&mut self, number: usize, to: T) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.owner = to;
        }
    }

    /// Closes the listener of this number once its backlog is accepted, as far as there is
    /// room for that within three seconds.
    pub fn close_when_empty(&mut self, number: usize, now: Moment) {
        if let Some(listener) = self.listeners.get_mut(&number) {
            listener.closing_at.get_or_insert(now + CLOSE_TIMEOUT);
            listener.readable = true;
            self.closing = true;
        }
    }

    /// The same with all of them.
    pub fn close_all_when_empty(&mut self, now: Moment) {
        let numbers: Vec<usize> = self.listeners.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.close_when_empty(number, now));
    }

    /// The address of each.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.values().map(|listener| listener.address)
    }

    /// No more clients: closes all.
    pub fn close(&mut self, cx: &Context) {
        for listener in self.listeners.values_mut() {
            listener.deregister(&cx.registry);
        }
        self.listeners.clear();
    }

    /// A client left: there may be room again. `was_full`: another loop may have been woken
    /// for a client that it had no room for, so the backlogs are looked at here.
    pub fn resume(&mut self, was_full: bool) {
        self.paused_until = None;
        if was_full {
            self.listeners.values_mut().for_each(|listener| listener.readable = true);
        }
    }

    /// When a pause ends.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.paused_until
    }

    /// Takes clients in while `acquire` has a permit for one more.
    /// The others wait in the backlog until the next turn.
    pub fn accept<P>(
        &mut self,
        cx: &mut Context,
        acquire: impl FnMut() -> Option<P>,
    ) -> Vec<Accepted<T, P>> {
        let accepted = self.accept_ready(cx, acquire);
        if self.closing {
            let is_open = |listener: &Listener<T>| {
                listener.closing_at.is_none_or(|until| listener.readable && cx.now < until)
            };
            self.listeners.retain(|_, listener| {
                let stays = is_open(listener);
                if !stays {
                    listener.deregister(&cx.registry);
                }
                stays
            });
            self.closing = self.listeners.values().any(|listener| listener.closing_at.is_some());
        }
        accepted
    }

    fn accept_ready<P>(
        &mut self,
        cx: &mut Context,
        mut acquire: impl FnMut() -> Option<P>,
    ) -> Vec<Accepted<T, P>> {
        let mut accepted = Vec::new();
        if self.paused_until.is_some_and(|until| cx.now < until) {
            return accepted;
        }
        self.paused_until = None;
        for listener in self.listeners.values_mut() {
            for count in 0.. {
                if !listener.readable {
                    break;
                }
                let Some(permit) = acquire() else {
                    // A client of another loop may leave, and this loop gets no event.
                    self.paused_until = Some(cx.now + PAUSE);
                    return accepted;
                };
                if count == BATCH {
                    cx.skip_sleep = true;
                    break;
                }
                match accept(&listener.socket) {
                    Ok((stream, from)) => {
                        listener.accepted += 1;
                        let owner = listener.owner;
                        let port = listener.address.port();
                        accepted.push(Accepted::Client { owner, port, stream, from, permit });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.readable = false;
                        listener.take_turns(&cx.registry);
                    }
                    Err(error) if socket::is_out_of_sockets(&error) => {
                        // The event comes once: `readable` stays set, and a timer tries again.
                        self.paused_until = Some(cx.now + PAUSE);
                        if self.out_of_sockets_log.allow(cx.now, LOG_INTERVAL).is_some() {
                            accepted.push(Accepted::OutOfSockets(error));
                        }
                        return accepted;
                    }
                    // The client is gone again, or the call was interrupted.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                        ) => {}
                    Err(_) => {
                        self.paused_until = Some(cx.now + PAUSE);
                        return accepted;
                    }
                }
            }
        }
        accepted
    }
}

/// Accepts a client, also where the system or a seccomp filter lacks `accept4`.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    match listener.accept() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            let (stream, from) = socket::accept(listener)?;
            Ok((TcpStream::from_std(stream), from))
        }
        accepted => accepted,
    }
}
