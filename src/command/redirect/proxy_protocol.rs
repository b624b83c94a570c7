//! The PROXY protocol: the addresses that front proxies send, and the headers for
//! providers.
//!
//! Owns which service uses the protocol, the connections whose header is not whole
//! yet, and what is logged about those without one. The notation is in
//! `protocol::proxy_header`.

use super::listen_sockets::ListenSockets;
use crate::command::seed;
use crate::config::settings::Settings;
use crate::net::tunnel::Tunnel;
use log::{debug, warn};
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::base::timer_queue::TimerQueue;
use pegasus_core::protocol::proxy_header::{
    parse, with_unique_id, Header, ParseStatus, ProxyAddrs, Version, V2_BYTES_MAX,
};
use pegasus_core::redirect::redirector::RedirectLog;
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How long a front proxy may take for its header.
const HEADER_TIMEOUT: Span = Span::from_secs(5);

/// A connection that came to a service.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The service that it wants.
    pub service: ServiceName,
    /// The client's address; never an IPv4-mapped one.
    pub from: SocketAddr,
    /// The port of ours that it came to.
    pub port: u16,
}

impl Arrival {
    /// A connection from this address, which may be IPv4-mapped.
    pub fn new(service: ServiceName, from: SocketAddr, port: u16) -> Arrival {
        Arrival { service, from: SocketAddr::new(from.ip().to_canonical(), from.port()), port }
    }
}

/// What is known of an arrival.
#[derive(Debug)]
pub enum Identified {
    /// The client is known.
    Client(Arrival),
    /// Its header is not whole yet.
    Incomplete,
    /// It has none, which was logged: the connection is to be reset.
    Rejected,
}

/// How a service uses the protocol.
struct ProxyRules {
    send_version: Option<Version>,
    unique_id: bool,
    trusted: Vec<Cidr>,
}

impl ProxyRules {
    /// The values behind the addresses: those of the client's header, and an identity.
    fn tlvs(&self, received: &[u8], ids: &UniqueIds) -> Vec<u8> {
        if self.unique_id {
            with_unique_id(received, ids.next().as_bytes())
        } else {
            received.to_vec()
        }
    }

    fn trusts(&self, proxy: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(proxy.ip()))
    }
}

/// Identities of connections: no other worker has the same start, and none says a number
/// twice.
struct UniqueIds {
    start: u64,
    count: Cell<u64>,
}

impl UniqueIds {
    fn next(&self) -> String {
        self.count.set(self.count.get().wrapping_add(1));
        format!("{:016x}{:016x}", self.start, self.count.get())
    }
}

/// The rules of all services, and the headers that are not whole yet.
pub struct ProxyProtocol {
    /// Services that use the protocol.
    rules: HashMap<ServiceName, ProxyRules>,
    ids: UniqueIds,
    /// Connections whose header is not whole yet, and what came of it.
    pending: HashMap<Key, (Arrival, Vec<u8>)>,
    timers: TimerQueue<Key>,
}

impl ProxyProtocol {
    /// As in these settings.
    pub fn new(settings: &Settings) -> ProxyProtocol {
        let mut proxy_protocol = ProxyProtocol {
            rules: HashMap::new(),
            ids: UniqueIds { start: seed(), count: Cell::new(0) },
            pending: HashMap::new(),
            timers: TimerQueue::default(),
        };
        proxy_protocol.reconfigure(settings);
        proxy_protocol
    }

    /// As in these settings from now on.
    pub fn reconfigure(&mut self, settings: &Settings) {
        self.rules = (settings.services.iter())
            .filter(|service| service.proxy_protocol.is_some() || !service.accept_proxy.is_empty())
            .map(|service| {
                let rules = ProxyRules {
                    send_version: service.proxy_protocol,
                    unique_id: service.proxy_unique_id,
                    trusted: service.accept_proxy.clone(),
                };
                (service.name, rules)
            })
            .collect();
    }

    /// A connection came.
    pub fn on_arrival(
        &mut self,
        key: Key,
        arrival: Arrival,
        tunnel: &mut Tunnel,
        now: Moment,
    ) -> Identified {
        let Some(rules) = self.rules.get(&arrival.service) else {
            return Identified::Client(arrival);
        };
        if !rules.trusts(arrival.from) {
            if let Some(version) = rules.send_version {
                let tlvs = rules.tlvs(&[], &self.ids);
                tunnel.set_header(Header::of_stream(version, socket_addrs(arrival, tunnel), &tlvs));
            }
            return Identified::Client(arrival);
        }
        self.pending.insert(key, (arrival, Vec::new()));
        let identified = self.read_header(key, tunnel);
        if let Identified::Incomplete = identified {
            self.timers.schedule(now + HEADER_TIMEOUT, key);
            let pending = &self.pending;
            self.timers.prune(|key| pending.contains_key(&key));
        }
        identified
    }

    /// A connection whose header is not whole yet sent more, or ended.
    pub fn read_header(&mut self, key: Key, tunnel: &mut Tunnel) -> Identified {
        let Some((arrival, mut received)) = self.pending.remove(&key) else {
            return Identified::Rejected;
        };
        let mut buffer = [0; V2_BYTES_MAX];
        loop {
            // So many bytes are a header or garbled: what is taken here is bounded.
            let space = V2_BYTES_MAX - received.len();
            match tunnel.read_client(&mut buffer[..space]) {
                Ok(0) if received.is_empty() => return reject_silent(&arrival),
                Err(error)
                    if received.is_empty() && error.kind() == io::ErrorKind::ConnectionReset =>
                {
                    return reject_silent(&arrival);
                }
                Ok(0) => return reject(&arrival, "it left before its PROXY header was whole"),
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending.insert(key, (arrival, received));
                    return Identified::Incomplete;
                }
                Err(error) => return reject(&arrival, &error.to_string()),
            }
            match parse(&received) {
                ParseStatus::Incomplete => {}
                ParseStatus::Invalid(why) => {
                    return reject(&arrival, &format!("no PROXY header: {why}"))
                }
                ParseStatus::Complete { length, addrs, tlvs } => {
                    tunnel.unread(&received[length..]);
                    let addrs = addrs.unwrap_or_else(|| socket_addrs(arrival, tunnel));
                    let rules = self.rules.get(&arrival.service);
                    let sends = rules.and_then(|rules| Some((rules.send_version?, rules)));
                    if let Some((version, rules)) = sends {
                        let tlvs = rules.tlvs(tlvs, &self.ids);
                        tunnel.set_header(Header::of_stream(version, addrs, &tlvs));
                    }
                    return Identified::Client(Arrival { from: addrs.source, ..arrival });
                }
            }
        }
    }

    /// A client is gone.
    pub fn forget(&mut self, key: Key) {
        self.pending.remove(&key);
    }

    /// Whether this line is about a front proxy that sent nothing: some check so all the
    /// time whether the service is there.
    pub fn is_check(&self, note: &RedirectLog) -> bool {
        let RedirectLog::Closed { service, client, sent: 0, received: 0, .. } = note else {
            return false;
        };
        self.rules.get(service).is_some_and(|rules| rules.trusts(*client))
    }

    /// A connection whose time for its header is over, which was logged.
    pub fn pop_expired(&mut self, now: Moment) -> Option<Key> {
        while let Some(key) = self.timers.pop_due(now) {
            if let Some((arrival, _)) = self.pending.remove(&key) {
                reject(&arrival, &format!("no PROXY header within {HEADER_TIMEOUT}"));
                return Some(key);
            }
        }
        None
    }

    /// When [`pop_expired`](ProxyProtocol::pop_expired) must be asked.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next_deadline()
    }

    /// What a provider is told in front of a client's first datagram. `to`: where
    /// that was sent, as far as is known.
    pub fn udp_header(
        &self,
        service: ServiceName,
        client: SocketAddr,
        to: impl FnOnce() -> Option<IpAddr>,
        port: u16,
    ) -> Option<Header> {
        let rules = self.rules.get(&service).filter(|rules| rules.send_version.is_some())?;
        let to = SocketAddr::new(to().unwrap_or_else(|| unspecified_like(client)), port);
        let tlvs = rules.tlvs(&[], &self.ids);
        Some(Header::v2(Transport::Udp, ProxyAddrs::new(client, to), &tlvs))
    }
}

/// As the system knows them.
fn socket_addrs(arrival: Arrival, tunnel: &Tunnel) -> ProxyAddrs {
    let to = tunnel.client().local_addr();
    ProxyAddrs::new(
        arrival.from,
        to.unwrap_or(SocketAddr::new(unspecified_like(arrival.from), arrival.port)),
    )
}

/// An address that is not known, of the client's family.
fn unspecified_like(client: SocketAddr) -> IpAddr {
    match client.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// What is wrong with these settings for services that datagrams come to, however their
/// sockets were opened.
pub fn config_error(settings: &Settings, listen_sockets: &ListenSockets) -> Option<String> {
    let v1 = |service: ServiceName| {
        settings.service(service)?.proxy_protocol.filter(|version| *version == Version::V1)
    };
    let mut datagrams = listen_sockets
        .iter()
        .filter(|listen_socket| listen_socket.listen.transport == Transport::Udp);
    let service = datagrams.find(|listen_socket| v1(listen_socket.service).is_some())?.service;
    Some(format!("service_{}_proxy_protocol=v1: it knows no datagrams (v2)", service.in_key()))
}

/// It did not even begin its header: it only checked whether the service is there.
fn reject_silent(arrival: &Arrival) -> Identified {
    let Arrival { service, from, .. } = arrival;
    debug!(target: "redirect", "refused service={service} client={from}: it closed before sending \
        a byte");
    Identified::Rejected
}

fn reject(arrival: &Arrival, why: &str) -> Identified {
    warn!(target: "redirect", "refused service={} client={}: {why}", arrival.service, arrival.from);
    Identified::Rejected
}
