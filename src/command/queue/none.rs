//! Stand-in for a program that was built without the queue: its types have no values.
//!
//! Owns the part of the interface of `queue` that a redirector uses.

use crate::command::admin::Metrics;
use crate::config::settings::Settings;
use crate::net::event_loop::LoopHandle;
use crate::net::queue_connection::QueueEvent;
use mio::Waker;
use pegasus_core::base::endpoint::ListenAddr;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::request::Request;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

/// Commands from another thread to a running queue.
pub enum QueueCommand {
    /// Drain.
    Terminate,
    /// Apply new settings.
    Reconfigure(Box<Settings>),
    /// A queue of another process takes over.
    HandOver,
}

/// Listening sockets, each with its entry in `queue_listen`.
pub type NamedListeners = Vec<(ListenAddr, TcpListener)>;

/// The queue of a process, shared by its threads.
#[derive(Clone)]
pub enum SharedQueue {}

impl SharedQueue {
    /// Adds a thread.
    pub fn join(&self, _: Arc<Waker>, _: Moment) -> Option<LocalHandle> {
        match *self {}
    }

    /// Returns the current offers.
    pub fn offers(&self) -> Vec<u8> {
        match *self {}
    }
}

/// A thread's handle to the queue.
pub enum LocalHandle {}

impl LocalHandle {
    /// Sends a request.
    pub fn ask(&self, _: Request, _: Moment) {
        match *self {}
    }

    /// Returns the next event.
    pub fn poll_event(&self) -> Option<QueueEvent<()>> {
        match *self {}
    }
}

/// A queue in this process.
pub struct Embedded {
    /// Sends it commands.
    pub loop_handle: LoopHandle<QueueCommand>,
    /// Takes requests.
    pub queue: SharedQueue,
    /// Its listening sockets.
    pub listeners: NamedListeners,
}

impl Embedded {
    /// Starts it.
    ///
    /// # Errors
    /// Always. A configuration that needs it is rejected earlier.
    pub fn start(
        _: &Settings,
        _: usize,
        _: NamedListeners,
        _: &[u8],
        _: &Metrics,
    ) -> io::Result<Embedded> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends it.
    pub fn stop(self) {
        match self.queue {}
    }
}
