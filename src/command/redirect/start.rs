//! The ways to be started: by itself, for one client, or on the listen sockets of a
//! superserver.
//!
//! Owns the order of a start. How the process was started is found out by looking at
//! its descriptors, never configured.

use super::exit_policy::RunMode;
use super::listen_sockets::{ListenDiff, ListenSockets};
use super::proxy_protocol::{self, Arrival};
use super::shared::{
    local_handles_max, udp_shards, AdoptedFlows, QueueAccess, SharedState, WorkerCommand,
};
use super::supervisor::{Supervisor, ADMIN_PREFIX, LAST_COUNTERS};
use super::workers::{tcp_worker, RedirectDaemon, WorkerPool};
use crate::command::admin::{self, Admin, AdminListeners, Metrics, Subject};
use crate::command::daemon::{become_user, Daemon, PidFile};
use crate::command::exit;
use crate::command::queue::{Embedded, NamedListeners};
use crate::command::terminal::print_error;
use crate::config::settings::{QueueLocation, Settings};
use crate::config::source::ConfigSource;
use crate::logging::LogDestination;
use crate::os::inherit::{Handover, Inherited, MovedSockets, Predecessor};
use crate::os::signal::Signal;
use crate::os::socket::{self, Socket};
use crate::os::{keeper, notify, service_manager};
use log::{error, info, warn};
use mio::net::TcpStream;
use pegasus_core::base::endpoint::{ListenAddr, Transport};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::redirect::redirector::Redirector;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the metrics wait for what another process counted last.
const COUNTS_WITHIN: Duration = Duration::from_secs(2);

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, service, inherited, .. } = daemon;
    let result = match inherited {
        Inherited::Nothing => standalone(settings, &source, None),
        Inherited::Handed(handover) => standalone(settings, &source, Some(handover)),
        Inherited::Client(stream) => serve_one_client(settings, &source, service, stream),
        Inherited::Sockets { listeners, datagrams, borrowed } => {
            let listeners = listeners.into_iter().map(|(name, socket)| (name, Socket::Tcp(socket)));
            let datagrams = datagrams.into_iter().map(|(name, socket)| (name, Socket::Udp(socket)));
            let sockets = listeners.chain(datagrams).collect();
            serve_inherited(settings, &source, service, sockets, borrowed)
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

/// Serves the one client that a superserver started this process for. The exit status
/// says whether it was served: some superservers log it.
fn serve_one_client(
    mut settings: Settings,
    source: &ConfigSource,
    service: Option<ServiceName>,
    stream: std::net::TcpStream,
) -> io::Result<i32> {
    let QueueLocation::Remote(queue) = settings.asked_queue() else {
        let why = "redirect_queue=embedded: the superserver starts a process for each client, and \
                   a queue in it would end with that client (run `pegasus queue`, and name its \
                   address here)";
        error!(target: "config", "{why}");
        // The log may be far from the terminal of the person who tries this.
        if !source.stderr_was_client && settings.log != LogDestination::Stderr {
            print_error(format_args!("pegasus: {why}"));
        }
        return Ok(exit::CONFIG);
    };
    stream.set_nonblocking(true)?;
    let (Ok(local), Ok(from)) = (stream.local_addr(), stream.peer_addr()) else {
        // The client was gone before this process began.
        return Ok(exit::OK);
    };
    let _ = stream.set_nodelay(true);
    socket::set_oob_inline(&stream);
    // One client needs one thread, and counting the CPUs takes time.
    settings.redirect_threads = Some(1);
    let service = service_of(&settings, service, Transport::Tcp, local.port());
    let shared = SharedState::new(
        settings,
        QueueAccess::Remote(queue),
        RunMode::OneClient,
        Metrics::default(),
    );
    let (mut event_loop, mut worker) = tcp_worker(&shared, &ListenSockets::default(), 0)?;
    // A signal ends the process within drain_timeout.
    event_loop.catch_signals(|signal| {
        (signal == Signal::Terminate).then_some(WorkerCommand::Terminate)
    })?;
    let mut redirector = Redirector::new(shared.settings.redirect_options());
    let Some(permit) = shared.client_count.try_acquire(usize::MAX) else { return Ok(exit::OK) };
    let arrival = Arrival::new(service, from, local.port());
    let stream = TcpStream::from_std(stream);
    worker.admit(stream, arrival, permit, &mut redirector, event_loop.context());
    event_loop.run(&mut redirector, &mut worker)?;
    Ok(match worker.last_outcome() {
        Some(
            Outcome::NoTicket
            | Outcome::NobodyLeft
            | Outcome::QueueUnreachable
            | Outcome::QueueRefused,
        ) => exit::UNAVAILABLE,
        Some(Outcome::OutOfSockets) => exit::SYSTEM,
        _ => exit::OK,
    })
}

/// Serves all services of the configuration; perhaps in the place of another process.
fn standalone(
    settings: Settings,
    source: &ConfigSource,
    handover: Option<Handover>,
) -> io::Result<i32> {
    let mut listen_sockets = ListenSockets::with_shards(udp_shards(&settings));
    let mut inherited = InheritedState::default();
    if let Some(mut handover) = handover {
        for (name, socket) in handover.sockets {
            let admin = name.strip_prefix(ADMIN_PREFIX).and_then(|listen| listen.parse().ok());
            if let (Some(listen), Socket::Tcp(socket)) = (admin, &socket) {
                inherited.admin.push((listen, socket.try_clone()?));
                continue;
            }
            inherited.queue.extend(listen_sockets.adopt_named(&name, socket)?);
        }
        inherited.offers = handover.predecessor.read_data();
        inherited.flows = handover.predecessor.take_sockets();
        if inherited.flows.is_some() {
            listen_sockets.await_flows();
        }
        listen_sockets.open_shards();
        inherited.predecessor = Some(handover.predecessor);
    }
    let diff = listen_sockets.open_dns(&settings.redirect_dns);
    let diff = diff.and_then(|()| listen_sockets.diff(&settings));
    let result = match diff {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            error!(target: "config", "{error}, or start it from a superserver");
            Ok(exit::CONFIG)
        }
        diff => diff.and_then(|diff| {
            let mode = RunMode::Forever;
            serve_all(settings, source, listen_sockets, Some(diff), mode, &mut inherited)
        }),
    };
    if let (Err(error), Some(predecessor)) = (&result, &inherited.predecessor) {
        predecessor.report_failure(&error.to_string());
    }
    result
}

/// Serves on the listen sockets that a superserver opened.
fn serve_inherited(
    mut settings: Settings,
    source: &ConfigSource,
    service: Option<ServiceName>,
    sockets: Vec<(Option<String>, Socket)>,
    borrowed: bool,
) -> io::Result<i32> {
    let mut listen_sockets = ListenSockets::default();
    let mut inherited = InheritedState::default();
    for (name, socket) in sockets {
        // Names that systemd itself gives where the unit has none.
        let chosen =
            name.filter(|name| !["unknown", "connection", "stored"].contains(&name.as_str()));
        let named = service.or(chosen.and_then(|name| ServiceName::typed(&name).ok()));
        if let Socket::Tcp(listener) = &socket {
            socket::set_inherited_options(listener);
        }
        let address = socket.address()?;
        let transport =
            if matches!(socket, Socket::Tcp(_)) { Transport::Tcp } else { Transport::Udp };
        let port = address.port();
        let listen =
            ListenAddr { host: address.ip().to_string(), first: port, last: port, transport };
        listen_sockets.adopt(service_of(&settings, named, transport, port), listen, socket)?;
    }
    if !borrowed {
        let mode = RunMode::Forever;
        return serve_all(settings, source, listen_sockets, None, mode, &mut inherited);
    }
    // The process is started anew again and again: one thread is quicker to start.
    settings.redirect_threads = Some(1);
    let sockets: Vec<Arc<Socket>> =
        listen_sockets.iter().map(|listen_socket| listen_socket.socket.clone()).collect();
    let mode = RunMode::Linger;
    let status = serve_all(settings, source, listen_sockets, None, mode, &mut inherited);
    // The superserver expects calls on its sockets to block.
    sockets.iter().for_each(|socket| drop(socket.set_nonblocking(false)));
    status
}

/// What a process that this one takes the place of left, besides its listen sockets.
#[derive(Default)]
struct InheritedState {
    predecessor: Option<Predecessor>,
    /// Its flows, which it sends later.
    flows: Option<MovedSockets>,
    /// The listeners of its queue.
    queue: NamedListeners,
    /// What that queue was offered, as lines of the protocol; then the counters.
    offers: Vec<u8>,
    /// Its admin addresses.
    admin: AdminListeners,
}

/// Serves on these listen sockets until the process ends. `diff`: what is to change
/// about them, where they are those of the configuration.
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
    let admin_addresses = admin_addresses(&settings, embedded.is_some(), run_mode);
    let admin_listeners = admin::bind(&admin_addresses, std::mem::take(&mut inherited.admin))?;
    // Listeners that this process has no use for are closed.
    inherited.queue.clear();
    become_user(&settings)?;
    let pid_file = settings.pid_file.clone();
    let owns_listeners = diff.is_some();
    let mut diff = diff.unwrap_or_default();
    // Clients in the backlog of a socket that is to be closed are still served: the
    // workers start with it.
    let closed = std::mem::take(&mut diff.closed);
    listen_sockets.apply(&diff);
    drop(diff);
    let queue = embedded.as_ref().map(|embedded| embedded.queue.clone());
    let per_provider = settings.metrics_per_provider;
    let mut redirect_daemon =
        RedirectDaemon::start(settings, &listen_sockets, queue, run_mode, metrics.clone())?;
    let flows = redirect_daemon.pool.shared.flow_count.clone();
    let subject = Subject { role: "redirect", metrics: metrics.clone(), flows, per_provider };
    let (follower, counted) = Follower::new(inherited.predecessor.is_some());
    let admin = Admin::start(subject, &admin_listeners, counted)?;
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
    let _pid_file = PidFile::write(pid_file.as_deref());
    let follower = inherited.predecessor.take().and_then(|predecessor| {
        // It sends its flows from now on.
        let follower = follower.follow(predecessor, metrics);
        if let Some(moved) = inherited.flows.take() {
            adopt_flows(moved, redirect_daemon.pool.clone());
        }
        follower
    });
    let status = redirect_daemon.serve();
    supervisor.finish_flows();
    // What the predecessor still counts is to reach the successor: it ends first.
    if let Some(follower) = follower.filter(|_| supervisor.send_counters()) {
        let _ = follower.join();
    }
    supervisor.finish_counters();
    if let Some(embedded) = embedded {
        embedded.stop();
    }
    Ok(keeper::stay().unwrap_or(status))
}

/// Waits in a thread for the flows of the predecessor, and gives them to the workers.
fn adopt_flows(moved: MovedSockets, pool: WorkerPool) {
    let workers = pool.clone();
    let adopt = move || workers.broadcast(&WorkerCommand::AdoptFlows(AdoptedFlows::read(moved)));
    if let Err(error) = thread::Builder::new().name("adopt".into()).spawn(adopt) {
        warn!(target: "redirect", "flows of the old process end: {error}");
        pool.broadcast(&WorkerCommand::AdoptFlows(AdoptedFlows::default()));
    }
}

/// Where this process is looked at. A process that a superserver starts again and again
/// has no address of its own.
fn admin_addresses(settings: &Settings, has_queue: bool, run_mode: RunMode) -> Vec<ListenAddr> {
    if run_mode != RunMode::Forever {
        return Vec::new();
    }
    let of_queue = settings.queue_admin.iter().filter(|_| has_queue);
    settings.redirect_admin.iter().chain(of_queue).cloned().collect()
}

/// Takes the counters of the predecessor as long as that has clients.
struct Follower {
    counted: Sender<()>,
}

impl Follower {
    /// The follower, and what waits for the first counters if there is a predecessor:
    /// nothing is shown before them.
    fn new(has_predecessor: bool) -> (Follower, impl FnOnce() + Send) {
        let (counted, counts) = mpsc::channel();
        let wait = move || {
            if has_predecessor {
                let _ = counts.recv_timeout(COUNTS_WITHIN);
            }
        };
        (Follower { counted }, wait)
    }

    /// Reports that this process is ready, and follows in a thread that ends with the
    /// predecessor.
    fn follow(self, predecessor: Predecessor, metrics: Metrics) -> Option<JoinHandle<()>> {
        predecessor.report_ready();
        let follow = move || {
            predecessor.follow(|text| {
                metrics.restore(text);
                let _ = self.counted.send(());
                !text.ends_with(LAST_COUNTERS)
            });
        };
        let started = thread::Builder::new().name("counters".into()).spawn(follow);
        let warn = |error| warn!(target: "redirect", "counters start from zero: {error}");
        started.map_err(warn).ok()
    }
}

/// Starts the queue of this process. If the predecessor asked a queue of another
/// process, that queue may have the control address: then this process asks it too, so
/// that the upgrade succeeds.
fn embed(
    settings: &mut Settings,
    inherited: &mut InheritedState,
    metrics: &Metrics,
) -> io::Result<Option<Embedded>> {
    let asked_another = inherited.predecessor.is_some()
        && inherited.queue.is_empty()
        && settings.redirect_queue.is_none();
    let listeners = std::mem::take(&mut inherited.queue);
    let offers = std::mem::take(&mut inherited.offers);
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
