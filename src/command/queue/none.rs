//! Where the program has no queue: nothing of this can exist.
//!
//! Owns the face of `queue` that a redirector sees, and no more.

use crate::command::admin::Metrics;
use crate::config::settings::Settings;
use crate::net::event_loop::LoopHandle;
use crate::net::queue_connection::QueueEvent;
use mio::Waker;
use pegasus_core::base::address::ListenAddr;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::message::Request;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

/// Commands to a running queue.
pub enum QueueCommand {
    /// End in good order.
    Terminate,
    /// Other options from now on.
    Reconfigure(Box<Settings>),
    /// A queue of another process takes its place.
    HandOver,
}

/// Listening sockets, each with its place.
pub type NamedListeners = Vec<(ListenAddr, TcpListener)>;

/// A queue of this process.
#[derive(Clone)]
pub enum SharedQueue {}

impl SharedQueue {
    /// A thread joins in.
    pub fn join(&self, _: Arc<Waker>, _: Moment) -> Option<LocalHandle> {
        match *self {}
    }

    /// What is offered here.
    pub fn offers(&self) -> Vec<u8> {
        match *self {}
    }
}

/// A thread's way to it.
pub enum LocalHandle {}

impl LocalHandle {
    /// Asks.
    pub fn ask(&self, _: Request, _: Moment) {
        match *self {}
    }

    /// The next event.
    pub fn poll_event(&self) -> Option<QueueEvent<()>> {
        match *self {}
    }
}

/// A queue of this process that runs.
pub struct Embedded {
    /// To send it commands.
    pub loop_handle: LoopHandle<QueueCommand>,
    /// To ask it.
    pub queue: SharedQueue,
    /// Its sockets.
    pub listeners: NamedListeners,
}

impl Embedded {
    /// Starts it.
    ///
    /// # Errors
    /// Always: the configuration cannot ask for it.
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
