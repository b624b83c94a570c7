//! What all daemons share: a user to become, signals, and a budget of descriptors.
//!
//! Owns how the budget fits the configuration. Knows no command.

use super::admin;
use crate::config::settings::{QueueLocation, Settings};
use crate::config::source::ConfigSource;
use crate::logging;
use crate::os::inherit::Inherited;
use crate::os::signal::Signal;
use crate::os::{cpus, limits, log_file, notify, privileges};
use log::{error, warn};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::service_name::ServiceName;
use std::path::{Path, PathBuf};
use std::{fs, io, process};

/// What a signal asks of a daemon that is upgraded by a restart.
pub enum SignalAction {
    /// To end in good order; the second time at once.
    End,
    /// To read its configuration again.
    Reload,
}

impl SignalAction {
    /// What the daemon has to do itself. `name` is the target of log lines.
    pub fn of(signal: Signal, name: &'static str) -> Option<SignalAction> {
        match signal {
            Signal::Terminate => {
                notify::stopping();
                return Some(SignalAction::End);
            }
            Signal::Reload => return Some(SignalAction::Reload),
            Signal::Reopen => logging::reopen(),
            Signal::Upgrade => {
                warn!(target: name, "this command has no upgrade in place: restart it; clients \
                    wait")
            }
        }
        None
    }
}

/// A daemon's command line, read.
pub struct Daemon {
    /// The configuration.
    pub settings: Settings,
    /// Where it came from, to read it again.
    pub source: ConfigSource,
    /// The service of an inherited socket.
    pub service: Option<ServiceName>,
    /// What the starter left on descriptor 0.
    pub inherited: Inherited,
    /// Only print what would be sent.
    pub once: bool,
}

/// Becomes the configured user, if there is one; ports are bound by now.
///
/// # Errors
/// Returns the OS error.
pub fn become_user(settings: &Settings) -> io::Result<()> {
    let with_key = |user: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("user={user}: {error}"))
    };
    let Some(user) = &settings.user else { return Ok(()) };
    logging::give_to(user);
    if let Some(path) = &settings.pid_file {
        // What goes wrong here goes wrong again, and is logged, when the file is written.
        let file = fs::File::options().create(true).append(true).open(path);
        let _ = file.and_then(|file| log_file::give(&file, user));
    }
    privileges::become_user(user).map_err(|error| with_key(user, error))
}

/// A file with the id of this process, removed at its end.
pub struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes the file, if one is configured. If that fails clients are served anyway.
    pub fn write(path: Option<&Path>) -> PidFile {
        let Some(path) = path else { return PidFile(None) };
        if let Err(error) = fs::write(path, format!("{}\n", process::id())) {
            error!(target: "config", "pid_file={}: {error}", path.display());
            return PidFile(None);
        }
        PidFile(Some(path.to_path_buf()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(path) = &self.0 else { return };
        // A successor may have written its own id.
        let own = format!("{}\n", process::id());
        if fs::read_to_string(path).is_ok_and(|text| text == own) && fs::remove_file(path).is_err()
        {
            // The folder may belong to another user.
            let _ = fs::write(path, "");
        }
    }
}

/// Descriptors that a process needs besides those of its connections.
const DESCRIPTORS_RESERVED: u64 = 16;
/// The same for each thread of a redirector, which may take one client too many.
const DESCRIPTORS_PER_THREAD: u64 = 8;
/// Monitors that a queue in a redirector expects, as far as an eighth of the limit allows.
const MONITORS_MIN: u64 = 64;

/// Connections of those who ask for names, and some that are about to be closed.
const DNS_DESCRIPTORS: u64 = 128 + 64;

/// The file descriptors of a redirector, by use. A client that is accepted will need one
/// more for its provider, so that one is reserved.
pub struct DescriptorBudget {
    /// Clients of streams, two each.
    pub clients: usize,
    /// Pipes that long streams pass through, two each. Without one they are copied.
    pub pipes: usize,
    /// Flows of datagrams, one each.
    pub flows: usize,
}

impl DescriptorBudget {
    /// The most sockets for the datagrams of one address: a wide range of ports leaves
    /// half of the descriptors for clients, as far as that is possible.
    pub fn udp_shards_max(settings: &Settings) -> usize {
        usize::try_from(udp_shards_max(settings, limits::raise())).unwrap_or(usize::MAX)
    }

    /// Checks that the listen sockets leave descriptors for clients.
    ///
    /// # Errors
    /// How many they need, and how many there are.
    pub fn check_listeners(settings: &Settings) -> io::Result<()> {
        check_listeners(settings, limits::raise())
    }

    /// As many as are configured, as far as the limit of this process allows.
    pub fn of(settings: &Settings) -> DescriptorBudget {
        DescriptorBudget::within(settings, limits::raise())
    }

    fn within(settings: &Settings, limit: Option<u64>) -> DescriptorBudget {
        let mut clients = settings.redirect_connections_max;
        let mut flows = settings.redirect_flows_max;
        let listens = || settings.services.iter().flat_map(|service| &service.listen);
        let uses = |transport| listens().any(|listen| listen.transport == transport);
        let threads = threads(settings);
        let shards = udp_shards(settings, limit);
        let listen_sockets = listen_descriptors(settings, shards);
        let kinds = u64::from(uses(Transport::Tcp)) + u64::from(uses(Transport::Udp));
        let monitors = match settings.asked_queue() {
            QueueLocation::Embedded => MONITORS_MIN.min(limit.unwrap_or(u64::MAX) / 8),
            QueueLocation::Remote(_) => 0,
        };
        let admin = match (settings.redirect_admin.is_empty(), settings.queue_admin.is_empty()) {
            (true, true) => 0,
            _ => admin::DESCRIPTORS,
        };
        let dns = if settings.redirect_dns.is_empty() {
            0
        } else {
            // Each address has copies of two sockets, and the worker connections.
            DNS_DESCRIPTORS + DESCRIPTORS_PER_THREAD + 8 * settings.redirect_dns.len() as u64
        };
        let reserved = DESCRIPTORS_RESERVED
            + admin
            + dns
            + listen_sockets
            + threads * kinds.max(1) * DESCRIPTORS_PER_THREAD
            + monitors;
        let Some(limit) = limit else {
            return DescriptorBudget { clients, pipes: usize::MAX, flows };
        };
        let available = usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX);
        let left = match (uses(Transport::Tcp), uses(Transport::Udp)) {
            (true, true) => {
                flows = flows.min(available / 2);
                available - flows
            }
            _ => {
                flows = flows.min(available);
                available
            }
        };
        // Some are for pipes: a few long streams take much less time with them.
        clients = clients.min((left - left / 16) / 2);
        let pipes = (left - 2 * clients) / 2;
        DescriptorBudget { clients: clients.max(1), pipes, flows: flows.max(1) }
    }
}

/// How many threads accept clients.
pub fn threads(settings: &Settings) -> u64 {
    settings.redirect_threads.unwrap_or_else(cpus::threads) as u64
}

/// How many ports services listen on.
pub fn ports(settings: &Settings, transport: Transport) -> u64 {
    let listens = settings.services.iter().flat_map(|service| &service.listen);
    listens
        .filter(|listen| listen.transport == transport)
        .map(|listen| u64::from(listen.last - listen.first) + 1)
        .sum()
}

fn udp_shards_max(settings: &Settings, limit: Option<u64>) -> u64 {
    let ports = ports(settings, Transport::Udp).max(1);
    (limit.unwrap_or(u64::MAX) / 2 / (2 * ports)).max(1)
}

/// Each thread has a socket for the datagrams of an address, if there may be as many.
fn udp_shards(settings: &Settings, limit: Option<u64>) -> u64 {
    threads(settings).min(udp_shards_max(settings, limit))
}

/// The descriptors of all listen sockets: the process has them, and each worker has copies.
fn listen_descriptors(settings: &Settings, udp_shards: u64) -> u64 {
    ports(settings, Transport::Tcp) * (1 + threads(settings))
        + ports(settings, Transport::Udp) * 2 * udp_shards
}

fn check_listeners(settings: &Settings, limit: Option<u64>) -> io::Result<()> {
    let needed = listen_descriptors(settings, udp_shards(settings, limit)) + DESCRIPTORS_RESERVED;
    let Some(limit) = limit.filter(|limit| needed >= *limit) else { return Ok(()) };
    let ports = ports(settings, Transport::Tcp) + ports(settings, Transport::Udp);
    Err(io::Error::other(format!(
        "service_NAME_listen: {ports} ports need {needed} descriptors, and this process may have \
         {limit} (ulimit -n, LimitNOFILE=)"
    )))
}

/// A configured maximum that the descriptors are not enough for.
pub struct Shortage {
    /// Its key.
    pub key: &'static str,
    /// What is configured.
    pub wanted: usize,
    /// How many there can be.
    pub fit: usize,
    /// The limit of descriptors that is enough.
    pub needed: u64,
}

/// The shortage of a daemon command within this limit; a default that nearly fits is none.
pub fn shortage_within(name: &str, settings: &Settings, limit: Option<u64>) -> Option<Shortage> {
    let (key, wanted) = match name {
        "queue" => ("queue_connections_max", settings.queue_connections_max),
        "redirect" => ("redirect_connections_max", settings.redirect_connections_max),
        _ => return None,
    };
    let fit_within = |limit: Option<u64>| match name {
        "queue" => {
            let fit = limit.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_RESERVED));
            usize::try_from(fit).unwrap_or(usize::MAX)
        }
        _ => DescriptorBudget::within(settings, limit).clients,
    };
    let fit = fit_within(limit);
    if wanted <= fit.saturating_add(fit / 10) {
        return None;
    }
    const STEP: u64 = 1024;
    let mut needed = (wanted as u64).next_multiple_of(STEP);
    while fit_within(Some(needed)) < wanted {
        // In steps that grow, for a maximum may be huge.
        needed += (needed / 16).next_multiple_of(STEP);
    }
    Some(Shortage { key, wanted, fit, needed })
}

/// Connections at once to the addresses of `monitor_agent`.
pub const AGENT_CONNECTIONS_MAX: usize = 64;

/// Raises the limit of descriptors, and returns the shortage that is left.
pub fn shortage(name: &str, settings: &Settings) -> Option<Shortage> {
    shortage_within(name, settings, limits::raise())
}

/// Raises the limit of descriptors, and warns if it is still too low.
pub fn warn_about_limit(name: &str, settings: &Settings) {
    if let Some(Shortage { key, wanted, fit, .. }) = shortage(name, settings) {
        log::warn!(
            target: "limits",
            "{key}={wanted}: this process has descriptors for {fit} (ulimit -n, LimitNOFILE=)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: Option<u64>, assignments: &[&str]) -> DescriptorBudget {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        DescriptorBudget::within(&Settings::load(None, &assignments).unwrap(), limit)
    }

    #[test]
    fn a_wide_range_of_ports_has_fewer_sockets_or_an_error_with_numbers() {
        let load = |ports: &str| {
            let listen = format!("service_rtp_listen=127.0.0.1:{ports}/udp");
            Settings::load(None, &[listen, "redirect_threads=8".into()]).unwrap()
        };
        for (ports, limit, shards, fits) in [
            ("10000", Some(1024), 8, true),
            ("10000-10099", Some(1024), 2, true),
            ("10000-10599", Some(1024), 1, false),
            ("10000-10499", Some(20_000), 8, true),
            ("10000-20000", Some(20_000), 1, false),
            ("10000-20000", Some(30_000), 1, true),
            ("10000-20000", None, 8, true),
        ] {
            let settings = load(ports);
            assert_eq!(udp_shards(&settings, limit), shards, "{ports} {limit:?}");
            let checked = check_listeners(&settings, limit);
            assert_eq!(checked.is_ok(), fits, "{ports} {limit:?}: {checked:?}");
        }
        let error = check_listeners(&load("10000-20000"), Some(20_000)).unwrap_err().to_string();
        let numbers = "10001 ports need 20018 descriptors, and this process may have 20000";
        assert!(error.contains(numbers), "{error}");
    }

    #[test]
    fn the_shares_fit_into_the_limit() {
        let tcp = "service_web_listen=*:80";
        let udp = "service_dns_listen=*:53/udp";
        let two = "redirect_threads=2";
        for limit in [64, 256, 1024, 20_000] {
            let spent = |budget: &DescriptorBudget| 2 * budget.clients + 2 * budget.pipes;
            let streams = budget(Some(limit), &[tcp, two]);
            assert!(
                spent(&streams) < limit as usize && streams.clients > limit as usize / 8,
                "{limit}"
            );
            let both = budget(Some(limit), &[tcp, udp, two]);
            assert!(spent(&both) + both.flows < limit as usize && both.flows > 0, "{limit}");
            assert_eq!(budget(Some(limit), &[tcp, two, "redirect_connections_max=3"]).clients, 3);
        }
        for limit in [Some(1 << 30), None] {
            let budget = budget(limit, &[tcp, udp]);
            assert_eq!((budget.clients, budget.flows), (10_000, 16_384));
            assert!(budget.pipes > 20_000);
        }
        assert_eq!(budget(Some(0), &[tcp]).clients, 1);
    }
}
