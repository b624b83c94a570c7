//! The doors of a redirector: the sockets that clients come to, and what of
//! them a configuration wants.
//!
//! Owns the sockets of the process, and finds out which are to be opened and
//! which closed. Each loop has a copy of a socket for streams; a place for
//! datagrams has a socket for each loop, where the system divides the clients
//! among them, so that a flow stays with its loop. Accepts nobody.

use crate::config::settings::Settings;
use crate::net::accept::{self, Bound};
use crate::os::share;
use crate::os::socket::Socket;
use log::debug;
use pegasus_core::base::address::{ListenAddr, Transport};
use pegasus_core::base::service_name::ServiceName;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A socket and whose clients come to it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its number in this process; none is used twice.
    pub number: usize,
    /// Whose clients.
    pub service: ServiceName,
    /// What the configuration calls it: one port of one address, or of `*`.
    pub place: ListenAddr,
    /// Of the sockets at one address: which of them this is, from 0.
    pub share: usize,
    /// Of these: how many are in use. Clients would come to others of them if
    /// one were closed, so they are closed together.
    pub used: Arc<AtomicUsize>,
    /// The socket.
    pub socket: Arc<Socket>,
}

impl Door {
    /// By which another process of this program knows it. A socket of the queue
    /// is of no service.
    pub fn name(&self) -> String {
        format!("{}={}", self.service, self.place)
    }

    /// The place as it is told: with the port that the system chose.
    pub fn told(&self) -> String {
        let udp = if self.place.transport == Transport::Udp { "/udp" } else { "" };
        match self.socket.address() {
            Ok(address) => format!("{}={address}{udp}", self.service),
            Err(_) => self.name(),
        }
    }
}

/// All doors of a process.
#[derive(Default, Debug)]
pub struct Doors {
    doors: Vec<Door>,
    next: usize,
    /// Sockets for the datagrams of one address.
    shares: usize,
}

/// What is to be different about the doors.
#[derive(Default, Debug)]
pub struct Change {
    /// New ones.
    pub opened: Vec<Door>,
    /// Whose clients come to these from now on.
    pub given: Vec<(usize, ServiceName)>,
    /// Those that are to be closed.
    pub closed: Vec<usize>,
}

impl Change {
    /// Whether all stays as it is.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.given.is_empty() && self.closed.is_empty()
    }
}

/// One port of one address, or of `*`, for each place that clients of a
/// service come to, each once.
///
/// # Errors
/// A name that does not resolve.
fn wanted(settings: &Settings) -> io::Result<Vec<(ServiceName, ListenAddr)>> {
    let mut wanted = Vec::new();
    for service in &settings.services {
        for listen in &service.listen {
            let mut hosts = vec![listen.host.clone()];
            if listen.host != "*" {
                let found = (listen.host.as_str(), listen.first).to_socket_addrs();
                let found = found.map_err(|error| accept::with(error, listen.to_string()))?;
                hosts = found.map(|address| address.ip().to_string()).collect();
            }
            if hosts.is_empty() {
                return Err(accept::with(io::ErrorKind::AddrNotAvailable.into(), listen.to_string()));
            }
            for port in listen.first..=listen.last {
                for host in &hosts {
                    wanted.push((
                        service.name,
                        ListenAddr { host: host.clone(), first: port, last: port, ..listen.clone() },
                    ));
                }
            }
        }
    }
    let mut seen = HashSet::new();
    wanted.retain(|listen| seen.insert(listen.clone()));
    Ok(wanted)
}

/// Opens the sockets that places for datagrams lack. Where there can be no more
/// of them, those that are there have all clients.
fn divide(doors: &mut Vec<Door>, next: &mut usize, shares: usize) {
    let firsts: Vec<Door> = doors.iter().filter(|door| door.share == 0).cloned().collect();
    for first in firsts {
        let Socket::Udp(socket) = &*first.socket else { continue };
        for share in first.used.load(Ordering::Relaxed)..shares {
            match share::another(socket) {
                Ok(socket) => {
                    first.used.fetch_add(1, Ordering::Relaxed);
                    doors.push(Door { number: *next, share, socket: Arc::new(Socket::Udp(socket)), ..first.clone() });
                    *next += 1;
                }
                Err(error) => {
                    debug!(target: "redirect", "{}: sockets: {share} of {shares}: {error}", first.place);
                    break;
                }
            }
        }
    }
}

impl Doors {
    /// Without any yet. `shares`: loops for datagrams.
    pub fn for_loops(shares: usize) -> Doors {
        Doors { shares, ..Doors::default() }
    }

    /// Adds an open socket.
    ///
    /// # Errors
    /// What the system says of it.
    pub fn adopt(&mut self, service: ServiceName, place: ListenAddr, socket: Socket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let at = socket.address()?;
        let same = |door: &&Door| door.place == place && door.socket.address().is_ok_and(|there| there == at);
        let used = self.doors.iter().find(same).map(|door| door.used.clone()).unwrap_or_default();
        let (number, share, socket) = (self.next, used.fetch_add(1, Ordering::Relaxed), Arc::new(socket));
        self.doors.push(Door { number, service, place, share, used, socket });
        self.next += 1;
        Ok(())
    }

    /// Opens what adopted places for datagrams lack.
    pub fn divide(&mut self) {
        divide(&mut self.doors, &mut self.next, self.shares);
    }

    /// The same with one that another process had, by the name that it had there.
    /// The answer is a socket of that one's queue, and its place; what does not
    /// read as any of these is not taken.
    ///
    /// # Errors
    /// What the system says of it.
    pub fn adopt_named(&mut self, name: &str, socket: Socket) -> io::Result<Option<(ListenAddr, TcpListener)>> {
        let Some((service, place)) = name.split_once('=') else { return Ok(None) };
        let Ok(place) = place.parse::<ListenAddr>() else { return Ok(None) };
        match (service.parse(), socket) {
            (Ok(service), socket) => self.adopt(service, place, socket).map(|()| None),
            (Err(_), Socket::Tcp(socket)) if service.is_empty() => Ok(Some((place, socket))),
            _ => Ok(None),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Door> {
        self.doors.iter()
    }

    /// The places, each once.
    pub fn places(&self) -> impl Iterator<Item = &Door> {
        self.doors.iter().filter(|door| door.share == 0)
    }

    /// Loops that their datagrams can be divided among.
    pub fn shares(&self) -> usize {
        self.doors.iter().map(|door| door.share + 1).max().unwrap_or(1)
    }

    /// Whether there is one of this kind.
    pub fn have(&self, transport: Transport) -> bool {
        self.doors.iter().any(|door| door.place.transport == transport)
    }

    /// Closes all of them here; the loops have copies of their own.
    pub fn close(&mut self) {
        self.doors.clear();
    }

    /// What is to be done for these settings. The new ones are open when this
    /// returns; nothing else has changed.
    ///
    /// # Errors
    /// `InvalidInput` if there are no places; a name that does not resolve; what
    /// the system says to an address.
    pub fn change(&mut self, settings: &Settings) -> io::Result<Change> {
        let wanted = wanted(settings)?;
        if wanted.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to serve: set service_NAME_listen"));
        }
        let open: HashSet<_> = self.doors.iter().map(|door| (door.service, &door.place)).collect();
        let missing: Vec<_> = wanted.iter().filter(|(service, place)| !open.contains(&(*service, place))).collect();
        let kept: HashSet<_> = wanted.iter().map(|(service, place)| (*service, place)).collect();
        let fixed = missing.iter().filter(|(_, place)| place.first != 0);
        let heirs: HashMap<&ListenAddr, ServiceName> = fixed.map(|(service, place)| (place, *service)).collect();
        let (mut change, mut taken_over) = (Change::default(), HashSet::new());
        for door in self.doors.iter().filter(|door| !kept.contains(&(door.service, &door.place))) {
            match heirs.get(&door.place) {
                Some(heir) => {
                    change.given.push((door.number, *heir));
                    taken_over.insert(&door.place);
                }
                None => change.closed.push(door.number),
            }
        }
        let mut next = self.next;
        for (service, place) in missing.into_iter().filter(|(_, place)| !taken_over.contains(place)) {
            let sockets = match place.transport {
                Transport::Tcp => bind(place, Socket::Tcp)?,
                Transport::Udp => bind(place, Socket::Udp)?,
            };
            for socket in sockets {
                let (service, place, socket) = (*service, place.clone(), Arc::new(socket));
                let used = Arc::new(AtomicUsize::new(1));
                change.opened.push(Door { number: next, service, place, share: 0, used, socket });
                next += 1;
            }
        }
        divide(&mut change.opened, &mut next, self.shares);
        self.next = next;
        Ok(change)
    }

    /// Takes a change over; the loops are told by others. The answer is a line
    /// for the log.
    pub fn take(&mut self, change: &Change) -> String {
        let list = |doors: &[&Door]| {
            let places = doors.iter().filter(|door| door.share == 0);
            places.map(|door| format!(" {}", door.told())).collect::<String>()
        };
        let removed: Vec<_> = self.doors.iter().filter(|door| change.closed.contains(&door.number)).collect();
        let removed = list(&removed);
        self.doors.retain(|door| !change.closed.contains(&door.number));
        let mut given = String::new();
        for door in &mut self.doors {
            if let Some((_, service)) = change.given.iter().find(|(number, _)| *number == door.number) {
                door.service = *service;
                given += &list(&[door]);
            }
        }
        self.doors.extend(change.opened.iter().cloned());
        let added = list(&change.opened.iter().collect::<Vec<_>>());
        let told = [("added", added), ("changed", given), ("removed", removed)];
        let told = told.iter().filter(|(_, places)| !places.is_empty());
        told.map(|(word, places)| format!("{word}{places}")).collect::<Vec<_>>().join(", ")
    }
}

fn bind<S: Bound>(place: &ListenAddr, kind: impl Fn(S) -> Socket) -> io::Result<Vec<Socket>> {
    Ok(accept::bind(place)?.into_iter().map(kind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn settings(lists: &[(&str, &str)]) -> Settings {
        let assignments: Vec<String> =
            lists.iter().map(|(service, list)| format!("service_{service}_listen={list}")).collect();
        Settings::load(None, &assignments).unwrap()
    }

    /// The numbers of the doors that are open, given away and closed.
    fn turn(doors: &mut Doors, lists: &[(&str, &str)]) -> (usize, usize, usize) {
        let change = doors.change(&settings(lists)).unwrap();
        let numbers = (change.opened.len(), change.given.len(), change.closed.len());
        assert_eq!(doors.take(&change).is_empty(), change.is_empty());
        numbers
    }

    #[test]
    fn what_stays_is_not_touched() {
        let mut doors = Doors::default();
        let some = ("web", "127.0.0.1:0 127.0.0.2:0/udp");
        assert_eq!(turn(&mut doors, &[some]), (2, 0, 0));
        let before: Vec<SocketAddr> = doors.iter().map(|door| door.socket.address().unwrap()).collect();
        assert_eq!(turn(&mut doors, &[some]), (0, 0, 0));
        assert_eq!(turn(&mut doors, &[("web", "127.0.0.2:0/udp 127.0.0.1:0"), ("dns", "127.0.0.1:0/udp")]), (1, 0, 0));
        let after: Vec<SocketAddr> = doors.iter().map(|door| door.socket.address().unwrap()).collect();
        assert_eq!(after[..2], before);
        assert_eq!(turn(&mut doors, &[("dns", "127.0.0.1:0/udp")]), (0, 0, 2));
        assert!(doors.have(Transport::Udp) && !doors.have(Transport::Tcp));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_place_for_datagrams_has_a_socket_for_each_loop() {
        let mut doors = Doors::for_loops(3);
        let some = ("web", "127.0.0.1:0 127.0.0.2:0/udp");
        assert_eq!(turn(&mut doors, &[some]), (4, 0, 0));
        assert_eq!((doors.places().count(), doors.shares()), (2, 3));
        assert_eq!(turn(&mut doors, &[some]), (0, 0, 0));
        // The process after this one has more loops.
        let mut heir = Doors::for_loops(4);
        for door in doors.iter() {
            let socket = match &*door.socket {
                Socket::Tcp(socket) => Socket::Tcp(socket.try_clone().unwrap()),
                Socket::Udp(socket) => Socket::Udp(socket.try_clone().unwrap()),
            };
            heir.adopt_named(&door.name(), socket).unwrap();
        }
        heir.divide();
        assert_eq!((heir.iter().count(), heir.places().count(), heir.shares()), (5, 2, 4));
        assert_eq!(turn(&mut heir, &[some]), (0, 0, 0));
        assert_eq!(turn(&mut heir, &[("web", "127.0.0.1:0")]), (0, 0, 4));
    }

    #[test]
    fn another_service_takes_a_place_over() {
        let mut doors = Doors::default();
        // A port that is free for a while: it is given back just now.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(turn(&mut doors, &[("web", &free)]), (1, 0, 0));
        assert_eq!(turn(&mut doors, &[("shop", &free)]), (0, 1, 0));
        assert_eq!(doors.iter().next().unwrap().service.as_str(), "shop");
    }

    #[test]
    fn a_place_that_is_taken_changes_nothing() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let mut doors = Doors::default();
        assert_eq!(turn(&mut doors, &[("web", "127.0.0.1:0")]), (1, 0, 0));
        let error = doors.change(&settings(&[("web", &format!("127.0.0.2:0 {taken}"))])).unwrap_err();
        assert!(error.to_string().contains(&taken), "{error}");
        assert_eq!(doors.iter().count(), 1);
    }
}
