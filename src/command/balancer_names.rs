//! The queues behind the names in `monitor_balancers`: every address of a name is one.
//!
//! Owns a thread that looks names up, because that blocks, and reconfigures the monitor when
//! the addresses of a name have changed. Names without several addresses stay names.

use crate::config::settings::Settings;
use pegasus_core::base::endpoint::HostPort;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How old the addresses of a name may get.
const NAME_AGE: Duration = Duration::from_secs(60);
/// How soon a look-up that failed is repeated.
const RETRY: Duration = Duration::from_secs(5);
/// Addresses of one name that get tickets.
const ADDRESSES_MAX: usize = 64;

type Apply = Arc<dyn Fn(Settings) + Send + Sync>;

/// Reconfigures a monitor; its thread is there once a configuration has a name.
pub struct BalancerNames {
    apply: Apply,
    settings: Option<Sender<Settings>>,
}

impl BalancerNames {
    /// For a monitor that starts with these settings. `apply` gives it others.
    pub fn start(
        settings: &Settings,
        apply: impl Fn(Settings) + Send + Sync + 'static,
    ) -> BalancerNames {
        let mut names = BalancerNames { apply: Arc::new(apply), settings: None };
        if has_names(settings) {
            names.look_up(settings.clone());
        }
        names
    }

    /// Reconfigures the monitor, after look-ups where there are names.
    pub fn reconfigure(&mut self, settings: Settings) {
        if self.settings.is_some() || has_names(&settings) {
            self.look_up(settings);
        } else {
            (self.apply)(settings);
        }
    }

    fn look_up(&mut self, settings: Settings) {
        if let Some(thread) = &self.settings {
            let _ = thread.send(settings);
            return;
        }
        let (sender, changes) = channel();
        let apply = self.apply.clone();
        let running = settings.clone();
        let spawned = thread::Builder::new()
            .name("resolver".into())
            .spawn(move || run(running, &changes, &*apply));
        match spawned {
            Ok(_) => self.settings = Some(sender),
            // The connections look the names up, too, for one address each.
            Err(_) => (self.apply)(settings),
        }
    }
}

fn has_names(settings: &Settings) -> bool {
    settings.monitor_balancers.iter().any(|balancer| balancer.literal().is_none())
}

fn run(
    mut settings: Settings,
    changes: &Receiver<Settings>,
    apply: &(dyn Fn(Settings) + Send + Sync),
) {
    let resolve = |name: &HostPort| {
        let found = (name.host.as_str(), name.port).to_socket_addrs();
        found.map(Iterator::collect).unwrap_or_default()
    };
    let mut known = HashMap::new();
    let mut current = settings.monitor_balancers.clone();
    let mut reloaded = false;
    loop {
        let all_found = expand_all(&settings.monitor_balancers, &mut known, resolve);
        let balancers = expanded(&settings.monitor_balancers, &known);
        if reloaded || balancers != current {
            current.clone_from(&balancers);
            let expanded = Settings { monitor_balancers: balancers, ..settings.clone() };
            apply(expanded);
        }
        match changes.recv_timeout(if all_found { NAME_AGE } else { RETRY }) {
            Ok(changed) => (settings, reloaded) = (changed, true),
            Err(RecvTimeoutError::Timeout) => reloaded = false,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Looks all names up. What was known of a name stays where that fails; returns whether none
/// failed.
fn expand_all(
    balancers: &[HostPort],
    known: &mut HashMap<String, Vec<SocketAddr>>,
    resolve: impl Fn(&HostPort) -> Vec<SocketAddr>,
) -> bool {
    let mut all_found = true;
    for balancer in balancers.iter().filter(|balancer| balancer.literal().is_none()) {
        let found = one_family(resolve(balancer));
        all_found &= !found.is_empty();
        if !found.is_empty() {
            known.insert(balancer.to_string(), found);
        }
    }
    all_found
}

/// A host with an address of each family is one queue, not two: the family with more
/// addresses counts, or that of the first.
fn one_family(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = found.first().map(SocketAddr::is_ipv4) else { return found };
    let v4 = found.iter().filter(|address| address.is_ipv4()).count();
    let v6 = found.len() - v4;
    let takes_v4 = if v4 == v6 { first } else { v4 > v6 };
    let mut addresses: Vec<SocketAddr> =
        found.into_iter().filter(|address| address.is_ipv4() == takes_v4).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The balancers, each name with several addresses replaced by these.
fn expanded(balancers: &[HostPort], known: &HashMap<String, Vec<SocketAddr>>) -> Vec<HostPort> {
    let mut all: Vec<HostPort> = Vec::new();
    for balancer in balancers {
        let addresses = known.get(&balancer.to_string()).filter(|found| found.len() > 1);
        let each = match addresses {
            Some(addresses) => addresses
                .iter()
                .map(|at| HostPort { host: at.ip().to_string(), port: at.port() })
                .collect(),
            None => vec![balancer.clone()],
        };
        for one in each {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<HostPort> {
        text.split(' ').map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_of_a_name_is_a_balancer_and_stays_one_without_answers() {
        let addresses = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|word| word.parse().unwrap()).collect()
        };
        let names = list("10.0.0.9:7347 lb.example:7347 one.example:7347");
        let mut known = HashMap::new();
        let answers = |several: &'static str| {
            move |name: &HostPort| {
                addresses(if name.host == "lb.example" { several } else { "10.0.0.3:7347" })
            }
        };
        let all = list("10.0.0.9:7347 10.0.0.1:7347 10.0.0.2:7347 one.example:7347");
        assert!(expand_all(&names, &mut known, answers("10.0.0.2:7347 10.0.0.1:7347")));
        assert_eq!(expanded(&names, &known), all);
        assert!(!expand_all(&names, &mut known, answers("")));
        assert_eq!(expanded(&names, &known), all);
        // One host with both families is one balancer.
        assert!(expand_all(&names, &mut known, answers("[fd00::1]:7347 10.0.0.1:7347")));
        assert_eq!(expanded(&names, &known), names);
    }
}
