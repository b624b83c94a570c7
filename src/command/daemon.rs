//! What all daemons have: a user to become, signals, and descriptors that may not
//! be enough for the configuration.
//!
//! Owns how the limits fit it. Knows no command.

use crate::config::settings::{QueueAt, Settings};
use crate::config::source::Source;
use crate::logging;
use crate::os::inherit::Inherited;
use crate::os::signal::Signal;
use crate::os::{cpus, limits, user};
use log::warn;
use pegasus_core::base::address::{ListenAddr, Transport};
use pegasus_core::base::service_name::ServiceName;
use std::io;

/// What a signal wants of a daemon that is upgraded by a restart.
pub enum Wish {
    /// To end in good order; the second time at once.
    End,
    /// To read its configuration again.
    Reload,
}

impl Wish {
    /// What of it is left to the daemon, whose `name` the log knows.
    pub fn of(signal: Signal, name: &'static str) -> Option<Wish> {
        match signal {
            Signal::Terminate => return Some(Wish::End),
            Signal::Reload => return Some(Wish::Reload),
            Signal::Reopen => logging::reopen(),
            Signal::Upgrade => warn!(target: name, "no upgrade in place: restart it, clients wait meanwhile"),
        }
        None
    }
}

/// A daemon's command line, read.
pub struct Daemon {
    /// The configuration.
    pub settings: Settings,
    /// Where it came from, to read it again.
    pub source: Source,
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
/// What the system says.
pub fn become_user(settings: &Settings) -> io::Result<()> {
    let with_key = |user: &str, error: io::Error| io::Error::new(error.kind(), format!("user={user}: {error}"));
    settings.user.as_ref().map_or(Ok(()), |user| user::become_user(user).map_err(|error| with_key(user, error)))
}

/// Descriptors that a process needs besides those of its connections.
const DESCRIPTORS_ASIDE: u64 = 16;
/// The same for each thread of a redirector, which may take one client too many.
const DESCRIPTORS_A_THREAD: u64 = 8;
/// Monitors that a queue in a redirector expects, as far as an eighth of the limit allows.
const MONITORS: u64 = 64;

/// What the descriptors of a redirector are for. Whoever is accepted will need
/// one more for its provider, so that is not given to anybody else.
pub struct Shares {
    /// Clients of streams, two each.
    pub clients: usize,
    /// Pipes that long streams pass through, two each. Without one they are copied.
    pub pipes: usize,
    /// Flows of datagrams, one each.
    pub flows: usize,
}

impl Shares {
    /// As many as are configured, as far as the limit of this process allows.
    pub fn of(settings: &Settings) -> Shares {
        Shares::within(settings, limits::raise())
    }

    fn within(settings: &Settings, limit: Option<u64>) -> Shares {
        let (mut clients, mut flows) = (settings.redirect_connections_max, settings.redirect_flows_max);
        let listens = || settings.services.iter().flat_map(|service| &service.listen);
        let speaks = |transport| listens().any(|listen| listen.transport == transport);
        let threads = settings.redirect_threads.unwrap_or_else(cpus::threads) as u64;
        // Each loop has a copy of a socket for streams, or a socket of its own for datagrams.
        let sockets = |listen: &ListenAddr| (if listen.transport == Transport::Tcp { 1 } else { threads }) + threads;
        let doors: u64 = listens().map(|listen| (u64::from(listen.last - listen.first) + 1) * sockets(listen)).sum();
        let kinds = u64::from(speaks(Transport::Tcp)) + u64::from(speaks(Transport::Udp));
        let monitors = match settings.asked_queue() {
            QueueAt::Embedded => MONITORS.min(limit.unwrap_or(u64::MAX) / 8),
            QueueAt::Target(_) => 0,
        };
        let aside = DESCRIPTORS_ASIDE + doors + threads * kinds.max(1) * DESCRIPTORS_A_THREAD + monitors;
        let Some(limit) = limit else { return Shares { clients, pipes: usize::MAX, flows } };
        let most = usize::try_from(limit.saturating_sub(aside)).unwrap_or(usize::MAX);
        let left = match (speaks(Transport::Tcp), speaks(Transport::Udp)) {
            (true, true) => {
                flows = flows.min(most / 2);
                most - flows
            }
            _ => {
                flows = flows.min(most);
                most
            }
        };
        // Some are for pipes: a few long streams take much less time with them.
        clients = clients.min((left - left / 16) / 2);
        let pipes = (left - 2 * clients) / 2;
        Shares { clients: clients.max(1), pipes, flows: flows.max(1) }
    }
}

/// Raises the limit of descriptors, and says so if it is still too low.
pub fn warn_of_limit(name: &str, settings: &Settings) {
    let (key, wanted, fit) = match name {
        "queue" => {
            let fit = limits::raise().map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_ASIDE));
            let fit = usize::try_from(fit).unwrap_or(usize::MAX);
            ("queue_connections_max", settings.queue_connections_max, fit)
        }
        "redirect" => ("redirect_connections_max", settings.redirect_connections_max, Shares::of(settings).clients),
        _ => return,
    };
    // A default that nearly fits is no news.
    if wanted > fit.saturating_add(fit / 10) {
        log::warn!(
            target: "limits",
            "{key}={wanted}: the descriptors of this process are enough for {fit} (ulimit -n, LimitNOFILE=)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(limit: Option<u64>, assignments: &[&str]) -> Shares {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        Shares::within(&Settings::load(None, &assignments).unwrap(), limit)
    }

    #[test]
    fn the_shares_fit_into_the_limit() {
        let (tcp, udp) = ("service_web_listen=*:80", "service_dns_listen=*:53/udp");
        let two = "redirect_threads=2";
        for limit in [64, 256, 1024, 20_000] {
            let spent = |shares: &Shares| 2 * shares.clients + 2 * shares.pipes;
            let streams = shares(Some(limit), &[tcp, two]);
            assert!(spent(&streams) < limit as usize && streams.clients > limit as usize / 8, "{limit}");
            let both = shares(Some(limit), &[tcp, udp, two]);
            assert!(spent(&both) + both.flows < limit as usize && both.flows > 0, "{limit}");
            assert_eq!(shares(Some(limit), &[tcp, two, "redirect_connections_max=3"]).clients, 3);
        }
        for limit in [Some(1 << 30), None] {
            let shares = shares(limit, &[tcp, udp]);
            assert_eq!((shares.clients, shares.flows), (10_000, 16_384));
            assert!(shares.pipes > 20_000);
        }
        assert_eq!(shares(Some(0), &[tcp]).clients, 1);
    }
}
