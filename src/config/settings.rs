//! The settings: what the keys say, as values.
//!
//! Owns the data and what follows from it alone. Each field's meaning is in its key's
//! row of the table.

use crate::logging::LogDestination;
use crate::net::load_sampler::LoadSource;
use log::LevelFilter;
use pegasus_core::base::address::{Cidr, HostPort, ListenAddr, ProviderSpec, CONTROL_PORT};
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::proxy_header::Version;
use pegasus_core::queue::ticket_queue::QueueOptions;
use pegasus_core::redirect::flows::FlowLimits;
use pegasus_core::redirect::redirector::RedirectOptions;
use pegasus_core::scheduler::registry::SchedulerName;
use std::str::FromStr;

/// Which ticket queue a redirector asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueLocation {
    /// One that is reached by TCP.
    Remote(HostPort),
    /// One in the same process.
    Embedded,
}

/// The `pegasus queue` of this host, at the address that it has by default.
fn local_queue() -> HostPort {
    HostPort { host: "127.0.0.1".into(), port: CONTROL_PORT }
}

/// How a service is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// By connecting to it, on this port or the provider's.
    Tcp(Option<u16>),
    /// By a command that ends well.
    Exec(String),
    /// Not at all.
    Off,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Check, String> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Check::Tcp(None)),
            None if text == "off" => Ok(Check::Off),
            Some(("tcp", port)) => match port.parse() {
                Ok(port) if port > 0 => Ok(Check::Tcp(Some(port))),
                _ => Err("not a port from 1 to 65535".into()),
            },
            Some(("exec", command)) if !command.is_empty() => Ok(Check::Exec(command.into())),
            _ => Err("no such check (tcp, tcp:PORT, exec:COMMAND, off)".into()),
        }
    }
}

/// Load sources as they are written: a list in which `exec:` takes all that follows.
pub fn load_sources(text: &str) -> Result<Vec<LoadSource>, String> {
    let (words, command) = match text.find("exec:") {
        Some(at) if at == 0 || text[..at].ends_with(char::is_whitespace) => text.split_at(at),
        _ => (text, ""),
    };
    let mut sources: Vec<LoadSource> =
        words.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    if !command.is_empty() {
        sources.push(command.trim_end().parse()?);
    }
    if sources.is_empty() {
        return Err("empty (cpu, loadavg, psi, file:PATH, exec:COMMAND)".into());
    }
    Ok(sources)
}

/// What the keys `service_NAME_…` say of one service.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// NAME.
    pub name: ServiceName,
    /// Where its clients come.
    pub listen: Vec<ListenAddr>,
    /// Its own scheduler.
    pub scheduler: Option<SchedulerName>,
    /// Whether a client's address keeps its provider, and for how long after it came.
    pub affinity: bool,
    /// See there.
    pub affinity_timeout: Span,
    /// How its providers are told who a client is.
    pub proxy_protocol: Option<Version>,
    /// Who is believed in telling it.
    pub accept_proxy: Vec<Cidr>,
    /// When its flows of datagrams end.
    pub udp: FlowLimits,
    /// Static providers.
    pub fallback: Vec<HostPort>,
    /// Where it is on this host, if that is said.
    pub provider: Option<ProviderSpec>,
    /// Its most slots; none for `auto`.
    pub capacity: Option<u32>,
    /// Its check.
    pub check: Check,
    /// How often it is checked, if that is said.
    pub check_interval: Option<Span>,
    /// Good checks to come back.
    pub rise: u32,
    /// Bad checks to leave.
    pub fall: u32,
    /// No key: one of those is set that say that this host offers it.
    pub offered: bool,
}

impl ServiceSettings {
    /// Before any default is applied.
    pub(super) fn blank(name: ServiceName) -> ServiceSettings {
        ServiceSettings {
            name,
            listen: Vec::new(),
            scheduler: None,
            affinity: false,
            affinity_timeout: Span::ZERO,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
            udp: FlowLimits::default(),
            fallback: Vec::new(),
            provider: None,
            capacity: None,
            check: Check::Off,
            check_interval: None,
            rise: 0,
            fall: 0,
            offered: false,
        }
    }

    /// How it is checked; none: not at all, as a provider without a port that
    /// nothing else is said of.
    pub fn effective_check(&self) -> Option<Check> {
        let own = self.provider.and_then(|provider| provider.port);
        match self.check.clone() {
            Check::Off => None,
            Check::Tcp(port) => port.or(own).map(|port| Check::Tcp(Some(port))),
            check @ Check::Exec(_) => Some(check),
        }
    }
}

/// The whole configuration.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each field is a key of the same name, described there
pub struct Settings {
    pub log: LogDestination,
    pub log_level: LevelFilter,
    pub user: Option<String>,
    pub drain_timeout: Span,
    pub metrics_per_provider: bool,
    pub queue_listen: Vec<ListenAddr>,
    pub queue: QueueOptions,
    pub queue_connections_max: usize,
    pub queue_admin: Vec<ListenAddr>,
    /// None: [`Settings::asked_queue`] decides.
    pub redirect_queue: Option<QueueLocation>,
    pub redirect: RedirectOptions,
    pub redirect_threads: Option<usize>,
    pub redirect_idle_timeout: Span,
    pub redirect_half_closed_timeout: Span,
    pub redirect_connections_max: usize,
    pub redirect_per_source_max: usize,
    pub redirect_flows_max: usize,
    pub redirect_linger: Span,
    pub redirect_splice: bool,
    pub redirect_admin: Vec<ListenAddr>,
    pub monitor_balancers: Vec<HostPort>,
    pub monitor_interval: Span,
    pub monitor_load: Vec<LoadSource>,
    pub monitor_admin: Vec<ListenAddr>,
    pub services: Vec<ServiceSettings>,
    /// No key: a superserver opened the sockets of this process.
    pub under_superserver: bool,
}

impl Settings {
    /// Before any default is applied: the reader does that, from the table of keys.
    pub(super) fn blank() -> Settings {
        Settings {
            log: LogDestination::Stderr,
            log_level: LevelFilter::Info,
            user: None,
            drain_timeout: Span::ZERO,
            metrics_per_provider: true,
            queue_listen: Vec::new(),
            queue: QueueOptions::default(),
            queue_connections_max: 0,
            queue_admin: Vec::new(),
            redirect_queue: None,
            redirect: RedirectOptions::default(),
            redirect_threads: None,
            redirect_idle_timeout: Span::ZERO,
            redirect_half_closed_timeout: Span::ZERO,
            redirect_connections_max: 0,
            redirect_per_source_max: 0,
            redirect_flows_max: 0,
            redirect_linger: Span::ZERO,
            redirect_splice: true,
            redirect_admin: Vec::new(),
            monitor_balancers: Vec::new(),
            monitor_interval: Span::ZERO,
            monitor_load: Vec::new(),
            monitor_admin: Vec::new(),
            services: Vec::new(),
            under_superserver: false,
        }
    }

    /// The settings of a service, if it is named in the configuration.
    pub fn service(&self, name: ServiceName) -> Option<&ServiceSettings> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The services that this host offers: those with a provider, a capacity
    /// or a check; if there is none, all that are named.
    pub fn offered(&self) -> Vec<&ServiceSettings> {
        let some = self.services.iter().any(|service| service.offered);
        self.services.iter().filter(|service| service.offered || !some).collect()
    }

    /// The queue that a redirector asks. A daemon has one of its own unless it is
    /// told otherwise; a superserver starts too many processes for that.
    pub fn asked_queue(&self) -> QueueLocation {
        match &self.redirect_queue {
            Some(queue) => queue.clone(),
            None if self.under_superserver => QueueLocation::Remote(local_queue()),
            None => QueueLocation::Embedded,
        }
    }

    /// The first control address of a queue with this configuration, as this host
    /// reaches it.
    pub fn own_queue(&self) -> HostPort {
        self.queue_listen.first().map_or_else(local_queue, ListenAddr::from_this_host)
    }

    /// The queue that a tool asks which is told no address.
    pub fn usual_queue(&self) -> HostPort {
        match &self.redirect_queue {
            Some(QueueLocation::Remote(queue)) => queue.clone(),
            Some(QueueLocation::Embedded) | None => self.own_queue(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_sources_are_a_list_and_a_command_comes_last() {
        assert_eq!(load_sources(" loadavg"), Ok(vec![LoadSource::Loadavg]));
        let both = vec![LoadSource::File("/x".into()), LoadSource::Exec("/bin/load -a b".into())];
        assert_eq!(load_sources("file:/x exec:/bin/load -a b"), Ok(both));
        assert!(load_sources("").is_err() && load_sources("disk").is_err());
    }
}
