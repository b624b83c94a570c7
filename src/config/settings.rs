//! The settings: the values of all keys.
//!
//! Owns the data and what follows from it alone. The row of a key in the table
//! describes its field.

use crate::logging::{Format, LogDestination};
use crate::net::http_check;
use crate::net::load_sampler::LoadSource;
use log::LevelFilter;
use pegasus_core::base::cidr::Cidr;
use pegasus_core::base::endpoint::{HostPort, ListenAddr, Transport, CONTROL_PORT};
use pegasus_core::base::provider::ProviderSpec;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::Span;
use pegasus_core::protocol::peer_key::{KeyRole, KeyTable, PeerKey};
use pegasus_core::protocol::proxy_header::Version;
use pegasus_core::queue::ticket_queue::QueueOptions;
use pegasus_core::redirect::flows::FlowLimits;
use pegasus_core::redirect::name_table::DnsName;
use pegasus_core::redirect::redirector::RedirectOptions;
use pegasus_core::scheduler::SchedulerName;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Which ticket queue a redirector asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueLocation {
    /// A queue that is reached by TCP.
    Remote(HostPort),
    /// A queue in the same process.
    Embedded,
}

/// The `pegasus queue` of this host, at its default address.
fn local_queue() -> HostPort {
    HostPort { host: "127.0.0.1".into(), port: CONTROL_PORT }
}

/// How a service is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// Connect to this port, or to the provider's port.
    Tcp(Option<u16>),
    /// Ask for this path over HTTP, on this port or the provider's; any 2xx or 3xx means
    /// healthy.
    Http(Option<u16>, String),
    /// Run a command; exit status 0 means healthy.
    Exec(String),
    /// Do not check.
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
            Some(("http", target)) => {
                let (port, path) = target.split_at(target.find('/').unwrap_or(target.len()));
                let port = match port.parse() {
                    _ if port.is_empty() => None,
                    Ok(port) if port > 0 => Some(port),
                    _ => return Err("not a port from 1 to 65535, then a path".into()),
                };
                if !http_check::is_path(path) {
                    return Err("not a path (http:/PATH or http:PORT/PATH)".into());
                }
                Ok(Check::Http(port, path.into()))
            }
            Some(("exec", command)) if !command.is_empty() => Ok(Check::Exec(command.into())),
            _ => Err("no such check (tcp, tcp:PORT, http:PATH, http:PORT/PATH, exec:COMMAND, off)"
                .into()),
        }
    }
}

/// Parses a list of load sources; `exec:` takes the rest of the text.
///
/// # Errors
/// Returns why the list is empty or names no source.
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

/// The values of the keys `service_NAME_…` for one service.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// NAME.
    pub name: ServiceName,
    /// Addresses for its clients.
    pub listen: Vec<ListenAddr>,
    /// Its own scheduler; none: `queue_scheduler`.
    pub scheduler: Option<SchedulerName>,
    /// How long its clients may wait for a ticket; none: `redirect_wait`.
    pub wait: Option<Span>,
    /// Whether a client address stays with its provider.
    pub affinity: bool,
    /// How long it stays after its last connection.
    pub affinity_timeout: Span,
    /// The version of the PROXY header that providers get.
    pub proxy_protocol: Option<Version>,
    /// Whether a header of version 2 identifies the connection.
    pub proxy_unique_id: bool,
    /// Networks whose PROXY header is trusted.
    pub accept_proxy: Vec<Cidr>,
    /// When its UDP flows end.
    pub udp: FlowLimits,
    /// Static providers.
    pub fallback: Vec<HostPort>,
    /// Its HTTP clients are told where to go.
    pub http_redirect: bool,
    /// The names that are answered with its providers.
    pub dns: Vec<DnsName>,
    /// How long such an answer may be kept.
    pub dns_ttl: Span,
    /// Its address on this host, if configured.
    pub provider: Option<ProviderSpec>,
    /// The host name that stands for that address, which is unknown until it was looked up.
    pub provider_name: Option<String>,
    /// Its most slots; none: as many as measured.
    pub capacity: Option<u32>,
    /// Its health check.
    pub check: Check,
    /// A key sets its check, so that it is not the default.
    pub check_chosen: bool,
    /// Time between checks; none: `monitor_interval`.
    pub check_interval: Option<Span>,
    /// Good checks in a row until it is offered again.
    pub rise: u32,
    /// Failed checks in a row until it is no longer offered.
    pub fall: u32,
    /// Whether one of the keys is set that offer it on this host. Not a key.
    pub offered: bool,
}

/// Parses a provider: an address as in messages, or a name to look up.
///
/// # Errors
/// What a provider is.
pub fn provider(text: &str) -> Result<(ProviderSpec, Option<String>), &'static str> {
    const WRONG: &str = "not a provider (IP, IP:PORT, [IPv6], [IPv6]:PORT, :PORT, HOST, HOST:PORT)";
    let wrong = match text.parse::<ProviderSpec>() {
        Ok(address) => return Ok((address, None)),
        Err(why) => why,
    };
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().map(Some).map_err(|_| WRONG)?),
        None => (text, None),
    };
    let host_port: HostPort =
        format!("{host}:{}", port.unwrap_or(CONTROL_PORT)).parse().map_err(|_| WRONG)?;
    match host_port.literal() {
        Some(_) => Err(wrong),
        None => Ok((ProviderSpec { ip: None, port }, Some(host_port.host))),
    }
}

impl ServiceSettings {
    /// Returns settings before any default is applied.
    pub(super) fn blank(name: ServiceName) -> ServiceSettings {
        ServiceSettings {
            name,
            listen: Vec::new(),
            scheduler: None,
            affinity: false,
            wait: None,
            affinity_timeout: Span::ZERO,
            proxy_protocol: None,
            proxy_unique_id: false,
            accept_proxy: Vec::new(),
            udp: FlowLimits::default(),
            fallback: Vec::new(),
            http_redirect: false,
            dns: Vec::new(),
            dns_ttl: Span::ZERO,
            provider: None,
            provider_name: None,
            capacity: None,
            check: Check::Off,
            check_chosen: false,
            check_interval: None,
            rise: 0,
            fall: 0,
            offered: false,
        }
    }

    /// Returns the check to run; none: no check. By default a provider without a port and
    /// a service that listens on UDP only have none.
    pub fn effective_check(&self) -> Option<Check> {
        let own = self.provider.and_then(|provider| provider.port);
        match self.check.clone() {
            Check::Off => None,
            Check::Tcp(None) if !self.check_chosen && self.is_udp_only() => None,
            Check::Tcp(port) => port.or(own).map(|port| Check::Tcp(Some(port))),
            Check::Http(port, path) => port.or(own).map(|port| Check::Http(Some(port), path)),
            check @ Check::Exec(_) => Some(check),
        }
    }

    fn is_udp_only(&self) -> bool {
        let mut transports = self.listen.iter().map(|listen| listen.transport);
        !self.listen.is_empty() && transports.all(|transport| transport == Transport::Udp)
    }
}

/// The whole configuration.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each field is a key of the same name, described there
pub struct Settings {
    pub log: LogDestination,
    pub log_level: LevelFilter,
    pub log_format: Format,
    pub pid_file: Option<PathBuf>,
    pub user: Option<String>,
    pub drain_timeout: Span,
    pub key_file: Option<PathBuf>,
    pub sandbox: bool,
    /// No key: the files and folders that it was read from.
    pub read_from: Vec<PathBuf>,
    /// No key: what that file holds.
    pub keys: Arc<KeyTable>,
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
    pub redirect_accept_grace: Span,
    pub redirect_splice: bool,
    pub redirect_admin: Vec<ListenAddr>,
    pub redirect_dns: Vec<ListenAddr>,
    pub monitor_balancers: Vec<HostPort>,
    pub monitor_interval: Span,
    pub monitor_load: Vec<LoadSource>,
    pub monitor_admin: Vec<ListenAddr>,
    pub monitor_agent: Vec<ListenAddr>,
    pub services: Vec<ServiceSettings>,
    /// Whether a superserver opened the sockets of this process. Not a key.
    pub under_superserver: bool,
}

impl Settings {
    /// Returns settings before any default is applied: the reader applies them, from the
    /// table of keys.
    pub(super) fn blank() -> Settings {
        Settings {
            log: LogDestination::Stderr,
            log_level: LevelFilter::Info,
            log_format: Format::Text,
            pid_file: None,
            user: None,
            drain_timeout: Span::ZERO,
            key_file: None,
            sandbox: false,
            read_from: Vec::new(),
            keys: Arc::default(),
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
            redirect_accept_grace: Span::ZERO,
            redirect_splice: true,
            redirect_admin: Vec::new(),
            redirect_dns: Vec::new(),
            monitor_balancers: Vec::new(),
            monitor_interval: Span::ZERO,
            monitor_load: Vec::new(),
            monitor_admin: Vec::new(),
            monitor_agent: Vec::new(),
            services: Vec::new(),
            under_superserver: false,
        }
    }

    /// Returns the settings of a service that the configuration names.
    pub fn service(&self, name: ServiceName) -> Option<&ServiceSettings> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Returns the key that a client of this role proves; without one it speaks plain.
    pub fn client_key(&self, role: KeyRole) -> Option<Arc<PeerKey>> {
        self.keys.first_of(&[role]).cloned()
    }

    /// Whether a command is to be run: a check, a load source, a scheduler.
    pub fn runs_commands(&self) -> bool {
        let schedules = |service: &ServiceSettings| {
            service.scheduler.as_ref().is_some_and(|scheduler| scheduler.command().is_some())
        };
        self.queue.scheduler.command().is_some()
            || self.monitor_load.iter().any(|source| matches!(source, LoadSource::Exec(_)))
            || self
                .services
                .iter()
                .any(|service| schedules(service) || matches!(service.check, Check::Exec(_)))
    }

    /// Returns the services that this host is to offer: those with a provider, a capacity or
    /// a check; if there is none, all that are named.
    pub fn to_offer(&self) -> Vec<&ServiceSettings> {
        let some = self.services.iter().any(|service| service.offered);
        self.services.iter().filter(|service| service.offered || !some).collect()
    }

    /// Returns those of them whose address is known, or left to the queue.
    pub fn offered(&self) -> Vec<&ServiceSettings> {
        let mut services = self.to_offer();
        services.retain(|service| {
            service.provider_name.is_none() || service.provider.is_some_and(|at| at.ip.is_some())
        });
        services
    }

    /// Returns the queue that a redirector asks. A daemon embeds one unless configured
    /// otherwise. Under a superserver it cannot, for there are many processes.
    pub fn asked_queue(&self) -> QueueLocation {
        match &self.redirect_queue {
            Some(queue) => queue.clone(),
            None if self.under_superserver => QueueLocation::Remote(local_queue()),
            None => QueueLocation::Embedded,
        }
    }

    /// Returns the first control address of a queue with this configuration, as reached
    /// from this host.
    pub fn own_queue(&self) -> HostPort {
        self.queue_listen.first().map_or_else(local_queue, ListenAddr::from_this_host)
    }

    /// Returns the queue that a tool asks if it is given no address.
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
    fn a_provider_is_an_address_or_a_name() {
        let spec = |text: &str| text.parse::<ProviderSpec>().unwrap();
        assert_eq!(provider("10.0.0.7:80"), Ok((spec("10.0.0.7:80"), None)));
        assert_eq!(provider("::1"), Ok((spec("::1"), None)));
        assert_eq!(provider("web-1.example:80"), Ok((spec(":80"), Some("web-1.example".into()))));
        let portless = ProviderSpec::default();
        assert_eq!(provider("web1"), Ok((portless, Some("web1".into()))));
        for wrong in
            ["", ":", "web1:", "web1:0", "web1:x", "a:b:80", "10.0.0", "0.0.0.0:80", "*:80"]
        {
            assert!(provider(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn load_sources_are_a_list_and_a_command_comes_last() {
        assert_eq!(load_sources(" loadavg"), Ok(vec![LoadSource::Loadavg]));
        let both = vec![LoadSource::File("/x".into()), LoadSource::Exec("/bin/load -a b".into())];
        assert_eq!(load_sources("file:/x exec:/bin/load -a b"), Ok(both));
        assert!(load_sources("").is_err() && load_sources("disk").is_err());
    }
}
