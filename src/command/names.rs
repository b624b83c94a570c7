//! The addresses behind the names in a monitor's configuration: every address of a balancer's
//! name is a queue, and one address of a provider's name is offered.
//!
//! Owns a thread that looks names up, because that blocks, and reconfigures the monitor when
//! addresses have changed. Balancers' names without several addresses stay names.

use crate::config::settings::Settings;
use log::{info, warn};
use pegasus_core::base::endpoint::HostPort;
use pegasus_core::base::provider::Provider;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
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
pub struct MonitorNames {
    apply: Apply,
    settings: Option<Sender<Settings>>,
}

impl MonitorNames {
    /// For a monitor that starts with these settings. `apply` gives it others.
    pub fn start(
        settings: &Settings,
        apply: impl Fn(Settings) + Send + Sync + 'static,
    ) -> MonitorNames {
        let mut names = MonitorNames { apply: Arc::new(apply), settings: None };
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
            // The connections look their names up, too, for one address each.
            Err(error) => {
                warn!(target: "monitor", "no thread to look up names: {error}");
                (self.apply)(settings);
            }
        }
    }
}

fn has_names(settings: &Settings) -> bool {
    settings.monitor_balancers.iter().any(|balancer| balancer.literal().is_none())
        || settings.services.iter().any(|service| service.provider_name.is_some())
}

fn resolve(name: &HostPort) -> Vec<SocketAddr> {
    let found = (name.host.as_str(), name.port).to_socket_addrs();
    found.map(Iterator::collect).unwrap_or_default()
}

/// Returns these settings with the addresses of providers' names, looked up once. It blocks.
pub fn resolved(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    ProviderNames::default().look_up(&mut settings, resolve);
    settings
}

fn run(
    mut settings: Settings,
    changes: &Receiver<Settings>,
    apply: &(dyn Fn(Settings) + Send + Sync),
) {
    let mut known = HashMap::new();
    let mut provider_names = ProviderNames::default();
    let mut current = addresses(&settings);
    let mut reloaded = false;
    loop {
        let mut all_found = expand_all(&settings.monitor_balancers, &mut known, resolve);
        let balancers = expanded(&settings.monitor_balancers, &known);
        let mut fresh = Settings { monitor_balancers: balancers, ..settings.clone() };
        all_found &= provider_names.look_up(&mut fresh, resolve);
        if reloaded || addresses(&fresh) != current {
            current = addresses(&fresh);
            apply(fresh);
        }
        match changes.recv_timeout(if all_found { NAME_AGE } else { RETRY }) {
            Ok(changed) => (settings, reloaded) = (changed, true),
            Err(RecvTimeoutError::Timeout) => reloaded = false,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What look-ups change in the settings.
fn addresses(settings: &Settings) -> (Vec<HostPort>, Vec<Option<IpAddr>>) {
    let providers = settings.services.iter().map(|service| service.provider.and_then(|at| at.ip));
    (settings.monitor_balancers.clone(), providers.collect())
}

/// The addresses behind the names of providers.
#[derive(Default)]
struct ProviderNames {
    known: HashMap<String, IpAddr>,
    /// Names whose last look-up failed, which was logged.
    failing: HashSet<String>,
}

impl ProviderNames {
    /// Looks all names up, and puts the addresses into the settings. What was known of a name
    /// stays where that fails; returns whether none failed.
    fn look_up(
        &mut self,
        settings: &mut Settings,
        resolve: impl Fn(&HostPort) -> Vec<SocketAddr>,
    ) -> bool {
        let mut all_found = true;
        for service in &mut settings.services {
            let (Some(name), Some(provider)) = (&service.provider_name, &mut service.provider)
            else {
                continue;
            };
            // The port does not matter to a look-up; systems want one.
            let host_port = HostPort { host: name.clone(), port: provider.port.unwrap_or(1) };
            let found = self.note(name, &resolve(&host_port));
            if !found && self.failing.insert(name.clone()) {
                let until = match self.known.get(name) {
                    Some(ip) => format!("it stays {ip}"),
                    None => format!("service {} is not offered until then", service.name),
                };
                warn!(target: "monitor", "provider {name}: the name does not resolve; {until}");
            }
            all_found &= found;
            provider.ip = self.known.get(name).copied();
        }
        all_found
    }

    /// Takes the result of a look-up: of several addresses the one that is known stays.
    /// Returns whether there is one.
    fn note(&mut self, name: &str, found: &[SocketAddr]) -> bool {
        let mut usable = found.iter().map(|address| address.ip().to_canonical()).filter(|ip| {
            let provider = Provider { ip: *ip, port: None };
            provider.check_reachable().is_ok()
        });
        let before = self.known.get(name).copied();
        let Some(first) = usable.next() else { return false };
        self.failing.remove(name);
        if before != Some(first) && !usable.any(|ip| before == Some(ip)) {
            info!(target: "monitor", "provider {name} is {first}");
            self.known.insert(name.to_string(), first);
        }
        true
    }
}

/// Looks all names of balancers up. What was known of a name stays where that fails; returns
/// whether none failed.
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

    #[test]
    fn a_name_of_a_provider_is_one_address_and_stays_it_without_answers() {
        let assignments =
            ["service_web_provider=web1:80".to_string(), "service_db_provider=:1".into()];
        let unresolved = Settings::load(None, &assignments).unwrap();
        let mut names = ProviderNames::default();
        let mut look_up = |answers: &str| {
            let mut settings = unresolved.clone();
            let found: Vec<SocketAddr> =
                answers.split_whitespace().map(|word| word.parse().unwrap()).collect();
            let all_found = names.look_up(&mut settings, |name| {
                assert_eq!(name.to_string(), "web1:80");
                found.clone()
            });
            let offered: Vec<String> = settings
                .offered()
                .iter()
                .map(|service| service.provider.unwrap().to_string())
                .collect();
            (all_found, offered.join(" "))
        };
        let (unknown, known) = (":1".to_string(), "10.0.0.7:80 :1".to_string());
        assert_eq!(
            look_up(""),
            (false, unknown.clone()),
            "nothing is offered under our own address"
        );
        assert_eq!(look_up("0.0.0.0:80"), (false, unknown));
        assert_eq!(look_up("0.0.0.0:80 [::ffff:10.0.0.7]:80 10.0.0.8:80"), (true, known.clone()));
        assert_eq!(look_up("10.0.0.8:80 10.0.0.7:80"), (true, known.clone()), "others come first");
        assert_eq!(look_up(""), (false, known));
        assert_eq!(look_up("[fd00::1]:80"), (true, "[fd00::1]:80 :1".into()));
    }
}
