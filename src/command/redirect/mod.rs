//! `pegasus redirect`: how it was started decides what it does.
//!
//! Owns the three ways to be started (by itself, for one client, on somebody's
//! listening socket), the threads, and what signals mean to them. Each thread
//! has a loop, a machine and a connection to the queue of its own; one more has
//! all flows of datagrams, where a service has any.

mod asker;
mod datagrams;
mod fallbacks;
mod notes;
mod proxied;
mod relay;

pub use relay::Order;

use asker::Asker;
use datagrams::Datagrams;
use relay::{Relay, Stay};

use super::daemon::{Daemon, Source};
use super::queue::{self, Embedded, SharedQueue};
use super::settings::{QueueAt, Settings};
use super::{exit, logging};
use crate::base::address::{Listen, Target, Transport};
use crate::base::name::Service;
use crate::base::time::Span;
use crate::net::accept;
use crate::net::drive::{Desk, Loop, Remote};
use crate::net::peer::Peer;
use crate::os::inherit::Inherited;
use crate::os::signal::Signal;
use crate::os::{load, socket};
use crate::redirect::flows::Flows;
use crate::redirect::redirector::Redirector;
use log::{error, info, warn};
use mio::net::TcpStream;
use mio::Token;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Between attempts to reach the queue: clients wait for it.
const RETRY: (Span, Span) = (Span::from_millis(50), Span::from_secs(1));

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, service, inherited, .. } = daemon;
    let result = match inherited {
        Inherited::Nothing => standalone(settings, &source),
        Inherited::Client(stream) => one_client(settings, service, stream),
        Inherited::Sockets { listeners, datagrams, lent } => {
            on_inherited(settings, &source, service, Doors { listeners, datagrams }, lent)
        }
        Inherited::Other(what) => {
            error!(target: "redirect", "inherited {what}: this version serves TCP and UDP");
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
fn service_of(settings: &Settings, named: Option<Service>, transport: Transport, port: u16) -> Service {
    let covers = |listen: &Listen| listen.transport == transport && listen.covers(port);
    let by_port = settings.services.iter().find(|service| service.listen.iter().any(covers));
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
    let service = service_of(&settings, service, Transport::Tcp, local.port());
    let crew = Crew::new(settings, Queue::At(queue), Stay::OneClient);
    let (mut turn, mut relay) = crew.relay(&[], 0)?;
    // A signal ends it within drain_timeout.
    turn.catch_signals(|signal| (signal == Signal::Terminate).then_some(Order::Terminate))?;
    let mut machine = Redirector::new(crew.settings.redirect_options());
    relay.admit(TcpStream::from_std(stream), service, from, local.port(), &mut machine, turn.desk());
    turn.run(&mut machine, &mut relay)?;
    Ok(exit::OK)
}

/// The sockets that clients come to, each with `T`: a service, or a name.
struct Doors<T> {
    listeners: Vec<(T, TcpListener)>,
    datagrams: Vec<(T, UdpSocket)>,
}

/// By itself, for all services.
fn standalone(settings: Settings, source: &Source) -> io::Result<i32> {
    let doors = bind(&settings)?;
    if doors.listeners.is_empty() && doors.datagrams.is_empty() {
        error!(target: "config", "nothing to serve: set service_NAME_listen, or start it from a superserver");
        return Ok(exit::CONFIG);
    }
    serve_all(settings, source, doors, Stay::Forever)
}

/// On sockets that somebody else opened.
fn on_inherited(
    mut settings: Settings,
    source: &Source,
    service: Option<Service>,
    doors: Doors<Option<String>>,
    lent: bool,
) -> io::Result<i32> {
    let of = |name: Option<String>, transport, address: io::Result<SocketAddr>| {
        // What systemd itself puts where nobody chose a name.
        let chosen = name.filter(|name| !["unknown", "connection", "stored"].contains(&name.as_str()));
        let named = service.or(chosen.and_then(|name| name.parse().ok()));
        io::Result::Ok(service_of(&settings, named, transport, address?.port()))
    };
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for (name, socket) in doors.listeners {
        socket.set_nonblocking(true)?;
        socket::bequeath(&socket);
        listeners.push((of(name, Transport::Tcp, socket.local_addr())?, socket));
    }
    for (name, socket) in doors.datagrams {
        socket.set_nonblocking(true)?;
        datagrams.push((of(name, Transport::Udp, socket.local_addr())?, socket));
    }
    let doors = Doors { listeners, datagrams };
    if !lent {
        return serve_all(settings, source, doors, Stay::Forever);
    }
    // It is started anew all the time: one thread is quicker to start.
    settings.redirect_threads = Some(1);
    let listeners = doors.listeners.iter().map(|(_, socket)| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let datagrams = doors.datagrams.iter().map(|(_, socket)| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let status = serve_all(settings, source, doors, Stay::Linger);
    // Their starter expects calls on them to block.
    listeners.iter().for_each(|socket| drop(socket.set_nonblocking(false)));
    datagrams.iter().for_each(|socket| drop(socket.set_nonblocking(false)));
    status
}

/// Opens every place that services are configured to listen on.
fn bind(settings: &Settings) -> io::Result<Doors<Service>> {
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for service in &settings.services {
        for listen in &service.listen {
            let name = service.name;
            match listen.transport {
                Transport::Tcp => listeners.extend(accept::bind(listen)?.into_iter().map(|socket| (name, socket))),
                Transport::Udp => datagrams.extend(accept::bind(listen)?.into_iter().map(|socket| (name, socket))),
            }
        }
    }
    Ok(Doors { listeners, datagrams })
}

fn serve_all(settings: Settings, source: &Source, doors: Doors<Service>, stay: Stay) -> io::Result<i32> {
    if let Some(mistake) = proxied::mistake(&settings, &doors.datagrams) {
        error!(target: "config", "{mistake}");
        return Ok(exit::CONFIG);
    }
    let embedded = match &settings.redirect_queue {
        QueueAt::Target(_) => None,
        QueueAt::Embedded => Some(Embedded::start(&settings, members_max(&settings))?),
    };
    settings.become_user()?;
    let queue_remote = embedded.as_ref().map(|embedded| embedded.remote.clone());
    let queue = embedded.as_ref().map(|embedded| embedded.shared.clone());
    let mut team = Team::start(settings, doors, queue, stay)?;
    let (source, mut current, remotes) = (source.clone(), team.settings.clone(), team.remotes.clone());
    team.first.turn().catch_signals(move |signal| {
        let order = on_signal(signal, &source, &mut current, queue_remote.as_ref())?;
        remotes.iter().for_each(|remote| remote.send(order.clone()));
        Some(order)
    })?;
    let place = |(service, address): &(Service, SocketAddr)| format!("{service}={address}");
    let mut places: Vec<String> = team.places.iter().map(place).collect();
    places.extend(team.datagrams.iter().map(|entry| place(entry) + "/udp"));
    info!(target: "redirect", "ready {}", places.join(" "));
    let status = team.serve();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(status)
}

/// Loops of a redirector.
fn threads(settings: &Settings) -> usize {
    settings.redirect_threads.unwrap_or(load::cpus() as usize)
}

/// Loops that may ask a queue of this process: for streams, and for datagrams.
pub fn members_max(settings: &Settings) -> usize {
    2 * threads(settings)
}

/// Where the queue is.
enum Queue {
    At(Target),
    Here(SharedQueue),
}

/// What the loops of a process have in common.
pub struct Crew {
    settings: Arc<Settings>,
    queue: Queue,
    /// The clients of all loops.
    count: Arc<AtomicUsize>,
    /// The flows of the loop that has them.
    flows: Arc<AtomicUsize>,
    stay: Stay,
}

impl Crew {
    fn new(settings: Settings, queue: Queue, stay: Stay) -> Crew {
        Crew { settings: Arc::new(settings), queue, count: Arc::default(), flows: Arc::default(), stay }
    }

    /// A way to ask the queue.
    fn asker(&self, token: Token, seed: u64, desk: &Desk) -> io::Result<Asker> {
        let target = match &self.queue {
            Queue::At(target) => target.clone(),
            Queue::Here(queue) => {
                let member = queue.join(desk.waker(), desk.now).ok_or(io::Error::other("too many threads"))?;
                return Ok(Asker::Inside(member));
            }
        };
        // Longer silence than any answer may take means that nobody is there.
        let redirect = &self.settings.redirect;
        let silence_max = redirect.queue_timeout + redirect.wait + Span::from_millis(100);
        Ok(Asker::Connected(Box::new(Peer::new("redirect", target, token, RETRY, silence_max, seed))))
    }

    /// The process's id is different enough, jitter is all it is for.
    fn seed(number: u64) -> u64 {
        (u64::from(std::process::id()) << 16) + number
    }

    /// A loop with its hands; `number` tells the loops of a process apart.
    fn relay(&self, listeners: &[(Service, TcpListener)], number: u64) -> io::Result<(Loop<Order>, Relay)> {
        let mut turn = Loop::new()?;
        let mut relay = Relay::new(self, Crew::seed(number), turn.desk())?;
        for (service, listener) in listeners {
            relay.listen(*service, listener.try_clone()?, turn.desk())?;
        }
        Ok((turn, relay))
    }

    /// The loop that has all flows.
    fn datagrams(&self, sockets: Vec<(Service, UdpSocket)>) -> io::Result<(Loop<Order>, Datagrams)> {
        let mut turn = Loop::new()?;
        let mut datagrams = Datagrams::new(self, Crew::seed(u64::from(u16::MAX)), turn.desk())?;
        for (service, socket) in sockets {
            datagrams.listen(service, socket, turn.desk())?;
        }
        Ok((turn, datagrams))
    }
}

/// A loop that is not running yet.
enum Member {
    Relay(Loop<Order>, Box<Relay>),
    Datagrams(Loop<Order>, Box<Datagrams>),
}

impl Member {
    fn turn(&mut self) -> &mut Loop<Order> {
        match self {
            Member::Relay(turn, _) | Member::Datagrams(turn, _) => turn,
        }
    }

    /// Runs it to its end.
    fn serve(self) -> i32 {
        let result = match self {
            Member::Relay(mut turn, mut relay) => {
                turn.run(&mut Redirector::new(relay.settings().redirect_options()), &mut *relay)
            }
            Member::Datagrams(mut turn, mut datagrams) => {
                turn.run(&mut Flows::new(datagrams::options(datagrams.settings())), &mut *datagrams)
            }
        };
        match result {
            Ok(()) => exit::OK,
            Err(error) => {
                error!(target: "redirect", "{error}");
                exit::SYSTEM
            }
        }
    }
}

/// All loops of a redirector; the first is not running yet.
pub struct Team {
    first: Member,
    settings: Arc<Settings>,
    /// The other loops.
    remotes: Vec<Remote<Order>>,
    others: Vec<JoinHandle<i32>>,
    /// Where clients come.
    pub places: Vec<(Service, SocketAddr)>,
    /// Where their datagrams come.
    datagrams: Vec<(Service, SocketAddr)>,
}

impl Team {
    /// By itself, asking this queue.
    ///
    /// # Errors
    /// What the system says.
    pub fn standalone(settings: Settings, queue: SharedQueue) -> io::Result<Team> {
        let doors = bind(&settings)?;
        Team::start(settings, doors, Some(queue), Stay::Forever)
    }

    /// `queue`: one of this process, instead of the configured one.
    fn start(settings: Settings, doors: Doors<Service>, queue: Option<SharedQueue>, stay: Stay) -> io::Result<Team> {
        let Doors { listeners, datagrams } = doors;
        let place = |(service, listener): &(Service, TcpListener)| Ok((*service, listener.local_addr()?));
        let places: Vec<_> = listeners.iter().map(place).collect::<io::Result<_>>()?;
        let place = |(service, socket): &(Service, UdpSocket)| Ok((*service, socket.local_addr()?));
        let datagram_places = datagrams.iter().map(place).collect::<io::Result<_>>()?;
        let queue = match (&settings.redirect_queue, queue) {
            (_, Some(queue)) => Queue::Here(queue),
            (QueueAt::Target(queue), None) => Queue::At(queue.clone()),
            (QueueAt::Embedded, None) => return Err(io::Error::other("no queue in this process")),
        };
        let threads = threads(&settings) as u64;
        let crew = Crew::new(settings, queue, stay);
        let mut members = Vec::new();
        // Without anybody to accept these loops would only wait.
        for number in 0..if listeners.is_empty() { 0 } else { threads } {
            let (turn, relay) = crew.relay(&listeners, number)?;
            members.push(Member::Relay(turn, Box::new(relay)));
        }
        if !datagrams.is_empty() {
            let (turn, datagrams) = crew.datagrams(datagrams)?;
            members.push(Member::Datagrams(turn, Box::new(datagrams)));
        }
        let mut members = members.into_iter().enumerate();
        let Some((_, first)) = members.next() else { return Err(io::Error::other("nothing to serve")) };
        let (settings, remotes, others) = (crew.settings.clone(), Vec::new(), Vec::new());
        let mut team = Team { first, settings, remotes, others, places, datagrams: datagram_places };
        for (number, mut member) in members {
            team.remotes.push(member.turn().remote());
            let name = format!("redirect-{number}");
            team.others.push(thread::Builder::new().name(name).spawn(move || member.serve())?);
        }
        Ok(team)
    }

    /// Runs the first loop, until all are over.
    pub fn serve(self) -> i32 {
        let status = self.first.serve();
        self.others.into_iter().map(|other| other.join().unwrap_or(exit::SYSTEM)).fold(status, i32::max)
    }
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
