//! What signals mean to a redirector: it ends, reads its configuration again,
//! or lets a new process take its place.
//!
//! Owns the listen sockets while the workers run, and commands the workers. Serves no
//! client.

use super::listen_sockets::{ListenDiff, ListenSocket, ListenSockets};
use super::own_listeners::OwnListeners;
use super::shared::{MovedSocket, QueueAccess, WorkerCommand};
use super::workers::WorkerPool;
use crate::command::admin::{Admin, AdminListeners, Metrics};
use crate::command::daemon::warn_about_limit;
use crate::command::own_offers;
use crate::command::queue::{self, NamedListeners};
use crate::config::settings::Settings;
use crate::config::source::ConfigSource;
use crate::logging;
use crate::net::event_loop::LoopHandle;
use crate::os::inherit::{start_successor, Successor};
use crate::os::signal::Signal;
use crate::os::socket::Socket;
use crate::os::{keeper, notify};
use log::{error, info, warn};
use pegasus_core::base::endpoint::Transport;
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How long a new process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a process that has handed over sends its counters.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// What a process sends behind its last counters.
pub const LAST_COUNTERS: &str = "end\n.\n";
/// Before the entry of an admin address, where other sockets have the name of a service.
pub const ADMIN_PREFIX: &str = "=@";

/// How long a worker may take to hand its flows over.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ProcessPhase {
    Serving,
    /// A thread reads the configuration again.
    Reloading,
    /// A new process was started and is not ready yet.
    Upgrading,
    /// It ends, or another process serves.
    Ending,
}

struct State {
    pool: WorkerPool,
    listen_sockets: ListenSockets,
    /// The queue of this process, and its sockets.
    queue: Option<(LoopHandle<queue::QueueCommand>, NamedListeners)>,
    phase: ProcessPhase,
    /// The process that is about to take over.
    successor: Option<Arc<Successor>>,
    /// A signal that came while the configuration was read.
    deferred: Option<Signal>,
    /// The process that has taken over.
    heir: Option<Arc<Successor>>,
    metrics: Metrics,
    /// The admin addresses, and the thread that answers there.
    admin: Option<(Admin, AdminListeners)>,
}

/// A handle to what signals change; its clones share it.
#[derive(Clone)]
pub struct Supervisor {
    source: ConfigSource,
    /// Whether the sockets are those of the configuration, not of a superserver.
    owns_listeners: bool,
    state: Arc<Mutex<State>>,
    /// Locked while flows are sent to a new process.
    flows_move: Arc<Mutex<()>>,
}

impl Supervisor {
    /// The supervisor of these workers and sockets. `owns_listeners`: the sockets are
    /// those of the configuration. `queue`: the queue of this process.
    pub fn new(
        source: ConfigSource,
        pool: WorkerPool,
        listen_sockets: ListenSockets,
        owns_listeners: bool,
        queue: Option<(LoopHandle<queue::QueueCommand>, NamedListeners)>,
    ) -> Supervisor {
        let mut state = State {
            pool,
            listen_sockets,
            queue,
            phase: ProcessPhase::Serving,
            successor: None,
            deferred: None,
            heir: None,
            metrics: Metrics::default(),
            admin: None,
        };
        state.update_own_listeners();
        let state = Arc::new(Mutex::new(state));
        Supervisor { source, owns_listeners, state, flows_move: Arc::default() }
    }

    /// The same with metrics, and the addresses where they are shown.
    pub fn with_admin(self, admin: Admin, listeners: AdminListeners, metrics: Metrics) -> Self {
        let mut state = self.state();
        (state.admin, state.metrics) = (Some((admin, listeners)), metrics);
        drop(state);
        self
    }

    /// Waits until the new process has the flows that the workers handed over.
    pub fn finish_flows(&self) {
        drop(lock(&self.flows_move));
    }

    /// Sends what was counted, for the last time: the clients of this process are gone.
    pub fn finish_counters(&self) {
        let mut state = self.state();
        if state.send_counters() {
            let heir = state.heir.take();
            let _ = heir.map(|heir| heir.send(LAST_COUNTERS.as_bytes()));
        }
    }

    /// Sends what was counted to the process that has taken over. Answers whether there
    /// is one that takes it.
    pub fn send_counters(&self) -> bool {
        self.state().send_counters()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// All addresses that clients come to, for the log.
    pub fn describe_listeners(&self) -> String {
        let listen_sockets = &self.state().listen_sockets;
        let mut all = listen_sockets.describe_dns();
        all.extend(listen_sockets.first_shards().map(ListenSocket::display_address));
        all.join(" ")
    }

    /// Changes the listen sockets.
    pub fn apply(&self, diff: ListenDiff) {
        self.state().apply(diff);
    }

    /// Does what a signal means.
    pub fn on_signal(&self, signal: Signal) {
        let phase = self.state().phase;
        let passed_on = keeper::pass_on(signal);
        match signal {
            Signal::Reopen => logging::reopen(),
            Signal::Reload | Signal::Upgrade if passed_on => {}
            Signal::Terminate => {
                notify::stopping();
                let mut state = self.state();
                state.metrics.set_draining();
                let grace = state.pool.shared.settings.redirect_accept_grace;
                if phase == ProcessPhase::Ending || grace.is_zero() {
                    info!(target: "redirect", "draining");
                } else {
                    info!(target: "redirect", "accepting for another {grace}, then draining");
                }
                // A service manager that ends this process does not know that one.
                if let Some(successor) = state.successor.take() {
                    successor.end();
                }
                state.end(&WorkerCommand::Terminate);
            }
            Signal::Reload | Signal::Upgrade if phase == ProcessPhase::Upgrading => {
                warn!(target: "redirect", "an upgrade is in progress: signal ignored");
            }
            Signal::Reload | Signal::Upgrade if phase == ProcessPhase::Ending => {
                warn!(target: "redirect", "this process is ending: signal ignored");
            }
            Signal::Reload | Signal::Upgrade if phase == ProcessPhase::Reloading => {
                self.state().deferred = Some(signal);
            }
            Signal::Reload => self.start_reload(),
            Signal::Upgrade if !self.owns_listeners => {
                warn!(
                    target: "redirect",
                    "no upgrade: the superserver keeps the sockets open, so restart this process"
                );
            }
            Signal::Upgrade => self.upgrade(),
        }
    }

    /// Names in listen addresses are looked up, which may take seconds: a thread does it.
    fn start_reload(&self) {
        self.state().phase = ProcessPhase::Reloading;
        let supervisor = self.clone();
        let reload = move || {
            supervisor.reload();
            let deferred = supervisor.state().deferred.take();
            if let Some(signal) = deferred {
                supervisor.on_signal(signal);
            }
        };
        if let Err(error) = thread::Builder::new().name("reload".into()).spawn(reload) {
            self.state().phase = ProcessPhase::Serving;
            error!(target: "config", "no thread to reload: {error}; the old configuration stays");
        }
    }

    fn reload(&self) {
        let mut state = self.state();
        let mut listen_sockets = std::mem::take(&mut state.listen_sockets);
        let parts: &[&str] =
            if state.queue.is_some() { &["redirect", "queue"] } else { &["redirect"] };
        let running = state.pool.shared.settings.clone();
        // Signals come meanwhile.
        drop(state);
        let prepare = |settings: &Settings| {
            if self.owns_listeners {
                listen_sockets.diff(settings)
            } else {
                Ok(ListenDiff::default())
            }
        };
        let reloaded = self.source.reload_if(&running, parts, prepare);
        let mut state = self.state();
        let state = &mut *state;
        state.listen_sockets = listen_sockets;
        if state.phase != ProcessPhase::Reloading {
            // TERM came meanwhile.
            return state.listen_sockets.close();
        }
        state.phase = ProcessPhase::Serving;
        let Some((fresh, diff)) = reloaded else { return };
        state.metrics.event(|| "configuration read again".to_string());
        let fresh = Arc::new(fresh);
        warn_about_limit("redirect", &fresh);
        own_offers::warnings("redirect", &fresh)
            .iter()
            .for_each(|warning| warn!(target: "config", "{warning}"));
        if let Some((loop_handle, _)) = &state.queue {
            loop_handle.send(queue::QueueCommand::Reconfigure(Box::new((*fresh).clone())));
        }
        state.pool.shared.settings = fresh.clone();
        state.pool.broadcast(&WorkerCommand::Reconfigure(fresh));
        state.apply(diff);
    }

    /// Starts the program anew with the sockets of this process. A thread waits
    /// until it is ready; if it never is, nothing has happened.
    fn upgrade(&self) {
        let mut state = self.state();
        let started = state.start_successor().and_then(|successor| {
            info!(target: "redirect", "process {} is about to take over", successor.id());
            let supervisor = self.clone();
            let successor = Arc::new(successor);
            let waited_for = successor.clone();
            thread::Builder::new()
                .name("upgrade".into())
                .spawn(move || supervisor.hand_over(&waited_for))?;
            Ok(successor)
        });
        match started {
            Ok(successor) => {
                (state.phase, state.successor) = (ProcessPhase::Upgrading, Some(successor))
            }
            Err(error) => error!(target: "redirect", "no upgrade: {error}"),
        }
    }

    fn hand_over(&self, successor: &Arc<Successor>) {
        let id = successor.id();
        let ready = successor.wait(READY_WITHIN);
        let (sender, moved) = mpsc::channel();
        let mut state = self.state();
        if state.successor.take().is_none() {
            return; // TERM came meanwhile, and both end.
        }
        match ready {
            Ok(()) => {
                keeper::follow(id);
                info!(target: "redirect", "process {id} serves from now on; draining");
                if let Some((loop_handle, _)) = &state.queue {
                    loop_handle.send(queue::QueueCommand::HandOver);
                }
                if let Some((admin, listeners)) = &mut state.admin {
                    admin.end();
                    listeners.clear();
                }
                let moving = lock(&self.flows_move);
                state.end(&WorkerCommand::HandOver(sender));
                state.heir = Some(successor.clone());
                drop(state);
                send_flows(successor, &moved);
                drop(moving);
                // Clients that are still here are counted there.
                while self.state().send_counters() {
                    thread::sleep(COUNTERS_INTERVAL);
                }
            }
            Err(why) => {
                error!(target: "redirect", "no upgrade, this process goes on: {why}");
                state.phase = ProcessPhase::Serving;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Sends the new process the flows that the workers hand over.
fn send_flows(successor: &Successor, moved: &Receiver<MovedSocket>) {
    let mut count = 0;
    // A worker that has ended already hands over nothing, and the channel may stay open.
    while let Ok((line, socket)) = moved.recv_timeout(HANDED_OVER_WITHIN) {
        if let Err(error) = successor.send_socket(&line, &socket) {
            warn!(target: "redirect", "flows end, as they cannot be handed over: {error}");
            break;
        }
        count += 1;
    }
    successor.end_sockets();
    if count > 0 {
        info!(target: "redirect", "{count} flows go on in process {}", successor.id());
    }
}

impl State {
    fn start_successor(&self) -> io::Result<Successor> {
        let listen_sockets = self
            .listen_sockets
            .iter()
            .map(|listen_socket| (listen_socket.handover_name(), &*listen_socket.socket));
        let queue = self.queue.iter().flat_map(|(_, listeners)| listeners);
        let queue: Vec<_> = queue
            .map(|(listen, socket)| Ok((listen, Socket::Tcp(socket.try_clone()?))))
            .collect::<io::Result<_>>()?;
        let queue = queue.iter().map(|(listen, socket)| (format!("={listen}"), socket));
        let offers = match &self.pool.shared.queue {
            QueueAccess::Embedded(queue) => queue.offers(),
            QueueAccess::Remote(_) => Vec::new(),
        };
        let data = [offers, self.metrics.save()].concat();
        let admin = self.admin.iter().flat_map(|(_, listeners)| listeners);
        let admin: Vec<_> = admin
            .map(|(listen, socket)| {
                Ok((format!("{ADMIN_PREFIX}{listen}"), Socket::Tcp(socket.try_clone()?)))
            })
            .collect::<io::Result<_>>()?;
        let admin = admin.iter().map(|(name, socket)| (name.clone(), socket));
        let dns = self.listen_sockets.dns_handover();
        let sockets: Vec<_> = listen_sockets.chain(dns).chain(queue).chain(admin).collect();
        start_successor(&sockets, &data)
    }

    /// Lets the workers know where this process listens.
    fn update_own_listeners(&mut self) {
        let mut own = self.listen_sockets.addresses();
        for (_, listener) in self.queue.iter().flat_map(|(_, listeners)| listeners) {
            own.extend(listener.local_addr().ok().map(|address| (Transport::Tcp, address)));
        }
        self.pool.set_own_listeners(OwnListeners::new(own));
    }

    /// Changes the listen sockets: commands the workers, and starts those that are missing.
    fn apply(&mut self, diff: ListenDiff) {
        if diff.is_empty() {
            return;
        }
        info!(target: "redirect", "{}", self.listen_sockets.apply(&diff));
        self.update_own_listeners();
        let opened = diff.opened.iter().map(|listen_socket| listen_socket.number).collect();
        self.pool.broadcast(&WorkerCommand::UpdateListeners(Arc::new(diff)));
        // New workers start with all listen sockets.
        if let Err(error) = self.pool.start_missing(&self.listen_sockets) {
            error!(
                target: "redirect",
                "no thread for the new listen sockets, they are closed again: {error}"
            );
            let diff = ListenDiff { closed: opened, ..ListenDiff::default() };
            self.listen_sockets.apply(&diff);
            self.pool.broadcast(&WorkerCommand::UpdateListeners(Arc::new(diff)));
        }
    }

    /// Sends what was counted so far to the process that has taken over. Answers whether
    /// there is one that takes it.
    fn send_counters(&mut self) -> bool {
        let data = self.metrics.save();
        let taken = self.heir.as_ref().is_some_and(|heir| heir.send(&data));
        if !taken {
            self.heir = None;
        }
        taken
    }

    fn end(&mut self, command: &WorkerCommand) {
        self.phase = ProcessPhase::Ending;
        self.listen_sockets.close();
        if let Some((_, listeners)) = &mut self.queue {
            listeners.clear();
        }
        self.pool.broadcast(command);
    }
}
