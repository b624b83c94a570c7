//! Where the program has no queue: nothing of this can exist.
//!
//! Owns the face of `queue` that a redirector sees, and no more.

use crate::config::settings::Settings;
use crate::net::drive::Remote;
use crate::net::peer::News;
use mio::Waker;
use pegasus_core::base::address::ListenAddr;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::message::Request;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

/// What may be wanted of a running queue.
pub enum Order {
    /// End in good order.
    Terminate,
    /// Other options from now on.
    Reconfigure(Box<Settings>),
    /// A queue of another process takes its place.
    HandOver,
}

/// Listening sockets, each with its place.
pub type Places = Vec<(ListenAddr, TcpListener)>;

/// A queue of this process.
#[derive(Clone)]
pub enum SharedQueue {}

impl SharedQueue {
    /// A thread joins in.
    pub fn join(&self, _: Arc<Waker>, _: Moment) -> Option<Member> {
        match *self {}
    }

    /// What is offered here.
    pub fn offers(&self) -> Vec<u8> {
        match *self {}
    }
}

/// A thread's way to it.
pub enum Member {}

impl Member {
    /// Asks.
    pub fn ask(&self, _: Request, _: Moment) {
        match *self {}
    }

    /// The next piece of news.
    pub fn poll(&self) -> Option<News<()>> {
        match *self {}
    }
}

/// A queue of this process that runs.
pub struct Embedded {
    /// To give it orders.
    pub remote: Remote<Order>,
    /// To ask it.
    pub shared: SharedQueue,
    /// Its sockets.
    pub places: Places,
}

impl Embedded {
    /// Starts it.
    ///
    /// # Errors
    /// Always: the configuration cannot ask for it.
    pub fn start(_: &Settings, _: usize, _: Places, _: &[u8]) -> io::Result<Embedded> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends it.
    pub fn stop(self) {
        match self.shared {}
    }
}
