//! Who clients are, where a front proxy tells, and telling providers.
//!
//! Owns which service has to do with the PROXY protocol, the connections whose
//! header is not whole yet, and what is said of those that had none. The
//! notation is `wire::proxy`'s.

use super::doors::Doors;
use crate::config::settings::Settings;
use crate::net::pump::Link;
use log::{debug, warn};
use pegasus_core::base::address::{Cidr, Transport};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::base::timer_queue::TimerQueue;
use pegasus_core::protocol::proxy_header::{parse, Header, ParseStatus, ProxyAddrs, Version, V2_BYTES_MAX};
use pegasus_core::redirect::redirector::RedirectLog;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How long a front proxy may take for its header.
const HEADER_WAIT: Span = Span::from_secs(5);

/// Somebody who came to a service.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    /// What it wants.
    pub service: ServiceName,
    /// Who it is; never an IPv4-mapped address.
    pub from: SocketAddr,
    /// The port of ours that it came to.
    pub port: u16,
}

impl Visitor {
    /// One that the system calls `from`.
    pub fn new(service: ServiceName, from: SocketAddr, port: u16) -> Visitor {
        Visitor { service, from: SocketAddr::new(from.ip().to_canonical(), from.port()), port }
    }
}

/// What is known of a visitor.
#[derive(Debug)]
pub enum Met {
    /// This is who it is.
    Client(Visitor),
    /// Its header is not whole yet.
    Waits,
    /// It has none, which was told: it is to be turned away.
    Nobody,
}

/// What a service has to do with the protocol.
struct Terms {
    writes: Option<Version>,
    believes: Vec<Cidr>,
}

impl Terms {
    fn believe(&self, proxy: SocketAddr) -> bool {
        self.believes.iter().any(|network| network.contains(proxy.ip()))
    }
}

/// See the file's head.
pub struct Proxied {
    /// Of services that have to do with it; of all others there is nothing to do.
    terms: HashMap<ServiceName, Terms>,
    /// Who has not said all of its header yet, and what it said.
    arrivals: HashMap<Key, (Visitor, Vec<u8>)>,
    timers: TimerQueue<Key>,
}

impl Proxied {
    /// As these settings say.
    pub fn new(settings: &Settings) -> Proxied {
        let mut proxied = Proxied { terms: HashMap::new(), arrivals: HashMap::new(), timers: TimerQueue::default() };
        proxied.reconfigure(settings);
        proxied
    }

    /// As these settings say from now on.
    pub fn reconfigure(&mut self, settings: &Settings) {
        self.terms = (settings.services.iter())
            .filter(|service| service.proxy_protocol.is_some() || !service.accept_proxy.is_empty())
            .map(|service| {
                let terms = Terms { writes: service.proxy_protocol, believes: service.accept_proxy.clone() };
                (service.name, terms)
            })
            .collect();
    }

    /// Somebody came.
    pub fn meet(&mut self, key: Key, visitor: Visitor, link: &mut Link, now: Moment) -> Met {
        let Some(terms) = self.terms.get(&visitor.service) else { return Met::Client(visitor) };
        if !terms.believe(visitor.from) {
            if let Some(version) = terms.writes {
                link.set_header(Header::of_stream(version, own_ends(visitor, link)));
            }
            return Met::Client(visitor);
        }
        self.arrivals.insert(key, (visitor, Vec::new()));
        let met = self.hear(key, link);
        if let Met::Waits = met {
            self.timers.schedule(now + HEADER_WAIT, key);
            if self.timers.len() > 4 * self.arrivals.len() + 1024 {
                let arrivals = &self.arrivals;
                self.timers.retain(|key| arrivals.contains_key(&key));
            }
        }
        met
    }

    /// Somebody whose header is not whole yet says more, or left.
    pub fn hear(&mut self, key: Key, link: &mut Link) -> Met {
        let Some((visitor, mut said)) = self.arrivals.remove(&key) else { return Met::Nobody };
        let mut buffer = [0; V2_BYTES_MAX];
        loop {
            // So many bytes are a header or garbled: what is taken here is bounded.
            let room = V2_BYTES_MAX - said.len();
            match link.listen(&mut buffer[..room]) {
                Ok(0) if said.is_empty() => return looked(&visitor),
                Err(error) if said.is_empty() && error.kind() == io::ErrorKind::ConnectionReset => {
                    return looked(&visitor);
                }
                Ok(0) => return refuse(&visitor, "it left before its PROXY header was whole"),
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.arrivals.insert(key, (visitor, said));
                    return Met::Waits;
                }
                Err(error) => return refuse(&visitor, &error.to_string()),
            }
            match parse(&said) {
                ParseStatus::Incomplete => {}
                ParseStatus::Invalid(why) => return refuse(&visitor, &format!("no PROXY header: {why}")),
                ParseStatus::Complete { length, addrs: ends } => {
                    link.put_back(&said[length..]);
                    let ends = ends.unwrap_or_else(|| own_ends(visitor, link));
                    let terms = self.terms.get(&visitor.service);
                    if let Some(version) = terms.and_then(|terms| terms.writes) {
                        link.set_header(Header::of_stream(version, ends));
                    }
                    return Met::Client(Visitor { from: ends.source, ..visitor });
                }
            }
        }
    }

    /// Somebody is gone, whoever it was.
    pub fn forget(&mut self, key: Key) {
        self.arrivals.remove(&key);
    }

    /// Whether this tells of a front proxy that spoke for itself, and said nothing:
    /// how some check all the time whether anybody is here.
    pub fn is_check(&self, note: &RedirectLog) -> bool {
        let RedirectLog::Closed { service, client, sent: 0, received: 0, .. } = note else { return false };
        self.terms.get(service).is_some_and(|terms| terms.believe(*client))
    }

    /// Somebody whose time for its header is over, which was told.
    pub fn late(&mut self, now: Moment) -> Option<Key> {
        while let Some(key) = self.timers.pop_due(now) {
            if let Some((visitor, _)) = self.arrivals.remove(&key) {
                refuse(&visitor, &format!("no PROXY header within {HEADER_WAIT}"));
                return Some(key);
            }
        }
        None
    }

    /// When [`late`](Proxied::late) must be asked.
    pub fn deadline(&self) -> Option<Moment> {
        self.timers.next_deadline()
    }

    /// What a provider is told in front of a client's first datagram. `to`: where
    /// that was sent, as far as is known.
    pub fn of_datagrams(
        &self,
        service: ServiceName,
        client: SocketAddr,
        to: impl FnOnce() -> Option<IpAddr>,
        port: u16,
    ) -> Option<Header> {
        self.terms.get(&service)?.writes?;
        let to = SocketAddr::new(to().unwrap_or_else(|| unknown(client)), port);
        Some(Header::v2(Transport::Udp, ProxyAddrs::new(client, to)))
    }
}

/// As the system knows them.
fn own_ends(visitor: Visitor, link: &Link) -> ProxyAddrs {
    let to = link.client().local_addr();
    ProxyAddrs::new(visitor.from, to.unwrap_or(SocketAddr::new(unknown(visitor.from), visitor.port)))
}

/// An address that is not known, of the client's family.
fn unknown(client: SocketAddr) -> IpAddr {
    match client.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// What is wrong with these settings for whom datagrams come to, however their
/// sockets were opened.
pub fn mistake(settings: &Settings, doors: &Doors) -> Option<String> {
    let v1 = |service: ServiceName| settings.service(service)?.proxy_protocol.filter(|version| *version == Version::V1);
    let mut datagrams = doors.iter().filter(|door| door.place.transport == Transport::Udp);
    let service = datagrams.find(|door| v1(door.service).is_some())?.service;
    Some(format!("service_{}_proxy_protocol=v1: it knows no datagrams (v2)", service.in_key()))
}

/// It did not even begin its header: it came to see whether anybody is here.
fn looked(visitor: &Visitor) -> Met {
    let Visitor { service, from, .. } = visitor;
    debug!(target: "redirect", "refused service={service} client={from}: it left without a word");
    Met::Nobody
}

fn refuse(visitor: &Visitor, why: &str) -> Met {
    warn!(target: "redirect", "refused service={} client={}: {why}", visitor.service, visitor.from);
    Met::Nobody
}
