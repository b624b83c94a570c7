//! `pegasus redirect`: how it was started decides what it does.
//!
//! Owns the three ways to be started (by itself, for one client, on somebody's
//! listening socket), the threads, and what signals mean to them. Each thread
//! has a loop, a machine and a connection to the queue of its own.

mod relay;

pub use relay::Order;
use relay::{Relay, Stay};

use super::cli::{Daemon, Source};
use super::queue::{self, Embedded};
use super::settings::{QueueAt, Settings};
use super::{exit, logging};
use crate::base::address::Target;
use crate::base::name::Service;
use crate::net::accept;
use crate::net::drive::{Loop, Remote};
use crate::os::inherit::{self, Inherited};
use crate::os::signal::Signal;
use crate::os::{load, socket};
use crate::redirect::redirector::Redirector;
use log::{error, info, warn};
use mio::net::TcpStream;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, service, inherited, .. } = daemon;
    let result = match inherited {
        Inherited::Nothing => standalone(settings, &source),
        Inherited::Client(stream) => one_client(settings, service, stream),
        Inherited::Listeners { sockets, lent } => inherited_listeners(settings, &source, service, sockets, lent),
        Inherited::Other(what) => {
            error!(target: "redirect", "inherited {what}: this version serves TCP");
            Ok(exit::USAGE)
        }
    };
    result.unwrap_or_else(|error| {
        error!(target: "redirect", "{error}");
        exit::of(&error)
    })
}

/// The service of an inherited socket: the one that was named, else the one
/// that is configured to listen on its port.
fn service_of(settings: &Settings, named: Option<Service>, port: u16) -> Service {
    let by_port = settings.services.iter().find(|service| service.listen.iter().any(|listen| listen.covers(port)));
    named.or(by_port.map(|service| service.name)).unwrap_or(Service::DEFAULT)
}

/// Started by a superserver for one client.
fn one_client(settings: Settings, service: Option<Service>, stream: std::net::TcpStream) -> io::Result<i32> {
    let QueueAt::Target(queue) = settings.redirect_queue.clone() else {
        error!(target: "config", "redirect_queue=embedded: a superserver starts one process for each client");
        return Ok(exit::CONFIG);
    };
    stream.set_nonblocking(true)?;
    let (Ok(local), Ok(from)) = (stream.local_addr(), stream.peer_addr()) else {
        // It was gone before this process began.
        return Ok(exit::OK);
    };
    let _ = stream.set_nodelay(true);
    socket::keepalive(&stream);
    let service = service_of(&settings, service, local.port());
    let crew = Crew::new(settings, queue, Vec::new(), Stay::OneClient);
    let (mut turn, mut relay) = crew.relay(0)?;
    // A signal ends it within drain_timeout.
    turn.catch_signals(|signal| (signal == Signal::Terminate).then_some(Order::Terminate))?;
    let mut machine = Redirector::new(crew.settings.redirect.clone());
    relay.admit(TcpStream::from_std(stream), service, from, local.port(), &mut machine, turn.desk());
    turn.run(&mut machine, &mut relay)?;
    Ok(exit::OK)
}

/// By itself, for all services.
fn standalone(settings: Settings, source: &Source) -> io::Result<i32> {
    let listeners = bind(&settings)?;
    if listeners.is_empty() {
        error!(target: "config", "nothing to serve: set service_NAME_listen, or start it from a superserver");
        return Ok(exit::CONFIG);
    }
    serve_all(settings, source, listeners, Stay::Forever)
}

/// On sockets that somebody else opened.
fn inherited_listeners(
    mut settings: Settings,
    source: &Source,
    service: Option<Service>,
    sockets: Vec<(Option<String>, TcpListener)>,
    lent: bool,
) -> io::Result<i32> {
    let mut listeners = Vec::new();
    for (name, socket) in sockets {
        let port = socket.local_addr()?.port();
        // What systemd itself puts where nobody chose a name.
        let chosen = name.filter(|name| !["unknown", "connection", "stored"].contains(&name.as_str()));
        let named = service.or(chosen.and_then(|name| name.parse().ok()));
        listeners.push((service_of(&settings, named, port), socket));
    }
    for (_, listener) in &listeners {
        listener.set_nonblocking(true)?;
    }
    if !lent {
        return serve_all(settings, source, listeners, Stay::Forever);
    }
    // It is started anew all the time: one thread is quicker to start.
    settings.redirect_threads = Some(1);
    let kept = listeners.iter().map(|(_, listener)| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let status = serve_all(settings, source, listeners, Stay::Linger);
    kept.iter().for_each(inherit::give_back);
    status
}

/// Opens every place that services are configured to listen on.
fn bind(settings: &Settings) -> io::Result<Vec<(Service, TcpListener)>> {
    let mut listeners = Vec::new();
    for service in &settings.services {
        for listen in &service.listen {
            listeners.extend(accept::bind(listen)?.into_iter().map(|listener| (service.name, listener)));
        }
    }
    Ok(listeners)
}

fn serve_all(
    settings: Settings,
    source: &Source,
    listeners: Vec<(Service, TcpListener)>,
    stay: Stay,
) -> io::Result<i32> {
    let embedded = match &settings.redirect_queue {
        QueueAt::Target(_) => None,
        QueueAt::Embedded => Some(Embedded::start(&settings)?),
    };
    settings.become_user()?;
    let queue_remote = embedded.as_ref().map(|embedded| embedded.remote.clone());
    let queue = embedded.as_ref().map(|embedded| embedded.addresses[0]);
    let mut team = Team::start(settings, listeners, queue, stay)?;
    let (source, mut current, remotes) = (source.clone(), team.relay.settings().clone(), team.remotes.clone());
    team.turn.catch_signals(move |signal| {
        let order = on_signal(signal, &source, &mut current, queue_remote.as_ref())?;
        remotes.iter().for_each(|remote| remote.send(order.clone()));
        Some(order)
    })?;
    let places: Vec<String> = team.places.iter().map(|(service, address)| format!("{service}={address}")).collect();
    info!(target: "redirect", "ready {}", places.join(" "));
    let status = team.serve();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(status)
}

/// What the loops of a process have in common.
struct Crew {
    settings: Arc<Settings>,
    queue: Target,
    count: Arc<AtomicUsize>,
    listeners: Vec<(Service, TcpListener)>,
    stay: Stay,
}

impl Crew {
    fn new(settings: Settings, queue: Target, listeners: Vec<(Service, TcpListener)>, stay: Stay) -> Crew {
        Crew { settings: Arc::new(settings), queue, count: Arc::default(), listeners, stay }
    }

    /// A loop with its hands; `number` tells the loops of a process apart.
    fn relay(&self, number: u64) -> io::Result<(Loop<Order>, Relay)> {
        let mut turn = Loop::new()?;
        // The process's id is different enough, jitter is all it is for.
        let seed = (u64::from(std::process::id()) << 16) + number;
        let mut relay = Relay::new(self.settings.clone(), self.queue.clone(), self.count.clone(), self.stay, seed);
        for (service, listener) in &self.listeners {
            relay.listen(*service, listener.try_clone()?, turn.desk())?;
        }
        Ok((turn, relay))
    }
}

fn serve(turn: &mut Loop<Order>, relay: &mut Relay) -> i32 {
    let mut machine = Redirector::new(relay.settings().redirect.clone());
    match turn.run(&mut machine, relay) {
        Ok(()) => exit::OK,
        Err(error) => {
            error!(target: "redirect", "{error}");
            exit::SYSTEM
        }
    }
}

/// All loops of a redirector; the first is not running yet.
pub struct Team {
    turn: Loop<Order>,
    relay: Relay,
    /// The other loops.
    remotes: Vec<Remote<Order>>,
    others: Vec<JoinHandle<i32>>,
    /// Where clients come.
    pub places: Vec<(Service, SocketAddr)>,
}

impl Team {
    /// By itself, asking this queue.
    ///
    /// # Errors
    /// What the system says.
    pub fn standalone(settings: Settings, queue: SocketAddr) -> io::Result<Team> {
        let listeners = bind(&settings)?;
        Team::start(settings, listeners, Some(queue), Stay::Forever)
    }

    /// `queue`: one of this process, instead of the configured one.
    fn start(
        settings: Settings,
        listeners: Vec<(Service, TcpListener)>,
        queue: Option<SocketAddr>,
        stay: Stay,
    ) -> io::Result<Team> {
        let place = |(service, listener): &(Service, TcpListener)| Ok((*service, listener.local_addr()?));
        let places = listeners.iter().map(place).collect::<io::Result<_>>()?;
        let queue = match (&settings.redirect_queue, queue) {
            (_, Some(address)) => reachable(address),
            (QueueAt::Target(queue), None) => queue.clone(),
            (QueueAt::Embedded, None) => return Err(io::Error::other("no queue in this process")),
        };
        let threads = settings.redirect_threads.unwrap_or(load::cpus() as usize);
        let crew = Crew::new(settings, queue, listeners, stay);
        let (turn, relay) = crew.relay(0)?;
        let mut team = Team { turn, relay, remotes: Vec::new(), others: Vec::new(), places };
        for number in 1..threads {
            let (mut turn, mut relay) = crew.relay(number as u64)?;
            team.remotes.push(turn.remote());
            let name = format!("redirect-{number}");
            team.others.push(thread::Builder::new().name(name).spawn(move || serve(&mut turn, &mut relay))?);
        }
        Ok(team)
    }

    /// Runs the first loop, until all are over.
    pub fn serve(mut self) -> i32 {
        let status = serve(&mut self.turn, &mut self.relay);
        self.others.into_iter().map(|other| other.join().unwrap_or(exit::SYSTEM)).fold(status, i32::max)
    }
}

/// A queue of this process, by an address that leads to it.
fn reachable(listens: SocketAddr) -> Target {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Target { host: ip.to_string(), port: listens.port() }
}

fn on_signal(
    signal: Signal,
    source: &Source,
    current: &mut Arc<Settings>,
    queue: Option<&Remote<queue::Order>>,
) -> Option<Order> {
    match signal {
        Signal::Terminate => {
            info!(target: "redirect", "draining");
            Some(Order::Terminate)
        }
        Signal::Reopen => {
            logging::reopen();
            None
        }
        Signal::Reload => {
            let fresh = Arc::new(source.reload()?);
            let places = |settings: &Settings| -> Vec<_> {
                settings.services.iter().map(|service| (service.name, service.listen.clone())).collect()
            };
            if places(&fresh) != places(current) {
                warn!(target: "config", "service_NAME_listen changes at the next start");
            }
            if fresh.redirect_queue != current.redirect_queue {
                warn!(target: "config", "redirect_queue changes at the next start");
            }
            if let Some(remote) = queue {
                remote.send(queue::Order::Reconfigure(Box::new((*fresh).clone())));
            }
            *current = fresh.clone();
            Some(Order::Reconfigure(fresh))
        }
    }
}
