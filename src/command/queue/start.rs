//! Starts a queue: as a daemon, or embedded in a redirector.
//!
//! Owns its listeners, its reaction to signals, and the thread of an embedded queue.

use super::control_server::{ControlServer, QueueCommand};
use super::shared::SharedQueue;
use crate::command::admin::{self, Admin, Metrics, Subject};
use crate::command::daemon::{become_user, Daemon, PidFile, SignalAction};
use crate::command::{exit, seed};
use crate::config::settings::Settings;
use crate::config::source::ConfigSource;
use crate::net::event_loop::{EventLoop, LoopHandle};
use crate::net::listeners;
use crate::os::signal::Signal;
use crate::os::{notify, service_manager};
use log::{error, info, warn};
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::endpoint::ListenAddr;
use pegasus_core::protocol::request::Request;
use pegasus_core::queue::ticket_queue::TicketQueue;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A queue that is ready to run.
struct QueueDaemon {
    event_loop: EventLoop<QueueCommand>,
    server: ControlServer,
    queue: SharedQueue,
    listeners: NamedListeners,
    /// The addresses of its listeners.
    addresses: Vec<SocketAddr>,
}

/// Listening sockets, each with its entry in `queue_listen`.
pub type NamedListeners = Vec<(ListenAddr, TcpListener)>;

/// Adds advice to the error of an embedded queue whose address is taken.
fn explain(listen: &ListenAddr, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let queue = listen.from_this_host();
    let advice = format!(
        "if that is a pegasus queue, set redirect_queue={queue}; otherwise another queue_listen"
    );
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}

impl QueueDaemon {
    /// Binds the listeners that are not `inherited` from another process. At most
    /// `local_handles_max` threads of this process may use the queue.
    ///
    /// # Errors
    /// Returns the OS error.
    fn new(
        settings: &Settings,
        local_handles_max: usize,
        inherited: NamedListeners,
        metrics: &Metrics,
    ) -> io::Result<QueueDaemon> {
        let mut event_loop = EventLoop::new()?;
        let mut server = ControlServer::new(settings, local_handles_max, metrics);
        let embedded = local_handles_max > 0;
        let mut listeners = NamedListeners::new();
        for (listen, socket) in
            inherited.into_iter().filter(|(listen, _)| settings.queue_listen.contains(listen))
        {
            socket.set_nonblocking(true)?;
            listeners.push((listen, socket));
        }
        let known: Vec<ListenAddr> = listeners.iter().map(|(listen, _)| listen.clone()).collect();
        for listen in &settings.queue_listen {
            if known.contains(listen) {
                continue;
            }
            for port in listen.first..=listen.last {
                let one = ListenAddr { first: port, last: port, ..listen.clone() };
                let bound = listeners::bind(&one).map_err(|error| {
                    if embedded {
                        explain(&one, error)
                    } else {
                        error
                    }
                })?;
                listeners.extend(bound.into_iter().map(|socket| (listen.clone(), socket)));
            }
        }
        for (number, (_, socket)) in listeners.iter().enumerate() {
            server.listen(number, socket.try_clone()?, event_loop.context())?;
        }
        let addresses = server.addresses();
        let queue = TicketQueue::new(settings.queue_options(), seed());
        let queue = SharedQueue::new(queue, local_handles_max, event_loop.context().waker());
        let shown = queue.clone();
        metrics.set_status(move || shown.status());
        Ok(QueueDaemon { event_loop, server, queue, listeners, addresses })
    }

    fn log_ready(&self, settings: &Settings) {
        if self.addresses.iter().any(|address| !address.ip().is_loopback()) {
            warn_about_network(settings);
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        info!(target: "queue", "ready {}", addresses.join(" "));
    }

    fn serve(mut self) -> i32 {
        exit::after("queue", self.event_loop.run(&mut self.queue, &mut self.server))
    }
}

/// Reports what it means that a queue listens beyond its host.
fn warn_about_network(settings: &Settings) {
    let beyond = |list: &[Cidr]| {
        let nets = list.iter().filter(|net| net.beyond_loopback()).map(ToString::to_string);
        nets.collect::<Vec<_>>().join(" ")
    };
    let queue = &settings.queue;
    for (key, list, may) in [
        ("ticket", &queue.allow_ticket, "register as a provider, and clients are sent there,"),
        ("next", &queue.allow_next, "take tickets and report failures"),
        ("drain", &queue.allow_drain, "keep clients away from any provider"),
    ] {
        let nets = beyond(list);
        if !nets.is_empty() {
            warn!(
                target: "queue",
                "any host in {nets} may {may} without a key \
                 (queue_allow_{key}; `pegasus help security`)"
            );
        }
    }
    let lists = [&queue.allow_ticket, &queue.allow_next, &queue.allow_drain, &queue.allow_status];
    if lists.into_iter().all(|list| beyond(list).is_empty()) && settings.keys.is_empty() {
        warn!(
            target: "queue",
            "the queue listens beyond this host but accepts requests from this host only; \
             set key_file, or queue_allow_ticket and queue_allow_next"
        );
    }
}

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let metrics = Metrics::default();
    let admin_listeners = admin::bind(&daemon.settings.queue_admin, Vec::new());
    let started = admin_listeners.and_then(|admin_listeners| {
        let listeners = NamedListeners::new();
        Ok((QueueDaemon::new(&daemon.settings, 0, listeners, &metrics)?, admin_listeners))
    });
    let (mut queue_daemon, admin_listeners) = match started {
        Ok(started) => started,
        Err(error) => {
            error!(target: "queue", "{error}");
            return exit::of(&error);
        }
    };
    // These copies serve only an upgrade, which a separate queue does not support.
    queue_daemon.listeners.clear();
    let mut settings = daemon.settings;
    let source = daemon.source;
    let at_start = settings.clone();
    let user = become_user(&settings);
    let subject = Subject {
        role: "queue",
        metrics,
        flows: Arc::default(),
        per_provider: settings.metrics_per_provider,
    };
    let pid_file = settings.pid_file.clone();
    let caught = queue_daemon
        .event_loop
        .catch_signals(move |signal| on_signal(signal, &source, &mut settings));
    if let Err(error) = caught.and(user) {
        error!(target: "queue", "{error}");
        return exit::of(&error);
    }
    queue_daemon.log_ready(&at_start);
    if let Err(error) = Admin::start(subject, &admin_listeners, || ()) {
        error!(target: "queue", "{error}");
        return exit::of(&error);
    }
    notify::ready();
    service_manager::ready();
    let _pid_file = PidFile::write(pid_file.as_deref());
    queue_daemon.serve()
}

fn on_signal(
    signal: Signal,
    source: &ConfigSource,
    settings: &mut Settings,
) -> Option<QueueCommand> {
    match SignalAction::of(signal, "queue")? {
        SignalAction::End => Some(QueueCommand::Terminate),
        SignalAction::Reload => {
            let fresh = source.reload(settings, &["queue"])?;
            *settings = fresh.clone();
            Some(QueueCommand::Reconfigure(Box::new(fresh)))
        }
    }
}

/// Returns the `ticket` and `drain` requests in these lines. Lines that another version wrote may
/// not parse, and the last one may be incomplete.
fn parse_offers(lines: &[u8]) -> impl Iterator<Item = Request> + '_ {
    let lines =
        lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let requests = lines.filter_map(|line| Request::parse(line).ok());
    requests.filter(|request| matches!(request, Request::Ticket { .. } | Request::Drain { .. }))
}

/// A queue in this process, with a thread for its control connections.
pub struct Embedded {
    /// The addresses of its listeners.
    pub addresses: Vec<SocketAddr>,
    /// Sends it commands.
    pub loop_handle: LoopHandle<QueueCommand>,
    /// Takes requests.
    pub queue: SharedQueue,
    /// Its listening sockets, to hand over to another process.
    pub listeners: NamedListeners,
    thread: JoinHandle<i32>,
}

impl Embedded {
    /// Starts it; it listens when this returns. `inherited` and `offers` are the listeners
    /// and the offers of the queue in a previous process. At most `local_handles_max`
    /// threads (at least one) may use the queue.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start(
        settings: &Settings,
        local_handles_max: usize,
        inherited: NamedListeners,
        offers: &[u8],
        metrics: &Metrics,
    ) -> io::Result<Embedded> {
        let mut queue_daemon = QueueDaemon::new(settings, local_handles_max, inherited, metrics)?;
        let cx = queue_daemon.event_loop.context();
        if let Some(local_handle) = queue_daemon.queue.join(cx.waker(), cx.now) {
            parse_offers(offers).for_each(|offer| local_handle.ask(offer, cx.now));
        }
        let addresses = queue_daemon.addresses.clone();
        let loop_handle = queue_daemon.event_loop.loop_handle();
        let queue = queue_daemon.queue.clone();
        let listeners = std::mem::take(&mut queue_daemon.listeners);
        queue_daemon.log_ready(settings);
        let thread =
            thread::Builder::new().name("queue".into()).spawn(move || queue_daemon.serve())?;
        Ok(Embedded { addresses, loop_handle, queue, listeners, thread })
    }

    /// Drains it and waits for its thread.
    pub fn stop(self) {
        self.loop_handle.send(QueueCommand::Terminate);
        let _ = self.thread.join();
    }
}
