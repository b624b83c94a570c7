//! Where the program was built without admin addresses: nothing is counted.
//!
//! Owns the face of `admin` that the commands see, and no more.

#[path = "monitor_state.rs"]
mod monitor_state;

use monitor_state::MonitorState;
use pegasus_core::base::endpoint::ListenAddr;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::redirect::redirector::RedirectLog;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// None are needed.
pub const DESCRIPTORS: u64 = 0;

/// Listening sockets, each with its place in the configuration.
pub type AdminListeners = Vec<(ListenAddr, TcpListener)>;

/// Opens nothing: the configuration has no such key here.
///
/// # Errors
/// None.
pub fn bind(_: &[ListenAddr], _: AdminListeners) -> io::Result<AdminListeners> {
    Ok(Vec::new())
}

/// Where one worker counts.
#[derive(Clone)]
pub struct WorkerMetrics;

impl WorkerMetrics {
    /// A client is here.
    pub fn client_arrived(&self, _: ServiceName) {}
    /// A provider answered a connect.
    pub fn connected(&self, _: ServiceName, _: Span) {}
    /// The queue can be asked, or not.
    pub fn queue_up(&self, _: bool) {}
    /// Something ended.
    pub fn record(&self, _: &RedirectLog, _: bool) {}
}

/// The metrics of a process.
#[derive(Clone, Default)]
pub struct Metrics(());

impl Metrics {
    /// A part for one more worker.
    pub fn worker(&self) -> WorkerMetrics {
        WorkerMetrics
    }
    /// Whose status is shown.
    pub fn set_status(&self, _: impl Fn() -> String + Send + Sync + 'static) {}
    /// Remembers an event.
    pub fn event(&self, _: impl FnOnce() -> String) {}
    /// The process is about to end.
    pub fn set_draining(&self) {}
    /// Changes what is known of the monitor.
    pub fn update_monitor(&self, _: impl FnOnce(&mut MonitorState)) {}
    /// All counters.
    pub fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Counters of another process.
    pub fn restore(&self, _: &str) {}
}

/// What a process is, for those who look at it.
#[allow(missing_docs)] // nothing looks
pub struct Subject {
    pub role: &'static str,
    pub metrics: Metrics,
    pub flows: Arc<AtomicUsize>,
    pub per_provider: bool,
}

/// No thread.
#[derive(Clone)]
pub struct Admin;

impl Admin {
    /// Starts nothing.
    ///
    /// # Errors
    /// None.
    pub fn start(
        _: Subject,
        _: &AdminListeners,
        _: impl FnOnce() + Send + 'static,
    ) -> io::Result<Admin> {
        Ok(Admin)
    }

    /// Ends nothing.
    pub fn end(&self) {}
}
