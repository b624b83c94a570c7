//! Names, addresses to listen on, and providers.
//!
//! Owns look-ups and connections that end soon, some at a time. Nothing is sent.

use super::finding::{Finding, Part};
use super::queue;
use crate::command::own_offers;
use crate::config::settings::{Check, Settings};
use crate::os::port_owner;
use pegasus_core::base::endpoint::{HostPort, ListenAddr, Transport};
use pegasus_core::base::provider::Provider;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// How long all look-ups may take together.
const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// How long a provider may take to accept.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Connections at once, and providers of all services.
const AT_ONCE: usize = 32;
const PROVIDERS_MAX: usize = 1024;
/// Ports of one range that are tried.
const PORTS_MAX: usize = 1024;

/// Looks a name up, in a thread that may outlive the wait.
fn look_up_all(names: BTreeSet<(String, String)>) -> Vec<(String, String)> {
    let (sender, results) = channel();
    let mut waiting = names.clone();
    for name in names {
        let sender = sender.clone();
        let spawned = thread::Builder::new().spawn(move || {
            let found = (name.1.as_str(), 1).to_socket_addrs();
            let _ = sender.send((name, found.is_ok_and(|mut found| found.next().is_some())));
        });
        drop(spawned);
    }
    drop(sender);
    let end = Instant::now() + LOOK_UP_TIME;
    while let Ok((name, found)) =
        results.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        if found {
            waiting.remove(&name);
        }
    }
    waiting.into_iter().collect()
}

/// Names that this host cannot look up.
pub fn names(settings: &Settings) -> Vec<Finding> {
    let mut names = BTreeSet::new();
    let mut add = |key: &str, host: &str| {
        let literal = HostPort { host: host.into(), port: 1 }.literal();
        if literal.is_none() && host != "*" {
            names.insert((key.to_string(), host.to_string()));
        }
    };
    for balancer in &settings.monitor_balancers {
        add("monitor_balancers", &balancer.host);
    }
    if settings.redirect_queue.is_some() {
        add("redirect_queue", &settings.usual_queue().host);
    }
    for listen in &settings.queue_listen {
        add("queue_listen", &listen.host);
    }
    for service in &settings.services {
        let key = service.name.in_key();
        service.fallback.iter().for_each(|at| add(&format!("service_{key}_fallback"), &at.host));
        service.listen.iter().for_each(|at| add(&format!("service_{key}_listen"), &at.host));
        if let Some(name) = &service.provider_name {
            add(&format!("service_{key}_provider"), name);
        }
    }
    let finding = |(key, name): (String, String)| {
        let what = format!("{key}: the name {name} does not resolve on this host");
        let mend = format!("ADDRESS {name}   (in /etc/hosts or the DNS, or its address in {key})");
        Finding::new("names", "", what, mend).unreachable()
    };
    look_up_all(names).into_iter().map(finding).collect()
}

/// Addresses that are to be listened on and cannot be.
pub fn addresses(settings: &Settings, part: &Part) -> Vec<Finding> {
    let mut listens: Vec<(String, &ListenAddr)> = Vec::new();
    if part.redirects {
        for service in &settings.services {
            let key = format!("service_{}_listen", service.name.in_key());
            listens.extend(service.listen.iter().map(|at| (key.clone(), at)));
        }
        listens.extend(settings.redirect_dns.iter().map(|at| ("redirect_dns".into(), at)));
        listens.extend(settings.redirect_admin.iter().map(|at| ("redirect_admin".into(), at)));
    }
    if part.has_queue {
        listens.extend(settings.queue_listen.iter().map(|at| ("queue_listen".into(), at)));
        listens.extend(settings.queue_admin.iter().map(|at| ("queue_admin".into(), at)));
    }
    if part.offers {
        listens.extend(settings.monitor_admin.iter().map(|at| ("monitor_admin".into(), at)));
        listens.extend(settings.monitor_agent.iter().map(|at| ("monitor_agent".into(), at)));
    }
    listens.into_iter().filter_map(|(key, listen)| address(&key, listen)).collect()
}

/// The first port of an address that cannot be had.
fn address(key: &str, listen: &ListenAddr) -> Option<Finding> {
    let ports = (listen.first..=listen.last).take(PORTS_MAX).filter(|port| *port != 0);
    let (socket, error) = ports.flat_map(|port| sockets(listen, port)).find_map(|socket| {
        let bound = match listen.transport {
            Transport::Tcp => TcpListener::bind(socket).map(drop),
            Transport::Udp => UdpSocket::bind(socket).map(drop),
        };
        bound.err().map(|error| (socket, error))
    })?;
    let (what, mend) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let owner = port_owner::of(socket, listen.transport == Transport::Udp);
            // A daemon of this configuration that runs.
            if owner.as_ref().is_some_and(|owner| owner.name.starts_with("pegasus")) {
                return None;
            }
            let owner = owner.map_or("another process".to_string(), |owner| {
                format!("{} (process {})", owner.name, owner.id)
            });
            (format!("{socket} is in use by {owner}"), "another port, or stop that process")
        }
        io::ErrorKind::AddrNotAvailable => {
            (format!("{} is no address of this host", socket.ip()), "an address of this host, or *")
        }
        io::ErrorKind::PermissionDenied => (
            format!("this user may not listen on {socket}"),
            "start it as root with user=NOBODY, or with CAP_NET_BIND_SERVICE",
        ),
        _ => (format!("{socket}: {error}"), "another address"),
    };
    Some(Finding::new("addresses", format!("{key}={listen}"), what, format!("{key}=…   ({mend})")))
}

/// Where it is listened on; a family that this host lacks does not count.
fn sockets(listen: &ListenAddr, port: u16) -> Vec<SocketAddr> {
    if listen.host == "*" {
        return vec![(Ipv4Addr::UNSPECIFIED, port).into()];
    }
    (listen.host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

/// Offers and fallbacks that lead back to a listen address of this host.
pub fn own_doors(settings: &Settings) -> Vec<Finding> {
    let warnings = own_offers::warnings("", settings).into_iter();
    let finding = |warning: String| {
        let (what, mend) = warning.rsplit_once(": ").unwrap_or((&warning, ""));
        Finding::new("own addresses", "", what, mend)
    };
    warnings.map(finding).collect()
}

/// Providers, of a queue that runs or static ones, that this host cannot reach, and services
/// that it is to offer and does not run.
pub fn providers(settings: &Settings, part: &Part) -> Vec<Finding> {
    let mut all: BTreeSet<(String, SocketAddr)> = BTreeSet::new();
    let by_tcp = |name: &str| {
        let service = settings.services.iter().find(|service| service.name.as_str() == name);
        service.is_none_or(|service| {
            service.listen.is_empty()
                || service.listen.iter().any(|at| at.transport == Transport::Tcp)
        })
    };
    for service in settings.to_offer().into_iter().filter(|_| part.offers) {
        if let Some(Check::Tcp(Some(port)) | Check::Http(Some(port), _)) = service.effective_check()
        {
            let host = service.provider_name.clone();
            let ip = service.provider.and_then(|provider| provider.ip);
            let host = host.unwrap_or_else(|| ip.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_string());
            let found = (host.as_str(), port).to_socket_addrs().into_iter().flatten().next();
            let key = format!("service_{}_provider", service.name.in_key());
            all.extend(found.map(|at| (key, at)));
        }
    }
    if !part.redirects && !part.has_queue {
        let all: Vec<_> = all.into_iter().take(PROVIDERS_MAX).collect();
        return all.chunks(AT_ONCE).flat_map(connect_all).collect();
    }
    for service in settings.services.iter().filter(|service| by_tcp(service.name.as_str())) {
        for fallback in &service.fallback {
            let found = (fallback.host.as_str(), fallback.port).to_socket_addrs();
            let key = format!("service_{}_fallback", service.name.in_key());
            all.extend(found.into_iter().flatten().map(|at| (key.clone(), at)));
        }
    }
    for (service, provider) in
        queue::providers(settings).into_iter().filter(|(name, _)| by_tcp(name))
    {
        let listens = settings.services.iter().find(|known| known.name.as_str() == service);
        let port = listens.and_then(|known| known.listen.first()).map_or(0, |listen| listen.first);
        let provider: Provider = provider;
        let socket = provider.socket(port);
        if socket.port() != 0 {
            all.insert((format!("provider of {service}"), socket));
        }
    }
    let all: Vec<_> = all.into_iter().take(PROVIDERS_MAX).collect();
    all.chunks(AT_ONCE).flat_map(connect_all).collect()
}

fn connect_all(all: &[(String, SocketAddr)]) -> Vec<Finding> {
    thread::scope(|scope| {
        let tries: Vec<_> = all
            .iter()
            .map(|(what, to)| {
                scope.spawn(move || (what, to, TcpStream::connect_timeout(to, CONNECT_TIME)))
            })
            .collect();
        let ended = tries.into_iter().filter_map(|done| done.join().ok());
        ended
            .filter_map(|(what, to, connected)| {
                let error = connected.err()?;
                let text = format!("{to} cannot be reached from this host: {error}");
                let mend = "start the server there, or let this host through its firewall";
                Some(Finding::new("providers", what, text, mend).unreachable())
            })
            .collect()
    })
}
