//! `pegasus redirect`: how it was started decides what it does.
//!
//! Owns the three ways to be started (by itself, for one client, on somebody's
//! listening socket) and the threads. Each thread has a loop, a machine and a
//! connection to the queue of its own. Where a service has datagrams as many
//! more have their flows, or one where they cannot be divided.

mod asker;
mod datagrams;
mod doors;
mod fallbacks;
mod homes;
mod notes;
mod proxied;
mod relay;
mod scarcity;
mod stay;
mod steward;
mod upstreams;

pub use steward::Order;

use asker::Asker;
use datagrams::{Datagrams, Part};
use doors::{Change, Doors};
use relay::Relay;
use stay::Stay;
use steward::Steward;

use super::daemon::{become_user, Daemon};
use super::exit;
use super::queue::{Embedded, Places, SharedQueue};
use crate::config::settings::{QueueAt, Settings};
use crate::config::source::Source;
use crate::net::drive::{Desk, Loop, Remote};
use crate::net::peer::Peer;
use crate::net::tally::Tally;
use crate::os::inherit::{Handover, Inherited, Predecessor};
use crate::os::signal::Signal;
use crate::os::socket::{self, Socket};
use crate::os::{cpus, notify, service};
use log::{error, info, warn};
use mio::net::TcpStream;
use mio::Token;
use pegasus_core::base::address::{HostPort, ListenAddr, Transport};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::redirect::flows::Flows;
use pegasus_core::redirect::redirector::Redirector;
use pegasus_core::redirect::source_limit::SourceLimiter;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Between attempts to reach the queue: clients wait for it.
const RETRY: (Span, Span) = (Span::from_millis(50), Span::from_secs(1));

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, service, inherited, .. } = daemon;
    let result = match inherited {
        Inherited::Nothing => standalone(settings, &source, None),
        Inherited::Handed(handover) => standalone(settings, &source, Some(handover)),
        Inherited::Client(stream) => one_client(settings, service, stream),
        Inherited::Sockets { listeners, datagrams, lent } => {
            let listeners = listeners.into_iter().map(|(name, socket)| (name, Socket::Tcp(socket)));
            let datagrams = datagrams.into_iter().map(|(name, socket)| (name, Socket::Udp(socket)));
            on_inherited(settings, &source, service, listeners.chain(datagrams).collect(), lent)
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
fn service_of(settings: &Settings, named: Option<ServiceName>, transport: Transport, port: u16) -> ServiceName {
    let covers = |listen: &ListenAddr| listen.transport == transport && listen.covers(port);
    let by_port = settings.services.iter().find(|service| service.listen.iter().any(covers));
    named.or(by_port.map(|service| service.name)).unwrap_or(ServiceName::DEFAULT)
}

/// Started by a superserver for one client.
fn one_client(mut settings: Settings, service: Option<ServiceName>, stream: std::net::TcpStream) -> io::Result<i32> {
    let QueueAt::Target(queue) = settings.asked_queue() else {
        let why = "the superserver starts a process for each client, and a queue in it would end with that client";
        error!(target: "config", "redirect_queue=embedded: {why} (run `pegasus queue`, and name its address here)");
        return Ok(exit::CONFIG);
    };
    stream.set_nonblocking(true)?;
    let (Ok(local), Ok(from)) = (stream.local_addr(), stream.peer_addr()) else {
        // It was gone before this process began.
        return Ok(exit::OK);
    };
    let _ = stream.set_nodelay(true);
    // To find out how many there could be takes time.
    settings.redirect_threads = Some(1);
    let service = service_of(&settings, service, Transport::Tcp, local.port());
    let crew = Crew::new(settings, Queue::At(queue), Stay::OneClient);
    let (mut turn, mut relay) = crew.relay(&Doors::default(), 0)?;
    // A signal ends it within drain_timeout.
    turn.catch_signals(|signal| (signal == Signal::Terminate).then_some(Order::Terminate))?;
    let mut machine = Redirector::new(crew.settings.redirect_options());
    let Some(counted) = crew.count.enter(usize::MAX) else { return Ok(exit::OK) };
    let visitor = proxied::Visitor::new(service, from, local.port());
    relay.admit(TcpStream::from_std(stream), visitor, counted, &mut machine, turn.desk());
    turn.run(&mut machine, &mut relay)?;
    Ok(exit::OK)
}

/// By itself, for all services; perhaps in the place of another process.
fn standalone(settings: Settings, source: &Source, handover: Option<Handover>) -> io::Result<i32> {
    let (mut doors, mut left) = (Doors::for_loops(threads(&settings)), Left::default());
    if let Some(handover) = handover {
        for (name, socket) in handover.sockets {
            left.queue.extend(doors.adopt_named(&name, socket)?);
        }
        left.offers = handover.predecessor.said();
        doors.divide();
        left.predecessor = Some(handover.predecessor);
    }
    let result = match doors.change(&settings) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            error!(target: "config", "{error}, or start it from a superserver");
            Ok(exit::CONFIG)
        }
        change => change.and_then(|change| serve_all(settings, source, doors, Some(change), Stay::Forever, &mut left)),
    };
    if let (Err(error), Some(predecessor)) = (&result, &left.predecessor) {
        predecessor.complain(&error.to_string());
    }
    result
}

/// On sockets that somebody else opened.
fn on_inherited(
    mut settings: Settings,
    source: &Source,
    service: Option<ServiceName>,
    sockets: Vec<(Option<String>, Socket)>,
    lent: bool,
) -> io::Result<i32> {
    let mut doors = Doors::default();
    for (name, socket) in sockets {
        // What systemd itself puts where nobody chose a name.
        let chosen = name.filter(|name| !["unknown", "connection", "stored"].contains(&name.as_str()));
        let named = service.or(chosen.and_then(|name| name.parse().ok()));
        if let Socket::Tcp(listener) = &socket {
            socket::bequeath(listener);
        }
        let address = socket.address()?;
        let transport = if matches!(socket, Socket::Tcp(_)) { Transport::Tcp } else { Transport::Udp };
        let (host, port) = (address.ip().to_string(), address.port());
        let place = ListenAddr { host, first: port, last: port, transport };
        doors.adopt(service_of(&settings, named, transport, port), place, socket)?;
    }
    if !lent {
        return serve_all(settings, source, doors, None, Stay::Forever, &mut Left::default());
    }
    // It is started anew all the time: one thread is quicker to start.
    settings.redirect_threads = Some(1);
    let sockets: Vec<Arc<Socket>> = doors.iter().map(|door| door.socket.clone()).collect();
    let status = serve_all(settings, source, doors, None, Stay::Linger, &mut Left::default());
    // Their starter expects calls on them to block.
    sockets.iter().for_each(|socket| drop(socket.set_nonblocking(false)));
    status
}

/// What is left of a process that this one takes the place of, besides its doors.
#[derive(Default)]
struct Left {
    predecessor: Option<Predecessor>,
    /// Of the queue that it had.
    queue: Places,
    /// What that one was offered, as its lines.
    offers: Vec<u8>,
}

/// Serves on these doors until all is over. `change`: what the configuration
/// wants of them, where the places are this process's own.
fn serve_all(
    mut settings: Settings,
    source: &Source,
    mut doors: Doors,
    change: Option<Change>,
    stay: Stay,
    left: &mut Left,
) -> io::Result<i32> {
    if let Some(mistake) = proxied::mistake(&settings, &doors) {
        error!(target: "config", "{mistake}");
        return Ok(exit::CONFIG);
    }
    let mut embedded = match settings.asked_queue() {
        QueueAt::Target(_) => None,
        QueueAt::Embedded => embed(&mut settings, left)?,
    };
    // What this one has no use for is closed.
    left.queue.clear();
    become_user(&settings)?;
    let own = change.is_some();
    let mut change = change.unwrap_or_default();
    // Whoever waits at a door that is closed at once was handed over to be served.
    let closed = std::mem::take(&mut change.closed);
    doors.take(&change);
    drop(change);
    let queue = embedded.as_ref().map(|embedded| embedded.shared.clone());
    let mut team = Team::start(settings, &doors, queue, stay)?;
    let queue = embedded.as_mut().map(|embedded| (embedded.remote.clone(), std::mem::take(&mut embedded.places)));
    let steward = Steward::new(source.clone(), team.loops.clone(), doors, own, queue);
    steward.turn(Change { closed, ..Change::default() });
    let places = steward.places();
    team.first.turn().catch_signals(move |signal| {
        steward.on_signal(signal);
        None
    })?;
    info!(target: "redirect", "ready {places}");
    notify::ready();
    service::ready();
    if let Some(predecessor) = left.predecessor.take() {
        predecessor.ready();
    }
    let status = team.serve();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(status)
}

/// The queue of this process. A process that takes the place of one without a queue
/// may find the queue of that one at its control address: it asks it, too, so that
/// the upgrade succeeds.
fn embed(settings: &mut Settings, left: &mut Left) -> io::Result<Option<Embedded>> {
    let asked_another = left.predecessor.is_some() && left.queue.is_empty() && settings.redirect_queue.is_none();
    let (places, offers) = (std::mem::take(&mut left.queue), std::mem::take(&mut left.offers));
    match Embedded::start(settings, members_max(settings), places, &offers) {
        Err(error) if asked_another && error.kind() == io::ErrorKind::AddrInUse => {
            let queue = settings.own_queue();
            warn!(target: "redirect", "{error}; until the next start this process asks {queue}");
            settings.redirect_queue = Some(QueueAt::Target(queue));
            Ok(None)
        }
        started => started.map(Some),
    }
}

/// Loops of a redirector.
fn threads(settings: &Settings) -> usize {
    settings.redirect_threads.unwrap_or_else(cpus::threads)
}

/// Loops that may ask a queue of this process: for streams, and for datagrams.
pub fn members_max(settings: &Settings) -> usize {
    2 * threads(settings)
}

/// Where the queue is.
#[derive(Clone)]
enum Queue {
    At(HostPort),
    Here(SharedQueue),
}

/// What the loops of a process have in common.
#[derive(Clone)]
pub struct Crew {
    settings: Arc<Settings>,
    queue: Queue,
    /// The clients of all loops, by their sources where these have a limit.
    count: Tally,
    sources: Arc<Mutex<SourceLimiter>>,
    /// The pipes of all loops.
    pipes: Tally,
    /// The flows of all loops.
    flows: Arc<AtomicUsize>,
    stay: Stay,
}

impl Crew {
    fn new(settings: Settings, queue: Queue, stay: Stay) -> Crew {
        let (count, sources, pipes, flows) = Default::default();
        Crew { settings: Arc::new(settings), queue, count, sources, pipes, flows, stay }
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
        let silence_max = asker::silence_max(&self.settings);
        Ok(Asker::Connected(Box::new(Peer::new("redirect", target, token, RETRY, silence_max, seed))))
    }

    /// The process's id is different enough, jitter is all it is for.
    fn seed(number: u64) -> u64 {
        (u64::from(std::process::id()) << 16) + number
    }

    /// A loop with its hands; `number` tells the loops of a process apart.
    fn relay(&self, doors: &Doors, number: u64) -> io::Result<(Loop<Order>, Relay)> {
        let mut turn = Loop::new()?;
        let mut relay = Relay::new(self, Crew::seed(number), turn.desk())?;
        doors.iter().try_for_each(|door| relay.listen(door, turn.desk()))?;
        Ok((turn, relay))
    }

    /// One of so many loops that have the flows.
    fn datagrams(&self, doors: &Doors, part: Part) -> io::Result<(Loop<Order>, Datagrams)> {
        let mut turn = Loop::new()?;
        let seed = Crew::seed(u64::from(u16::MAX) - part.number as u64);
        let mut datagrams = Datagrams::new(self, part, seed, turn.desk())?;
        doors.iter().try_for_each(|door| datagrams.listen(door, turn.desk()))?;
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
                turn.run(&mut Flows::new(datagrams.options()), &mut *datagrams)
            }
        };
        exit::after("redirect", result)
    }
}

/// The loops of a process, more of which may be needed later.
#[derive(Clone)]
pub struct Loops {
    crew: Crew,
    /// How many accept streams, once there is a door: a queue of this process
    /// was made for as many.
    count: usize,
    relays: bool,
    datagrams: bool,
    remotes: Vec<Remote<Order>>,
    threads: Arc<Mutex<Vec<JoinHandle<i32>>>>,
}

impl Loops {
    /// Gives all of them an order.
    fn tell(&self, order: &Order) {
        self.remotes.iter().for_each(|remote| remote.send(order.clone()));
    }

    /// Those that these doors need and that are not there yet: without anybody
    /// to accept a loop would only wait.
    ///
    /// # Errors
    /// What the system says.
    fn missing(&self, doors: &Doors) -> io::Result<Vec<Member>> {
        let mut members = Vec::new();
        if !self.relays && doors.have(Transport::Tcp) {
            for number in 0..self.count as u64 {
                let (turn, relay) = self.crew.relay(doors, number)?;
                members.push(Member::Relay(turn, Box::new(relay)));
            }
        }
        if !self.datagrams && doors.have(Transport::Udp) {
            let of = doors.shares().min(self.count).min(self.crew.settings.redirect_flows_max);
            for number in 0..of {
                let (turn, datagrams) = self.crew.datagrams(doors, Part { number, of })?;
                members.push(Member::Datagrams(turn, Box::new(datagrams)));
            }
        }
        Ok(members)
    }

    /// Counts one in.
    fn add(&mut self, member: &mut Member) {
        match member {
            Member::Relay(..) => self.relays = true,
            Member::Datagrams(..) => self.datagrams = true,
        }
        self.remotes.push(member.turn().remote());
    }

    /// Runs one in a thread of its own.
    ///
    /// # Errors
    /// What the system says.
    fn start(&mut self, mut member: Member) -> io::Result<()> {
        self.add(&mut member);
        let name = format!("redirect-{}", self.remotes.len() - 1);
        let thread = thread::Builder::new().name(name).spawn(move || member.serve())?;
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(thread);
        Ok(())
    }
}

/// All loops of a redirector; the first is not running yet.
pub struct Team {
    first: Member,
    loops: Loops,
    /// Where clients come.
    pub places: Vec<(ServiceName, SocketAddr)>,
}

impl Team {
    /// By itself, asking this queue.
    ///
    /// # Errors
    /// What the system says.
    pub fn standalone(settings: Settings, queue: SharedQueue) -> io::Result<Team> {
        let mut doors = Doors::for_loops(threads(&settings));
        let change = doors.change(&settings)?;
        doors.take(&change);
        Team::start(settings, &doors, Some(queue), Stay::Forever)
    }

    /// `queue`: one of this process, instead of the configured one.
    fn start(settings: Settings, doors: &Doors, queue: Option<SharedQueue>, stay: Stay) -> io::Result<Team> {
        let queue = match (settings.asked_queue(), queue) {
            (_, Some(queue)) => Queue::Here(queue),
            (QueueAt::Target(queue), None) => Queue::At(queue),
            (QueueAt::Embedded, None) => return Err(io::Error::other("no queue in this process")),
        };
        let places = doors.places().map(|door| Ok((door.service, door.socket.address()?)));
        let places = places.collect::<io::Result<_>>()?;
        let (count, crew) = (threads(&settings), Crew::new(settings, queue, stay));
        let (remotes, threads) = Default::default();
        let mut loops = Loops { crew, count, relays: false, datagrams: false, remotes, threads };
        let mut members = loops.missing(doors)?.into_iter();
        let Some(mut first) = members.next() else { return Err(io::Error::other("nothing to serve")) };
        loops.add(&mut first);
        members.try_for_each(|member| loops.start(member))?;
        Ok(Team { first, loops, places })
    }

    /// Runs the first loop, until all are over.
    pub fn serve(self) -> i32 {
        let mut status = self.first.serve();
        loop {
            let thread = self.loops.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let Some(thread) = thread else { return status };
            status = status.max(thread.join().unwrap_or(exit::SYSTEM));
        }
    }
}
