//! The listen sockets of a redirector: the sockets that clients come to, and what of
//! them a configuration wants.
//!
//! Owns the sockets of the process, and finds out which are to be opened and
//! which closed. Each loop has a copy of a socket for streams; a place for
//! datagrams has a socket for each loop, where the system divides the clients
//! among them, so that a flow stays with its loop. Accepts no client.

use crate::command::daemon::DescriptorBudget;
use crate::config::settings::Settings;
use crate::net::listeners::{self, Bind};
use crate::os::reuseport;
use crate::os::socket::Socket;
use log::debug;
use pegasus_core::base::endpoint::{ListenAddr, Transport};
use pegasus_core::base::service_name::ServiceName;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Before the entry of an address for questions for names, where other sockets have the name
/// of a service.
const DNS_PREFIX: &str = "=?";
/// Ports that the system may choose until one is free for both transports.
const BIND_TRIES: usize = 16;

/// A listen socket and the service of its clients.
#[derive(Clone, Debug)]
pub struct ListenSocket {
    /// Its number in this process; none is used twice.
    pub number: usize,
    /// The service that its clients want.
    pub service: ServiceName,
    /// What the configuration calls it: one port of one address, or of `*`.
    pub listen: ListenAddr,
    /// Of the sockets at one address: which of them this is, from 0.
    pub shard: usize,
    /// Of these: how many are in use. Clients would come to others of them if
    /// one were closed, so they are closed together.
    pub shards_in_use: Arc<AtomicUsize>,
    /// Its datagrams wait until the flows of the predecessor are here.
    pub awaits_flows: bool,
    /// The socket.
    pub socket: Arc<Socket>,
}

impl ListenSocket {
    /// The name under which a successor takes it. The sockets of a queue have the same
    /// form without a service.
    pub fn handover_name(&self) -> String {
        format!("{}={}", self.service, self.listen)
    }

    /// The address for the log: with the port that the system chose.
    pub fn display_address(&self) -> String {
        let udp = if self.listen.transport == Transport::Udp { "/udp" } else { "" };
        match self.socket.address() {
            Ok(address) => format!("{}={address}{udp}", self.service),
            Err(_) => self.handover_name(),
        }
    }
}

/// All listen sockets of a process.
#[derive(Default, Debug)]
pub struct ListenSockets {
    sockets: Vec<ListenSocket>,
    next: usize,
    /// Sockets for the datagrams of one address.
    shard_count: usize,
    /// Where questions for names come, each with its entry in `redirect_dns`.
    pub dns: Vec<(ListenAddr, Arc<Socket>)>,
}

/// What is to be different about the listen sockets.
#[derive(Default, Debug)]
pub struct ListenDiff {
    /// New ones.
    pub opened: Vec<ListenSocket>,
    /// Those with another service from now on.
    pub reassigned: Vec<(usize, ServiceName)>,
    /// Those that are to be closed.
    pub closed: Vec<usize>,
}

impl ListenDiff {
    /// Whether all stays as it is.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.reassigned.is_empty() && self.closed.is_empty()
    }
}

/// The addresses that services listen on, each with one port of one address or of
/// `*`, each once.
///
/// # Errors
/// A name that does not resolve.
fn configured(settings: &Settings) -> io::Result<Vec<(ServiceName, ListenAddr)>> {
    let mut configured = Vec::new();
    for service in &settings.services {
        for listen in &service.listen {
            let mut hosts = vec![listen.host.clone()];
            if listen.host != "*" {
                let found = (listen.host.as_str(), listen.first).to_socket_addrs();
                let found =
                    found.map_err(|error| listeners::listen_error(error, listen.to_string()))?;
                hosts = found.map(|address| address.ip().to_string()).collect();
            }
            if hosts.is_empty() {
                return Err(listeners::listen_error(
                    io::ErrorKind::AddrNotAvailable.into(),
                    listen.to_string(),
                ));
            }
            for port in listen.first..=listen.last {
                for host in &hosts {
                    configured.push((
                        service.name,
                        ListenAddr {
                            host: host.clone(),
                            first: port,
                            last: port,
                            ..listen.clone()
                        },
                    ));
                }
            }
        }
    }
    let mut seen = HashSet::new();
    configured.retain(|listen| seen.insert(listen.clone()));
    Ok(configured)
}

/// Opens the missing shards of addresses for datagrams. Where the system allows no
/// more of them, those that are there have all clients.
fn open_shards(listen_sockets: &mut Vec<ListenSocket>, next: &mut usize, shards: usize) {
    let firsts: Vec<ListenSocket> =
        listen_sockets.iter().filter(|listen_socket| listen_socket.shard == 0).cloned().collect();
    for first in firsts {
        let Socket::Udp(socket) = &*first.socket else { continue };
        for shard in first.shards_in_use.load(Ordering::Relaxed)..shards {
            match reuseport::bind_shard(socket) {
                Ok(socket) => {
                    first.shards_in_use.fetch_add(1, Ordering::Relaxed);
                    listen_sockets.push(ListenSocket {
                        number: *next,
                        shard,
                        socket: Arc::new(Socket::Udp(socket)),
                        ..first.clone()
                    });
                    *next += 1;
                }
                Err(error) => {
                    debug!(
                        target: "redirect",
                        "{}: sockets: {shard} of {shards}: {error}", first.listen
                    );
                    break;
                }
            }
        }
    }
}

impl ListenSockets {
    /// Without any yet. `shard_count`: loops for datagrams.
    pub fn with_shards(shard_count: usize) -> ListenSockets {
        ListenSockets { shard_count, ..ListenSockets::default() }
    }

    /// Adds an open socket.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn adopt(
        &mut self,
        service: ServiceName,
        listen: ListenAddr,
        socket: Socket,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let at = socket.address()?;
        let same = |listen_socket: &&ListenSocket| {
            listen_socket.listen == listen
                && listen_socket.socket.address().is_ok_and(|there| there == at)
        };
        let shards_in_use = self
            .sockets
            .iter()
            .find(same)
            .map(|listen_socket| listen_socket.shards_in_use.clone())
            .unwrap_or_default();
        self.sockets.push(ListenSocket {
            number: self.next,
            service,
            listen,
            shard: shards_in_use.fetch_add(1, Ordering::Relaxed),
            shards_in_use,
            awaits_flows: false,
            socket: Arc::new(socket),
        });
        self.next += 1;
        Ok(())
    }

    /// Datagrams of adopted addresses wait until the flows of the predecessor are here.
    pub fn await_flows(&mut self) {
        self.sockets.iter_mut().for_each(|listen_socket| listen_socket.awaits_flows = true);
    }

    /// Opens the missing shards of adopted addresses for datagrams.
    pub fn open_shards(&mut self) {
        open_shards(&mut self.sockets, &mut self.next, self.shard_count);
    }

    /// Adds a socket of the predecessor, by its [`handover_name`](ListenSocket::handover_name).
    /// A socket of the predecessor's queue is returned with its address; one with
    /// another name is closed.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn adopt_named(
        &mut self,
        name: &str,
        socket: Socket,
    ) -> io::Result<Option<(ListenAddr, TcpListener)>> {
        if let Some(listen) = name.strip_prefix(DNS_PREFIX) {
            let listen = listen.parse::<ListenAddr>().ok();
            self.dns.extend(listen.map(|listen| (listen, Arc::new(socket))));
            return Ok(None);
        }
        let Some((service, listen)) = name.split_once('=') else { return Ok(None) };
        let Ok(listen) = listen.parse::<ListenAddr>() else { return Ok(None) };
        match (service.parse(), socket) {
            (Ok(service), socket) => self.adopt(service, listen, socket).map(|()| None),
            (Err(_), Socket::Tcp(socket)) if service.is_empty() => Ok(Some((listen, socket))),
            _ => Ok(None),
        }
    }

    /// Opens the addresses for questions for names that are not open yet, each for streams
    /// and for datagrams, and closes others.
    ///
    /// # Errors
    /// Returns the OS error of an address that cannot be had.
    pub fn open_dns(&mut self, addresses: &[ListenAddr]) -> io::Result<()> {
        self.dns.retain(|(listen, _)| addresses.contains(listen));
        for listen in addresses {
            if self.dns.iter().any(|(open, _)| open == listen) {
                continue;
            }
            for (stream, datagrams) in bind_both_transports(listen)? {
                self.dns.push((listen.clone(), Arc::new(Socket::Tcp(stream))));
                self.dns.push((listen.clone(), Arc::new(Socket::Udp(datagrams))));
            }
        }
        Ok(())
    }

    /// The sockets for questions for names, under the names by which a successor takes them.
    pub fn dns_handover(&self) -> impl Iterator<Item = (String, &Socket)> {
        self.dns.iter().map(|(listen, socket)| (format!("{DNS_PREFIX}{listen}"), &**socket))
    }

    /// Where questions for names come, for the log.
    pub fn describe_dns(&self) -> Vec<String> {
        let streams = self.dns.iter().filter(|(_, socket)| matches!(&**socket, Socket::Tcp(_)));
        let addresses = streams.filter_map(|(_, socket)| socket.address().ok());
        addresses.map(|address| format!("redirect_dns={address}")).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ListenSocket> {
        self.sockets.iter()
    }

    /// One socket of each address.
    pub fn first_shards(&self) -> impl Iterator<Item = &ListenSocket> {
        self.sockets.iter().filter(|listen_socket| listen_socket.shard == 0)
    }

    /// Where they listen, each address once.
    pub fn addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let address = |listen_socket: &ListenSocket| {
            Some((listen_socket.listen.transport, listen_socket.socket.address().ok()?))
        };
        let dns = self.dns.iter().filter_map(|(_, socket)| {
            let is_stream = matches!(&**socket, Socket::Tcp(_));
            let transport = if is_stream { Transport::Tcp } else { Transport::Udp };
            Some((transport, socket.address().ok()?))
        });
        self.first_shards().filter_map(address).chain(dns).collect()
    }

    /// How many workers their datagrams can be divided among.
    pub fn shard_count(&self) -> usize {
        self.sockets.iter().map(|listen_socket| listen_socket.shard + 1).max().unwrap_or(1)
    }

    /// Whether there is one of this kind.
    pub fn has_transport(&self, transport: Transport) -> bool {
        self.sockets.iter().any(|listen_socket| listen_socket.listen.transport == transport)
    }

    /// Closes all of them here; workers have copies of their own.
    pub fn close(&mut self) {
        self.sockets.clear();
        self.dns.clear();
    }

    /// What these settings change. New sockets are open when this returns; nothing else
    /// has changed.
    ///
    /// # Errors
    /// `InvalidInput` if there are no addresses; a name that does not resolve; the OS
    /// error of an address that cannot be had.
    pub fn diff(&mut self, settings: &Settings) -> io::Result<ListenDiff> {
        let configured = configured(settings)?;
        if configured.is_empty() && self.dns.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "nothing to serve: set service_NAME_listen, or redirect_dns",
            ));
        }
        DescriptorBudget::check_listeners(settings)?;
        let open: HashSet<_> = self
            .sockets
            .iter()
            .map(|listen_socket| (listen_socket.service, &listen_socket.listen))
            .collect();
        let missing: Vec<_> = configured
            .iter()
            .filter(|(service, listen)| !open.contains(&(*service, listen)))
            .collect();
        let kept: HashSet<_> =
            configured.iter().map(|(service, listen)| (*service, listen)).collect();
        let fixed = missing.iter().filter(|(_, listen)| listen.first != 0);
        let successors: HashMap<&ListenAddr, ServiceName> =
            fixed.map(|(service, listen)| (listen, *service)).collect();
        let mut diff = ListenDiff::default();
        let mut taken_over = HashSet::new();
        for listen_socket in self
            .sockets
            .iter()
            .filter(|listen_socket| !kept.contains(&(listen_socket.service, &listen_socket.listen)))
        {
            match successors.get(&listen_socket.listen) {
                Some(successor) => {
                    diff.reassigned.push((listen_socket.number, *successor));
                    taken_over.insert(&listen_socket.listen);
                }
                None => diff.closed.push(listen_socket.number),
            }
        }
        let mut next = self.next;
        for (service, listen) in
            missing.into_iter().filter(|(_, listen)| !taken_over.contains(listen))
        {
            let sockets = match listen.transport {
                Transport::Tcp => bind(listen, Socket::Tcp)?,
                Transport::Udp => bind(listen, Socket::Udp)?,
            };
            for socket in sockets {
                diff.opened.push(ListenSocket {
                    number: next,
                    service: *service,
                    listen: listen.clone(),
                    shard: 0,
                    shards_in_use: Arc::new(AtomicUsize::new(1)),
                    awaits_flows: false,
                    socket: Arc::new(socket),
                });
                next += 1;
            }
        }
        let shard_count = self.shard_count.min(DescriptorBudget::udp_shards_max(settings));
        open_shards(&mut diff.opened, &mut next, shard_count);
        self.next = next;
        Ok(diff)
    }

    /// Applies a change to the sockets of the process; workers get it by a command.
    /// Returns a line for the log.
    pub fn apply(&mut self, diff: &ListenDiff) -> String {
        let list = |listen_sockets: &[&ListenSocket]| {
            let listed = listen_sockets.iter().filter(|listen_socket| listen_socket.shard == 0);
            listed
                .map(|listen_socket| format!(" {}", listen_socket.display_address()))
                .collect::<String>()
        };
        let removed: Vec<_> = self
            .sockets
            .iter()
            .filter(|listen_socket| diff.closed.contains(&listen_socket.number))
            .collect();
        let removed = list(&removed);
        self.sockets.retain(|listen_socket| !diff.closed.contains(&listen_socket.number));
        let mut reassigned = String::new();
        for listen_socket in &mut self.sockets {
            if let Some((_, service)) =
                diff.reassigned.iter().find(|(number, _)| *number == listen_socket.number)
            {
                listen_socket.service = *service;
                reassigned += &list(&[listen_socket]);
            }
        }
        self.sockets.extend(diff.opened.iter().cloned());
        let added = list(&diff.opened.iter().collect::<Vec<_>>());
        let parts = [("added", added), ("changed", reassigned), ("removed", removed)];
        let parts = parts.iter().filter(|(_, list)| !list.is_empty());
        parts.map(|(word, list)| format!("{word}{list}")).collect::<Vec<_>>().join(", ")
    }
}

/// Binds an address for streams and the same one for datagrams. Where the system chooses
/// the port, it may have chosen one that has datagrams already.
fn bind_both_transports(listen: &ListenAddr) -> io::Result<Vec<(TcpListener, UdpSocket)>> {
    let both = || {
        let streams: Vec<TcpListener> = listeners::bind(listen)?;
        let bind = |stream: TcpListener| {
            let address = stream.local_addr()?;
            let datagrams = <UdpSocket as Bind>::bind(address)
                .map_err(|error| listeners::listen_error(error, format!("{address}/udp")))?;
            Ok((stream, datagrams))
        };
        streams.into_iter().map(bind).collect::<io::Result<Vec<_>>>()
    };
    let tries = if listen.first == 0 { BIND_TRIES } else { 1 };
    let mut bound = both();
    for _ in 1..tries {
        match &bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => bound = both(),
            _ => break,
        }
    }
    bound
}

fn bind<S: Bind>(listen: &ListenAddr, kind: impl Fn(S) -> Socket) -> io::Result<Vec<Socket>> {
    Ok(listeners::bind(listen)?.into_iter().map(kind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(lists: &[(&str, &str)]) -> Settings {
        let assignments: Vec<String> = lists
            .iter()
            .map(|(service, list)| format!("service_{service}_listen={list}"))
            .collect();
        Settings::load(None, &assignments).unwrap()
    }

    /// The numbers of the listen sockets that are open, reassigned and closed.
    fn apply(listen_sockets: &mut ListenSockets, lists: &[(&str, &str)]) -> (usize, usize, usize) {
        let diff = listen_sockets.diff(&settings(lists)).unwrap();
        let numbers = (diff.opened.len(), diff.reassigned.len(), diff.closed.len());
        assert_eq!(listen_sockets.apply(&diff).is_empty(), diff.is_empty());
        numbers
    }

    #[test]
    fn what_stays_is_not_touched() {
        let mut listen_sockets = ListenSockets::default();
        let some = ("web", "127.0.0.1:0 127.0.0.2:0/udp");
        assert_eq!(apply(&mut listen_sockets, &[some]), (2, 0, 0));
        let before: Vec<SocketAddr> = listen_sockets
            .iter()
            .map(|listen_socket| listen_socket.socket.address().unwrap())
            .collect();
        assert_eq!(apply(&mut listen_sockets, &[some]), (0, 0, 0));
        assert_eq!(
            apply(
                &mut listen_sockets,
                &[("web", "127.0.0.2:0/udp 127.0.0.1:0"), ("dns", "127.0.0.1:0/udp")]
            ),
            (1, 0, 0)
        );
        let after: Vec<SocketAddr> = listen_sockets
            .iter()
            .map(|listen_socket| listen_socket.socket.address().unwrap())
            .collect();
        assert_eq!(after[..2], before);
        assert_eq!(apply(&mut listen_sockets, &[("dns", "127.0.0.1:0/udp")]), (0, 0, 2));
        assert!(
            listen_sockets.has_transport(Transport::Udp)
                && !listen_sockets.has_transport(Transport::Tcp)
        );
    }

    #[test]
    #[cfg(pegasus_linux)]
    fn a_place_for_datagrams_has_a_socket_for_each_loop() {
        let mut listen_sockets = ListenSockets::with_shards(3);
        let some = ("web", "127.0.0.1:0 127.0.0.2:0/udp");
        assert_eq!(apply(&mut listen_sockets, &[some]), (4, 0, 0));
        assert_eq!((listen_sockets.first_shards().count(), listen_sockets.shard_count()), (2, 3));
        assert_eq!(apply(&mut listen_sockets, &[some]), (0, 0, 0));
        // The process after this one has more loops.
        let mut successor = ListenSockets::with_shards(4);
        for listen_socket in listen_sockets.iter() {
            let socket = match &*listen_socket.socket {
                Socket::Tcp(socket) => Socket::Tcp(socket.try_clone().unwrap()),
                Socket::Udp(socket) => Socket::Udp(socket.try_clone().unwrap()),
            };
            successor.adopt_named(&listen_socket.handover_name(), socket).unwrap();
        }
        successor.open_shards();
        assert_eq!(
            (successor.iter().count(), successor.first_shards().count(), successor.shard_count()),
            (5, 2, 4)
        );
        assert_eq!(apply(&mut successor, &[some]), (0, 0, 0));
        assert_eq!(apply(&mut successor, &[("web", "127.0.0.1:0")]), (0, 0, 4));
    }

    #[test]
    fn another_service_takes_a_place_over() {
        let mut listen_sockets = ListenSockets::default();
        // A port that is free for a while: it is given back just now.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(apply(&mut listen_sockets, &[("web", &free)]), (1, 0, 0));
        assert_eq!(apply(&mut listen_sockets, &[("shop", &free)]), (0, 1, 0));
        assert_eq!(listen_sockets.iter().next().unwrap().service.as_str(), "shop");
    }

    #[test]
    fn a_place_that_is_taken_changes_nothing() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let mut listen_sockets = ListenSockets::default();
        assert_eq!(apply(&mut listen_sockets, &[("web", "127.0.0.1:0")]), (1, 0, 0));
        let error = listen_sockets
            .diff(&settings(&[("web", &format!("127.0.0.2:0 {taken}"))]))
            .unwrap_err();
        assert!(error.to_string().contains(&taken), "{error}");
        assert_eq!(listen_sockets.iter().count(), 1);
    }
}
