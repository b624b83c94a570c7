//! The workers as threads.
//!
//! Owns which workers a process needs, and starts and joins their threads. Not
//! responsible for what a worker does.

#[cfg(feature = "dns")]
use super::dns::DnsWorker;
use super::exit_policy::RunMode;
use super::listen_sockets::ListenSockets;
use super::own_listeners::OwnListeners;
use super::shared::{threads, udp_shards, QueueAccess, SharedState, WorkerCommand};
use super::tcp_worker::TcpWorker;
use super::udp_worker::{Shard, UdpWorker};
use super::worker::Worker;
use crate::command::admin::Metrics;
use crate::command::exit;
use crate::command::queue::SharedQueue;
use crate::config::settings::{QueueLocation, Settings};
use crate::net::event_loop::{Context, EventLoop, LoopHandle};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::state_machine::NoStateMachine;
use pegasus_core::redirect::flows::Flows;
use pegasus_core::redirect::redirector::Redirector;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// An event loop with a worker that listens. `number` tells the workers of a process
/// apart.
///
/// # Errors
/// Returns the OS error.
fn build<W: Worker>(
    new: impl FnOnce(u64, &Context) -> io::Result<W>,
    listen_sockets: &ListenSockets,
    number: u64,
) -> io::Result<(EventLoop<WorkerCommand>, W)> {
    let mut event_loop = EventLoop::new()?;
    // The seed is for jitter only: the process id is different enough.
    let seed = (u64::from(std::process::id()) << 16) + number;
    let mut worker = new(seed, event_loop.context())?;
    for listen_socket in listen_sockets.iter() {
        worker.listen(listen_socket, event_loop.context())?;
    }
    Ok((event_loop, worker))
}

/// A worker for TCP with its event loop. `number` tells the workers of a process apart.
///
/// # Errors
/// Returns the OS error.
pub fn tcp_worker(
    shared: &SharedState,
    listen_sockets: &ListenSockets,
    number: u64,
) -> io::Result<(EventLoop<WorkerCommand>, TcpWorker)> {
    build(|seed, cx| TcpWorker::new(shared, seed, cx), listen_sockets, number)
}

fn udp_worker(
    shared: &SharedState,
    listen_sockets: &ListenSockets,
    shard: Shard,
) -> io::Result<(EventLoop<WorkerCommand>, UdpWorker)> {
    let number = u64::from(u16::MAX) - shard.index as u64;
    build(|seed, cx| UdpWorker::new(shared, shard, seed, cx), listen_sockets, number)
}

/// A worker that is not running yet.
pub enum ReadyWorker {
    Tcp(EventLoop<WorkerCommand>, Box<TcpWorker>),
    Udp(EventLoop<WorkerCommand>, Box<UdpWorker>),
    #[cfg(feature = "dns")]
    Dns(EventLoop<WorkerCommand>, Box<DnsWorker>),
}

impl ReadyWorker {
    /// Its event loop.
    pub fn event_loop(&mut self) -> &mut EventLoop<WorkerCommand> {
        match self {
            ReadyWorker::Tcp(event_loop, _) | ReadyWorker::Udp(event_loop, _) => event_loop,
            #[cfg(feature = "dns")]
            ReadyWorker::Dns(event_loop, _) => event_loop,
        }
    }

    /// Runs it to its end.
    fn serve(self) -> i32 {
        let result = match self {
            ReadyWorker::Tcp(mut event_loop, mut worker) => {
                let mut redirector = Redirector::new(worker.base().settings.redirect_options());
                event_loop.run(&mut redirector, &mut *worker)
            }
            ReadyWorker::Udp(mut event_loop, mut worker) => {
                event_loop.run(&mut Flows::new(worker.options()), &mut *worker)
            }
            #[cfg(feature = "dns")]
            ReadyWorker::Dns(mut event_loop, mut worker) => {
                event_loop.run(&mut NoStateMachine, &mut *worker)
            }
        };
        exit::after("redirect", result)
    }
}

/// The workers of a process; more may be needed later.
#[derive(Clone)]
pub struct WorkerPool {
    /// What the workers share.
    pub shared: SharedState,
    /// How many workers accept TCP clients, once there is a listen socket: the queue
    /// of this process was made for as many.
    count: usize,
    has_tcp: bool,
    has_udp: bool,
    #[cfg(feature = "dns")]
    has_dns: bool,
    loop_handles: Vec<LoopHandle<WorkerCommand>>,
    threads: Arc<Mutex<Vec<JoinHandle<i32>>>>,
}

impl WorkerPool {
    /// A pool without a worker.
    fn new(shared: SharedState) -> WorkerPool {
        WorkerPool {
            count: threads(&shared.settings),
            shared,
            has_tcp: false,
            has_udp: false,
            #[cfg(feature = "dns")]
            has_dns: false,
            loop_handles: Vec::new(),
            threads: Arc::default(),
        }
    }

    /// Sends a command to all workers.
    pub fn broadcast(&self, command: &WorkerCommand) {
        self.loop_handles.iter().for_each(|loop_handle| loop_handle.send(command.clone()));
    }

    /// Lets the workers know where this process listens.
    pub fn set_own_listeners(&mut self, own: OwnListeners) {
        self.broadcast(&WorkerCommand::SetOwnListeners(own.clone()));
        self.shared.own_listeners = own;
    }

    /// The workers that these listen sockets need and that are not there yet: without
    /// a socket a worker would only wait.
    ///
    /// # Errors
    /// Returns the OS error.
    fn missing_workers(&self, listen_sockets: &ListenSockets) -> io::Result<Vec<ReadyWorker>> {
        let mut workers = Vec::new();
        if !self.has_tcp && listen_sockets.has_transport(Transport::Tcp) {
            for number in 0..self.count as u64 {
                let (event_loop, worker) = tcp_worker(&self.shared, listen_sockets, number)?;
                workers.push(ReadyWorker::Tcp(event_loop, Box::new(worker)));
            }
        }
        if !self.has_udp && listen_sockets.has_transport(Transport::Udp) {
            let flows_max = self.shared.settings.redirect_flows_max;
            let count = listen_sockets.shard_count().min(self.count).min(flows_max);
            for index in 0..count {
                let shard = Shard { index, count };
                let (event_loop, worker) = udp_worker(&self.shared, listen_sockets, shard)?;
                workers.push(ReadyWorker::Udp(event_loop, Box::new(worker)));
            }
        }
        #[cfg(feature = "dns")]
        if !self.has_dns && !listen_sockets.dns.is_empty() {
            let number = u64::from(u16::MAX) + 1;
            let new = |seed, cx: &Context| DnsWorker::new(&self.shared, listen_sockets, seed, cx);
            let (event_loop, worker) = build(new, listen_sockets, number)?;
            workers.push(ReadyWorker::Dns(event_loop, Box::new(worker)));
        }
        Ok(workers)
    }

    /// Starts the workers that these listen sockets need and that are not there yet.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start_missing(&mut self, listen_sockets: &ListenSockets) -> io::Result<()> {
        let workers = self.missing_workers(listen_sockets)?;
        workers.into_iter().try_for_each(|worker| self.start(worker))
    }

    fn register(&mut self, worker: &mut ReadyWorker) {
        match worker {
            ReadyWorker::Tcp(..) => self.has_tcp = true,
            ReadyWorker::Udp(..) => self.has_udp = true,
            #[cfg(feature = "dns")]
            ReadyWorker::Dns(..) => self.has_dns = true,
        }
        self.loop_handles.push(worker.event_loop().loop_handle());
    }

    /// Runs a worker in a thread of its own.
    fn start(&mut self, mut worker: ReadyWorker) -> io::Result<()> {
        self.register(&mut worker);
        let name = format!("redirect-{}", self.loop_handles.len() - 1);
        let thread = thread::Builder::new().name(name).spawn(move || worker.serve())?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits for all threads, those that start meanwhile too. The result is the
    /// highest exit status.
    fn join(&self, mut status: i32) -> i32 {
        loop {
            let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return status };
            status = status.max(thread.join().unwrap_or(exit::SYSTEM));
        }
    }
}

/// All workers of a redirector; the first is not running yet.
pub struct RedirectDaemon {
    /// The worker of the thread that starts the others.
    pub first: ReadyWorker,
    /// All workers.
    pub pool: WorkerPool,
    /// Where clients come.
    pub addresses: Vec<(ServiceName, SocketAddr)>,
}

impl RedirectDaemon {
    /// A redirector on its own listen sockets that asks this queue.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn standalone(
        settings: Settings,
        queue: SharedQueue,
        metrics: Metrics,
    ) -> io::Result<RedirectDaemon> {
        let mut listen_sockets = ListenSockets::with_shards(udp_shards(&settings));
        let diff = listen_sockets.diff(&settings)?;
        listen_sockets.apply(&diff);
        RedirectDaemon::start(settings, &listen_sockets, Some(queue), RunMode::Forever, metrics)
    }

    /// A redirector on these listen sockets. `queue`: the queue of this process, which
    /// is asked instead of the configured one.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start(
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
        let mut addresses = Vec::new();
        for listen_socket in listen_sockets.first_shards() {
            addresses.push((listen_socket.service, listen_socket.socket.address()?));
        }
        let mut shared = SharedState::new(settings, queue, run_mode, metrics);
        shared.own_listeners = OwnListeners::new(listen_sockets.addresses());
        let mut pool = WorkerPool::new(shared);
        let mut workers = pool.missing_workers(listen_sockets)?.into_iter();
        let Some(mut first) = workers.next() else {
            return Err(io::Error::other("nothing to serve"));
        };
        pool.register(&mut first);
        workers.try_for_each(|worker| pool.start(worker))?;
        Ok(RedirectDaemon { first, pool, addresses })
    }

    /// Runs the first worker, until all have ended.
    pub fn serve(self) -> i32 {
        let status = self.first.serve();
        self.pool.join(status)
    }
}
