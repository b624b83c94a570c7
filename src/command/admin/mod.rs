//! Metrics, status and a page over HTTP, on the addresses of `queue_admin`,
//! `redirect_admin` and `monitor_admin`.
//!
//! Owns the sockets and the thread. It looks at the process now and then; nothing that
//! serves clients ever waits for it.

mod content;
mod exposition;
mod histogram;
mod history;
mod http;
mod metrics;
mod monitor_state;
mod page;
mod server;

pub use content::Subject;
pub use metrics::{Metrics, WorkerMetrics};

use crate::net::event_loop::{EventLoop, LoopHandle};
use crate::net::listeners;
use content::Content;
use log::{error, info};
use pegasus_core::base::endpoint::ListenAddr;
use pegasus_core::base::state_machine::NoStateMachine;
use server::{token, AdminCommand, AdminServer};
use std::io;
use std::net::TcpListener;
use std::thread;

/// Descriptors that admin addresses may need: connections, those that were accepted in
/// one turn and are about to take a place, and sockets to listen.
pub const DESCRIPTORS: u64 = 2 * server::CONNECTIONS_MAX as u64 + 8;

/// Listening sockets, each with its place in the configuration.
pub type AdminListeners = Vec<(ListenAddr, TcpListener)>;

/// Opens the sockets that were not `inherited` from another process.
///
/// # Errors
/// Returns the OS error.
pub fn bind(addresses: &[ListenAddr], inherited: AdminListeners) -> io::Result<AdminListeners> {
    let mut all: AdminListeners =
        inherited.into_iter().filter(|(listen, _)| addresses.contains(listen)).collect();
    let known: Vec<ListenAddr> = all.iter().map(|(listen, _)| listen.clone()).collect();
    for listen in addresses.iter().filter(|listen| !known.contains(listen)) {
        let sockets: Vec<TcpListener> = listeners::bind(listen)?;
        all.extend(sockets.into_iter().map(|socket| (listen.clone(), socket)));
    }
    Ok(all)
}

/// The running thread.
#[derive(Clone)]
pub struct Admin(Option<LoopHandle<AdminCommand>>);

impl Admin {
    /// Starts it; without a socket there is nothing to start. `before` runs in the
    /// thread before the first connection is taken in.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start(
        subject: Subject,
        listeners: &AdminListeners,
        before: impl FnOnce() + Send + 'static,
    ) -> io::Result<Admin> {
        if listeners.is_empty() {
            return Ok(Admin(None));
        }
        let mut event_loop = EventLoop::new()?;
        let mut server = AdminServer::new(Content::new(subject));
        for (number, (_, socket)) in listeners.iter().enumerate() {
            let socket = socket.try_clone()?;
            socket.set_nonblocking(true)?;
            server.listeners.add(number, (), socket, token(number, true), event_loop.context())?;
        }
        let urls: Vec<String> =
            server.listeners.addresses().map(|address| format!("http://{address}/")).collect();
        info!(target: "admin", "serves {}", urls.join(" "));
        let handle = event_loop.loop_handle();
        thread::Builder::new().name("admin".into()).spawn(move || {
            before();
            if let Err(error) = event_loop.run(&mut NoStateMachine, &mut server) {
                error!(target: "admin", "{error}");
            }
        })?;
        Ok(Admin(Some(handle)))
    }

    /// Ends it: no connection is taken in any more.
    pub fn end(&self) {
        if let Some(handle) = &self.0 {
            handle.send(AdminCommand::End);
        }
    }
}
