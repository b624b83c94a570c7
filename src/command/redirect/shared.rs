//! What the workers of a process share, and the commands that they take.
//!
//! Owns the counts that hold for all workers together, and where the queue is.
//! Starts nothing.

use super::blocked::BlockedLog;
use super::exit_policy::RunMode;
use super::listen_sockets::ListenDiff;
use super::own_listeners::OwnListeners;
use super::queue_handle::{self, QueueHandle};
use crate::command::admin::Metrics;
use crate::command::daemon::DescriptorBudget;
use crate::command::queue::SharedQueue;
use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::queue_connection::QueueConnection;
use crate::net::shared_counter::SharedCounter;
use crate::os::cpus;
use mio::Token;
use pegasus_core::base::endpoint::HostPort;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::peer_key::KeyRole;
use pegasus_core::redirect::flows::MovedFlow;
use pegasus_core::redirect::source_limit::SourceLimiter;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// The shortest and the longest pause between attempts to reach the queue:
/// clients wait for it.
const RETRY: (Span, Span) = (Span::from_millis(50), Span::from_secs(1));

/// A command to a running worker.
#[derive(Clone)]
pub enum WorkerCommand {
    /// End in good order; the second time at once.
    Terminate,
    /// Another process serves new clients from now on: end when the clients that
    /// are here are gone.
    HandOver(Sender<MovedSocket>),
    /// The flows of the process that this one took the place of are here.
    AdoptFlows(AdoptedFlows),
    /// Other settings from now on.
    Reconfigure(Arc<Settings>),
    /// The listen sockets change.
    UpdateListeners(Arc<ListenDiff>),
    /// Where this process listens from now on.
    SetOwnListeners(OwnListeners),
}

/// The socket of a flow that goes to another process, and a line that says which flow.
pub type MovedSocket = (String, UdpSocket);

/// The flows of another process, by the listener that their clients send to: its address,
/// and which of the sockets at that address it is. Each worker takes those of its own.
#[derive(Clone, Default)]
pub struct AdoptedFlows(Arc<Mutex<HashMap<(SocketAddr, usize), FlowSockets>>>);

/// Flows and their sockets.
pub type FlowSockets = Vec<(MovedFlow, UdpSocket)>;

impl AdoptedFlows {
    /// Reads the lines. Those that are not understood end their flows.
    pub fn read(moved: impl Iterator<Item = MovedSocket>) -> AdoptedFlows {
        let mut flows: HashMap<_, FlowSockets> = HashMap::new();
        for (line, socket) in moved {
            let mut words = line.splitn(3, ' ');
            let mut next = || words.next().unwrap_or_default();
            let address = next().parse();
            let shard = next().parse();
            if let (Ok(address), Ok(shard), Ok(flow)) = (address, shard, next().parse()) {
                flows.entry((address, shard)).or_default().push((flow, socket));
            }
        }
        AdoptedFlows(Arc::new(Mutex::new(flows)))
    }

    /// Takes the flows of a listener.
    pub fn take(&self, address: SocketAddr, shard: usize) -> FlowSockets {
        let mut flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flows.remove(&(address, shard)).unwrap_or_default()
    }
}

/// Where the queue is.
#[derive(Clone)]
pub enum QueueAccess {
    /// In another process.
    Remote(HostPort),
    /// In this process.
    Embedded(SharedQueue),
}

/// How many threads accept clients.
pub fn threads(settings: &Settings) -> usize {
    settings.redirect_threads.unwrap_or_else(cpus::threads)
}

/// How many sockets the datagrams of one address have.
pub fn udp_shards(settings: &Settings) -> usize {
    threads(settings).min(DescriptorBudget::udp_shards_max(settings))
}

/// How many workers may ask a queue of this process: those for TCP, those for UDP, and the
/// one for names.
pub fn local_handles_max(settings: &Settings) -> usize {
    2 * threads(settings) + 1
}

/// What the workers of a process share.
#[derive(Clone)]
pub struct SharedState {
    /// The settings of workers that are started from now on.
    pub settings: Arc<Settings>,
    /// The queue that they ask.
    pub queue: QueueAccess,
    /// TCP clients of all workers.
    pub client_count: SharedCounter,
    /// The same by their sources, where sources have a limit.
    pub source_limiter: Arc<Mutex<SourceLimiter>>,
    /// Where this process listens: the copy of workers that are started from now on.
    pub own_listeners: OwnListeners,
    /// What is logged of providers that cannot be reached from here.
    pub blocked_log: BlockedLog,
    /// Pipes of all workers.
    pub pipe_count: SharedCounter,
    /// Flows of all workers.
    pub flow_count: Arc<AtomicUsize>,
    /// When the process ends.
    pub run_mode: RunMode,
    /// What the workers count.
    pub metrics: Metrics,
}

impl SharedState {
    /// The state of a process without a client yet.
    pub fn new(
        settings: Settings,
        queue: QueueAccess,
        run_mode: RunMode,
        metrics: Metrics,
    ) -> SharedState {
        SharedState {
            settings: Arc::new(settings),
            queue,
            client_count: SharedCounter::default(),
            source_limiter: Arc::default(),
            own_listeners: OwnListeners::default(),
            blocked_log: BlockedLog::default(),
            pipe_count: SharedCounter::default(),
            flow_count: Arc::default(),
            run_mode,
            metrics,
        }
    }

    /// A handle to the queue. A remote queue's socket has this token; `seed` makes
    /// the jitter of its retries differ from that of other workers.
    ///
    /// # Errors
    /// As many workers as were announced ask the queue of this process already.
    pub fn queue_handle(&self, token: Token, seed: u64, cx: &Context) -> io::Result<QueueHandle> {
        let host_port = match &self.queue {
            QueueAccess::Remote(host_port) => host_port.clone(),
            QueueAccess::Embedded(queue) => {
                let local_handle =
                    queue.join(cx.waker(), cx.now).ok_or(io::Error::other("too many threads"))?;
                return Ok(QueueHandle::embedded(local_handle));
            }
        };
        let silence_max = queue_handle::silence_max(&self.settings);
        let connection =
            QueueConnection::new("redirect", host_port, token, RETRY, silence_max, seed)
                .with_key(self.settings.client_key(KeyRole::Balancer));
        Ok(QueueHandle::Remote(Box::new(connection)))
    }
}
