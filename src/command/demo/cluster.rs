//! The cluster of the demo.
//!
//! Owns its parts and their table. Queue, redirector and monitors are the real ones, over
//! real sockets; the providers are the demo's own.

use super::provider::{Provider, WORKERS};
use crate::command::admin::{self, Admin, Metrics, Subject};
use crate::command::monitor;
use crate::command::queue::Embedded;
use crate::command::redirect::{local_handles_max, RedirectDaemon};
use crate::command::send::ControlConnection;
use crate::config::settings::Settings;
use pegasus_core::base::endpoint::{HostPort, ListenAddr};
use pegasus_core::base::key_value;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Name and time for one request, in milliseconds.
const PROVIDERS: [(&str, usize); 3] = [("quick-1", 20), ("quick-2", 20), ("slow", 80)];
const STARTUP_MAX: Duration = Duration::from_secs(10);

/// Everything that runs.
pub struct Cluster {
    pub providers: Vec<Provider>,
    pub queue: SocketAddr,
    pub address: SocketAddr,
    /// Where the live page is, if this program has one.
    pub page: Option<SocketAddr>,
}

/// Starts the live page of the cluster.
fn start_page(metrics: Metrics) -> io::Result<Option<SocketAddr>> {
    let any: ListenAddr = "127.0.0.1:0".parse().map_err(io::Error::other)?;
    let listeners = admin::bind(&[any], Vec::new())?;
    let subject = Subject { role: "redirect", metrics, flows: Arc::default(), per_provider: true };
    Admin::start(subject, &listeners, || ())?;
    listeners.first().map(|(_, socket)| socket.local_addr()).transpose()
}

impl Cluster {
    /// Starts it.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn start() -> io::Result<Cluster> {
        let configured = |assignments: &[String]| {
            Settings::load(None, assignments)
                .map_err(|errors| io::Error::other(errors[0].to_string()))
        };
        let settings = configured(&["queue_listen=127.0.0.1:0".into()])?;
        let metrics = Metrics::default();
        let Embedded { addresses, queue: shared_queue, .. } =
            Embedded::start(&settings, local_handles_max(&settings), Vec::new(), &[], &metrics)?;
        let queue = addresses[0];
        let mut providers = Vec::new();
        for (name, millis) in PROVIDERS {
            let provider = Provider::start(name, millis)?;
            let monitor_daemon = monitor::MonitorDaemon::new(configured(&[
                format!("service_web_provider={}", provider.address),
                format!("service_web_capacity={WORKERS}"),
                format!("monitor_balancers={queue}"),
            ])?)?;
            thread::spawn(move || monitor_daemon.serve());
            providers.push(provider);
        }
        let listen = |port: u16| {
            configured(&[format!("service_web_listen=127.0.0.1:{port}")]).and_then(|settings| {
                RedirectDaemon::standalone(settings, shared_queue.clone(), metrics.clone())
            })
        };
        let redirect_daemon: RedirectDaemon = listen(8080).or_else(|_| listen(0))?;
        let address = redirect_daemon.addresses[0].1;
        thread::spawn(move || redirect_daemon.serve());
        let page = start_page(metrics)?;
        Ok(Cluster { providers, queue, address, page })
    }

    fn status(&self) -> io::Result<Vec<String>> {
        let target = HostPort { host: self.queue.ip().to_string(), port: self.queue.port() };
        ControlConnection::connect(target)?
            .ask(&format!("pegasus://{}/status?service=web", self.queue))
    }

    /// Waits until all providers have offered tickets.
    ///
    /// # Errors
    /// They have not, or the queue does not answer.
    pub fn wait(&self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < STARTUP_MAX {
            let offers = |line: &String| {
                line.starts_with("provider ") && key_value::find(line, "tickets") != Some("0")
            };
            if self.status()?.iter().filter(|line| offers(line)).count() == self.providers.len() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the providers did not register"))
    }

    /// The table of the providers.
    ///
    /// # Errors
    /// The queue does not answer.
    pub fn table(&self) -> io::Result<Vec<String>> {
        Ok(self.rows()?.1)
    }

    /// Requests that each provider has answered, and the table.
    ///
    /// # Errors
    /// The queue does not answer.
    pub fn rows(&self) -> io::Result<(Vec<u64>, Vec<String>)> {
        let status = self.status()?;
        let row = |provider: &Provider| {
            let address = provider.address.to_string();
            let line =
                status.iter().find(|line| key_value::find(line, "address") == Some(&address));
            let number = |key| {
                line.and_then(|line| key_value::find(line, key)?.parse().ok()).unwrap_or(0u64)
            };
            (number("tickets"), number("active"), provider.served() as u64)
        };
        let rows: Vec<_> = self.providers.iter().map(row).collect();
        let total: u64 = rows.iter().map(|(_, _, served)| served).sum();
        let mut table = vec![format!(
            "{:<24}{:>9}{:>8}{:>10}{:>8}",
            "provider", "tickets", "active", "requests", "share"
        )];
        for (provider, (tickets, active, served)) in self.providers.iter().zip(&rows) {
            let share = (served * 1000 + total / 2) / total.max(1);
            let name = format!("{} {}", provider.name, provider.address);
            table.push(format!(
                "{name:<24}{tickets:>9}{active:>8}{served:>10}{:>5}.{}%",
                share / 10,
                share % 10
            ));
        }
        Ok((rows.into_iter().map(|(_, _, served)| served).collect(), table))
    }
}
