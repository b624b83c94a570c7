//! `pegasus redirect`: how it was started decides what it does.
//!
//! Owns the three ways to be started (by itself, for one client, on somebody's
//! listening socket) and the threads. Each thread has a loop, a state machine and a
//! connection to the queue of its own. Where a service has datagrams as many
//! more have their flows, or one where they cannot be divided.

mod access_log;
mod address_sockets;
mod deferred_connects;
mod exit_policy;
mod fallbacks;
mod listen_sockets;
mod proxy_protocol;
mod queue_handle;
mod supervisor;
mod tcp_worker;
mod udp_worker;
mod upstreams;

pub use supervisor::WorkerCommand;

use exit_policy::RunMode;
use listen_sockets::{ListenDiff, ListenSockets};
use queue_handle::QueueHandle;
use supervisor::Supervisor;
use tcp_worker::TcpWorker;
use udp_worker::{Shard, UdpWorker};

use super::admin::{self, Admin, AdminListeners, Metrics, Subject};
use super::daemon::{become_user, Daemon};
use super::exit;
use super::queue::{Embedded, NamedListeners, SharedQueue};
use crate::config::settings::{QueueLocation, Settings};
use crate::config::source::ConfigSource;
use crate::net::event_loop::{Context, EventLoop, LoopHandle};
use crate::net::queue_connection::QueueConnection;
use crate::net::shared_counter::SharedCounter;
use crate::os::inherit::{Handover, Inherited, Predecessor};
use crate::os::signal::Signal;
use crate::os::socket::{self, Socket};
use crate::os::{cpus, notify, service_manager};
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
use std::sync::{mpsc, Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between attempts to reach the queue: clients wait for it.
const RETRY: (Span, Span) = (Span::from_millis(50), Span::from_secs(1));
/// How long the metrics wait for what another process counted last.
const COUNTS_WITHIN: Duration = Duration::from_secs(2);

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, service, inherited, .. } = daemon;
    let result = match inherited {
        Inherited::Nothing => standalone(settings, &source, None),
        Inherited::Handed(handover) => standalone(settings, &source, Some(handover)),
        Inherited::Client(stream) => serve_one_client(settings, service, stream),
        Inherited::Sockets { listeners, datagrams, borrowed } => {
            let listeners = listeners.into_iter().map(|(name, socket)| (name, Socket::Tcp(socket)));
            let datagrams = datagrams.into_iter().map(|(name, socket)| (name, Socket::Udp(socket)));
            serve_inherited(
                settings,
                &source,
                service,
                listeners.chain(datagrams).collect(),
                borrowed,
            )
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
fn service_of(
    settings: &Settings,
    named: Option<ServiceName>,
    transport: Transport,
    port: u16,
) -> ServiceName {
    let covers = |listen: &ListenAddr| listen.transport == transport && listen.covers(port);
    let by_port = settings.services.iter().find(|service| service.listen.iter().any(covers));
    named.or(by_port.map(|service| service.name)).unwrap_or(ServiceName::DEFAULT)
}

/// Started by a superserver for one client.
fn serve_one_client(
    mut settings: Settings,
    service: Option<ServiceName>,
    stream: std::net::TcpStream,
) -> io::Result<i32> {
    let QueueLocation::Remote(queue) = settings.asked_queue() else {
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
    let shared = SharedState::new(
        settings,
        QueueAccess::Remote(queue),
        RunMode::OneClient,
        Metrics::default(),
    );
    let (mut event_loop, mut worker) = shared.tcp_worker(&ListenSockets::default(), 0)?;
    // A signal ends it within drain_timeout.
    event_loop.catch_signals(|signal| {
        (signal == Signal::Terminate).then_some(WorkerCommand::Terminate)
    })?;
    let mut redirector = Redirector::new(shared.settings.redirect_options());
    let Some(permit) = shared.client_count.try_acquire(usize::MAX) else { return Ok(exit::OK) };
    let arrival = proxy_protocol::Arrival::new(service, from, local.port());
    worker.admit(
        TcpStream::from_std(stream),
        arrival,
        permit,
        &mut redirector,
        event_loop.context(),
    );
    event_loop.run(&mut redirector, &mut worker)?;
    Ok(exit::OK)
}

/// By itself, for all services; perhaps in the place of another process.
fn standalone(
    settings: Settings,
    source: &ConfigSource,
    handover: Option<Handover>,
) -> io::Result<i32> {
    let (mut listen_sockets, mut inherited) =
        (ListenSockets::with_shards(threads(&settings)), InheritedState::default());
    if let Some(handover) = handover {
        for (name, socket) in handover.sockets {
            let admin = name.strip_prefix(ADMIN_PREFIX).and_then(|listen| listen.parse().ok());
            if let (Some(listen), Socket::Tcp(socket)) = (admin, &socket) {
                inherited.admin.push((listen, socket.try_clone()?));
                continue;
            }
            inherited.queue.extend(listen_sockets.adopt_named(&name, socket)?);
        }
        inherited.offers = handover.predecessor.read_data();
        listen_sockets.open_shards();
        inherited.predecessor = Some(handover.predecessor);
    }
    let result = match listen_sockets.diff(&settings) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            error!(target: "config", "{error}, or start it from a superserver");
            Ok(exit::CONFIG)
        }
        diff => diff.and_then(|diff| {
            serve_all(
                settings,
                source,
                listen_sockets,
                Some(diff),
                RunMode::Forever,
                &mut inherited,
            )
        }),
    };
    if let (Err(error), Some(predecessor)) = (&result, &inherited.predecessor) {
        predecessor.report_failure(&error.to_string());
    }
    result
}

/// On sockets that somebody else opened.
fn serve_inherited(
    mut settings: Settings,
    source: &ConfigSource,
    service: Option<ServiceName>,
    sockets: Vec<(Option<String>, Socket)>,
    borrowed: bool,
) -> io::Result<i32> {
    let mut listen_sockets = ListenSockets::default();
    for (name, socket) in sockets {
        // What systemd itself puts where nobody chose a name.
        let chosen =
            name.filter(|name| !["unknown", "connection", "stored"].contains(&name.as_str()));
        let named = service.or(chosen.and_then(|name| name.parse().ok()));
        if let Socket::Tcp(listener) = &socket {
            socket::set_inherited_options(listener);
        }
        let address = socket.address()?;
        let transport =
            if matches!(socket, Socket::Tcp(_)) { Transport::Tcp } else { Transport::Udp };
        let (host, port) = (address.ip().to_string(), address.port());
        let listen = ListenAddr { host, first: port, last: port, transport };
        listen_sockets.adopt(service_of(&settings, named, transport, port), listen, socket)?;
    }
    if !borrowed {
        return serve_all(
            settings,
            source,
            listen_sockets,
            None,
            RunMode::Forever,
            &mut InheritedState::default(),
        );
    }
    // It is started anew all the time: one thread is quicker to start.
    settings.redirect_threads = Some(1);
    let sockets: Vec<Arc<Socket>> =
        listen_sockets.iter().map(|listen_socket| listen_socket.socket.clone()).collect();
    let status = serve_all(
        settings,
        source,
        listen_sockets,
        None,
        RunMode::Linger,
        &mut InheritedState::default(),
    );
    // Their starter expects calls on them to block.
    sockets.iter().for_each(|socket| drop(socket.set_nonblocking(false)));
    status
}

/// What is left of a process that this one takes the place of, besides its listen sockets.
#[derive(Default)]
struct InheritedState {
    predecessor: Option<Predecessor>,
    /// Of the queue that it had.
    queue: NamedListeners,
    /// What that one was offered, as its lines; then the counters.
    offers: Vec<u8>,
    /// Its admin addresses.
    admin: AdminListeners,
}

/// Before the place of an admin address, where others have the name of a service.
const ADMIN_PREFIX: &str = "=@";

/// Serves on these listen sockets until all is over. `diff`: what the configuration
/// wants of them, where the places are this process's own.
fn serve_all(
    mut settings: Settings,
    source: &ConfigSource,
    mut listen_sockets: ListenSockets,
    diff: Option<ListenDiff>,
    run_mode: RunMode,
    inherited: &mut InheritedState,
) -> io::Result<i32> {
    if let Some(error) = proxy_protocol::config_error(&settings, &listen_sockets) {
        error!(target: "config", "{error}");
        return Ok(exit::CONFIG);
    }
    let metrics = Metrics::default();
    metrics.restore(&String::from_utf8_lossy(&inherited.offers));
    let mut embedded = match settings.asked_queue() {
        QueueLocation::Remote(_) => None,
        QueueLocation::Embedded => embed(&mut settings, inherited, &metrics)?,
    };
    let mut admin_addresses = settings.redirect_admin.clone();
    if embedded.is_some() {
        admin_addresses.extend(settings.queue_admin.iter().cloned());
    }
    // A process that a superserver starts again and again has no address of its own.
    if run_mode != RunMode::Forever {
        admin_addresses.clear();
    }
    let admin_listeners = admin::bind(&admin_addresses, std::mem::take(&mut inherited.admin))?;
    // What this one has no use for is closed.
    inherited.queue.clear();
    become_user(&settings)?;
    let owns_listeners = diff.is_some();
    let mut diff = diff.unwrap_or_default();
    // Whoever waits at a socket that is closed at once was handed over to be served.
    let closed = std::mem::take(&mut diff.closed);
    listen_sockets.apply(&diff);
    drop(diff);
    let queue = embedded.as_ref().map(|embedded| embedded.queue.clone());
    let per_provider = settings.metrics_per_provider;
    let mut redirect_daemon =
        RedirectDaemon::start(settings, &listen_sockets, queue, run_mode, metrics.clone())?;
    let flows = redirect_daemon.pool.shared.flow_count.clone();
    let subject = Subject { role: "redirect", metrics: metrics.clone(), flows, per_provider };
    // Where another process has counted, its last counts come before the first look.
    let (counted, counts) = mpsc::channel();
    let has_predecessor = inherited.predecessor.is_some();
    let wait = move || {
        if has_predecessor {
            let _ = counts.recv_timeout(COUNTS_WITHIN);
        }
    };
    let admin = Admin::start(subject, &admin_listeners, wait)?;
    let queue = embedded
        .as_mut()
        .map(|embedded| (embedded.loop_handle.clone(), std::mem::take(&mut embedded.listeners)));
    let supervisor = Supervisor::new(
        source.clone(),
        redirect_daemon.pool.clone(),
        listen_sockets,
        owns_listeners,
        queue,
    )
    .with_admin(admin, admin_listeners, metrics.clone());
    supervisor.apply(ListenDiff { closed, ..ListenDiff::default() });
    let listening = supervisor.describe_listeners();
    let signalled = supervisor.clone();
    redirect_daemon.first.event_loop().catch_signals(move |signal| {
        signalled.on_signal(signal);
        None
    })?;
    info!(target: "redirect", "ready {listening}");
    notify::ready();
    service_manager::ready();
    let mut follower = None;
    if let Some(predecessor) = inherited.predecessor.take() {
        predecessor.report_ready();
        let on_text = move |text: &str| {
            metrics.restore(text);
            let _ = counted.send(());
        };
        let follow = move || predecessor.follow(on_text);
        follower = Some(thread::Builder::new().name("counters".into()).spawn(follow)?);
    }
    let status = redirect_daemon.serve();
    // What the predecessor still counts is to reach the successor: it ends first.
    if let Some(follower) = follower.filter(|_| supervisor.send_counters()) {
        let _ = follower.join();
    }
    supervisor.send_counters();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(status)
}

/// The queue of this process. A process that takes the place of one without a queue
/// may find the queue of that one at its control address: it asks it, too, so that
/// the upgrade succeeds.
fn embed(
    settings: &mut Settings,
    inherited: &mut InheritedState,
    metrics: &Metrics,
) -> io::Result<Option<Embedded>> {
    let asked_another = inherited.predecessor.is_some()
        && inherited.queue.is_empty()
        && settings.redirect_queue.is_none();
    let (listeners, offers) =
        (std::mem::take(&mut inherited.queue), std::mem::take(&mut inherited.offers));
    match Embedded::start(settings, local_handles_max(settings), listeners, &offers, metrics) {
        Err(error) if asked_another && error.kind() == io::ErrorKind::AddrInUse => {
            let queue = settings.own_queue();
            warn!(target: "redirect", "{error}; until the next start this process asks {queue}");
            settings.redirect_queue = Some(QueueLocation::Remote(queue));
            Ok(None)
        }
        started => started.map(Some),
    }
}

/// Threads of a redirector.
fn threads(settings: &Settings) -> usize {
    settings.redirect_threads.unwrap_or_else(cpus::threads)
}

/// Workers that may ask a queue of this process: for streams, and for datagrams.
pub fn local_handles_max(settings: &Settings) -> usize {
    2 * threads(settings)
}

/// Where the queue is.
#[derive(Clone)]
enum QueueAccess {
    Remote(HostPort),
    Embedded(SharedQueue),
}

/// What the workers of a process share.
#[derive(Clone)]
pub struct SharedState {
    settings: Arc<Settings>,
    queue: QueueAccess,
    /// The clients of all loops, by their sources where these have a limit.
    client_count: SharedCounter,
    source_limiter: Arc<Mutex<SourceLimiter>>,
    /// The pipes of all loops.
    pipe_count: SharedCounter,
    /// The flows of all loops.
    flow_count: Arc<AtomicUsize>,
    run_mode: RunMode,
    metrics: Metrics,
}

impl SharedState {
    fn new(
        settings: Settings,
        queue: QueueAccess,
        run_mode: RunMode,
        metrics: Metrics,
    ) -> SharedState {
        let (client_count, source_limiter, pipe_count, flow_count) = Default::default();
        SharedState {
            settings: Arc::new(settings),
            queue,
            client_count,
            source_limiter,
            pipe_count,
            flow_count,
            run_mode,
            metrics,
        }
    }

    /// A handle to the queue.
    fn queue_handle(&self, token: Token, seed: u64, cx: &Context) -> io::Result<QueueHandle> {
        let host_port = match &self.queue {
            QueueAccess::Remote(host_port) => host_port.clone(),
            QueueAccess::Embedded(queue) => {
                let local_handle =
                    queue.join(cx.waker(), cx.now).ok_or(io::Error::other("too many threads"))?;
                return Ok(QueueHandle::Embedded(local_handle));
            }
        };
        let silence_max = queue_handle::silence_max(&self.settings);
        Ok(QueueHandle::Remote(Box::new(QueueConnection::new(
            "redirect",
            host_port,
            token,
            RETRY,
            silence_max,
            seed,
        ))))
    }

    /// The process's id is different enough, jitter is all it is for.
    fn seed(number: u64) -> u64 {
        (u64::from(std::process::id()) << 16) + number
    }

    /// An event loop with its handler; `number` tells the loops of a process apart.
    fn tcp_worker(
        &self,
        listen_sockets: &ListenSockets,
        number: u64,
    ) -> io::Result<(EventLoop<WorkerCommand>, TcpWorker)> {
        let mut event_loop = EventLoop::new()?;
        let mut worker = TcpWorker::new(self, SharedState::seed(number), event_loop.context())?;
        listen_sockets
            .iter()
            .try_for_each(|listen_socket| worker.listen(listen_socket, event_loop.context()))?;
        Ok((event_loop, worker))
    }

    /// One of so many loops that have the flows.
    fn udp_worker(
        &self,
        listen_sockets: &ListenSockets,
        shard: Shard,
    ) -> io::Result<(EventLoop<WorkerCommand>, UdpWorker)> {
        let mut event_loop = EventLoop::new()?;
        let seed = SharedState::seed(u64::from(u16::MAX) - shard.index as u64);
        let mut worker = UdpWorker::new(self, shard, seed, event_loop.context())?;
        listen_sockets
            .iter()
            .try_for_each(|listen_socket| worker.listen(listen_socket, event_loop.context()))?;
        Ok((event_loop, worker))
    }
}

/// A worker that is not running yet.
enum Worker {
    Tcp(EventLoop<WorkerCommand>, Box<TcpWorker>),
    Udp(EventLoop<WorkerCommand>, Box<UdpWorker>),
}

impl Worker {
    fn event_loop(&mut self) -> &mut EventLoop<WorkerCommand> {
        match self {
            Worker::Tcp(event_loop, _) | Worker::Udp(event_loop, _) => event_loop,
        }
    }

    /// Runs it to its end.
    fn serve(self) -> i32 {
        let result = match self {
            Worker::Tcp(mut event_loop, mut worker) => event_loop
                .run(&mut Redirector::new(worker.settings().redirect_options()), &mut *worker),
            Worker::Udp(mut event_loop, mut worker) => {
                event_loop.run(&mut Flows::new(worker.options()), &mut *worker)
            }
        };
        exit::after("redirect", result)
    }
}

/// The workers of a process; more may be needed later.
#[derive(Clone)]
pub struct WorkerPool {
    shared: SharedState,
    /// How many accept streams, once there is a listen socket: a queue of this process
    /// was made for as many.
    count: usize,
    has_tcp: bool,
    has_udp: bool,
    loop_handles: Vec<LoopHandle<WorkerCommand>>,
    threads: Arc<Mutex<Vec<JoinHandle<i32>>>>,
}

impl WorkerPool {
    /// Sends all of them a command.
    fn broadcast(&self, command: &WorkerCommand) {
        self.loop_handles.iter().for_each(|loop_handle| loop_handle.send(command.clone()));
    }

    /// Those that these listen sockets need and that are not there yet: without anybody
    /// to accept a loop would only wait.
    ///
    /// # Errors
    /// Returns the OS error.
    fn missing_workers(&self, listen_sockets: &ListenSockets) -> io::Result<Vec<Worker>> {
        let mut workers = Vec::new();
        if !self.has_tcp && listen_sockets.has_transport(Transport::Tcp) {
            for number in 0..self.count as u64 {
                let (event_loop, worker) = self.shared.tcp_worker(listen_sockets, number)?;
                workers.push(Worker::Tcp(event_loop, Box::new(worker)));
            }
        }
        if !self.has_udp && listen_sockets.has_transport(Transport::Udp) {
            let count = listen_sockets
                .shard_count()
                .min(self.count)
                .min(self.shared.settings.redirect_flows_max);
            for index in 0..count {
                let (event_loop, worker) =
                    self.shared.udp_worker(listen_sockets, Shard { index, count })?;
                workers.push(Worker::Udp(event_loop, Box::new(worker)));
            }
        }
        Ok(workers)
    }

    /// Adds one.
    fn register(&mut self, worker: &mut Worker) {
        match worker {
            Worker::Tcp(..) => self.has_tcp = true,
            Worker::Udp(..) => self.has_udp = true,
        }
        self.loop_handles.push(worker.event_loop().loop_handle());
    }

    /// Runs one in a thread of its own.
    ///
    /// # Errors
    /// Returns the OS error.
    fn start(&mut self, mut worker: Worker) -> io::Result<()> {
        self.register(&mut worker);
        let name = format!("redirect-{}", self.loop_handles.len() - 1);
        let thread = thread::Builder::new().name(name).spawn(move || worker.serve())?;
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(thread);
        Ok(())
    }
}

/// All workers of a redirector; the first is not running yet.
pub struct RedirectDaemon {
    first: Worker,
    pool: WorkerPool,
    /// Where clients come.
    pub addresses: Vec<(ServiceName, SocketAddr)>,
}

impl RedirectDaemon {
    /// By itself, asking this queue.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn standalone(
        settings: Settings,
        queue: SharedQueue,
        metrics: Metrics,
    ) -> io::Result<RedirectDaemon> {
        let mut listen_sockets = ListenSockets::with_shards(threads(&settings));
        let diff = listen_sockets.diff(&settings)?;
        listen_sockets.apply(&diff);
        RedirectDaemon::start(settings, &listen_sockets, Some(queue), RunMode::Forever, metrics)
    }

    /// `queue`: one of this process, instead of the configured one.
    fn start(
        settings: Settings,
        listen_sockets: &ListenSockets,
        queue: Option<SharedQueue>,
        run_mode: RunMode,
        metrics: Metrics,
    ) -> io::Result<RedirectDaemon> {
        let queue = match (settings.asked_queue(), queue) {
            (_, Some(queue)) => QueueAccess::Embedded(queue),
            (QueueLocation::Remote(queue), None) => QueueAccess::Remote(queue),
            (QueueLocation::Embedded, None) => {
                return Err(io::Error::other("no queue in this process"))
            }
        };
        let addresses = listen_sockets
            .first_shards()
            .map(|listen_socket| Ok((listen_socket.service, listen_socket.socket.address()?)));
        let addresses = addresses.collect::<io::Result<_>>()?;
        let (count, shared) =
            (threads(&settings), SharedState::new(settings, queue, run_mode, metrics));
        let (loop_handles, threads) = Default::default();
        let mut pool =
            WorkerPool { shared, count, has_tcp: false, has_udp: false, loop_handles, threads };
        let mut workers = pool.missing_workers(listen_sockets)?.into_iter();
        let Some(mut first) = workers.next() else {
            return Err(io::Error::other("nothing to serve"));
        };
        pool.register(&mut first);
        workers.try_for_each(|worker| pool.start(worker))?;
        Ok(RedirectDaemon { first, pool, addresses })
    }

    /// Runs the first loop, until all are over.
    pub fn serve(self) -> i32 {
        let mut status = self.first.serve();
        loop {
            let thread =
                self.pool.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let Some(thread) = thread else { return status };
            status = status.max(thread.join().unwrap_or(exit::SYSTEM));
        }
    }
}
