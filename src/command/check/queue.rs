//! The queues that this host asks or sends tickets to.
//!
//! Owns a service for tests: it gets a ticket, gives it, and has none again. A queue of this
//! host that does not run yet is no finding.

use super::finding::{Finding, Part};
use crate::command::send::{key_for, ControlConnection};
use crate::config::settings::{QueueLocation, Settings};
use pegasus_core::base::endpoint::HostPort;
use pegasus_core::base::key_value;
use pegasus_core::base::provider::Provider;
use pegasus_core::protocol::peer_key::KeyRole;
use std::io;

/// Always the same, so that many checks are one service of a queue.
const SERVICE: &str = "pegasus-check";
/// No client connects to it.
const PROVIDER: &str = ":9";
const TICKET: &str = "ticket?service=pegasus-check&provider=:9&tickets=1&capacity=1&lease=5s";

/// Asks each queue for what this host will want of it.
pub fn round_trips(settings: &Settings, part: &Part) -> Vec<Finding> {
    let mut findings = Vec::new();
    let asked = settings.usual_queue();
    let remote = matches!(settings.redirect_queue, Some(QueueLocation::Remote(_)));
    if part.redirects || part.has_queue || remote {
        let key = if remote { "redirect_queue" } else { "queue_listen" };
        let queue = Queue { settings, address: &asked, key };
        findings.extend(match queue.round_trip(false) {
            Err(Failure::Unreachable(_)) if !remote => None,
            Err(failure) => Some(queue.finding(failure, "queue_allow_next", "balancer")),
            Ok(()) => None,
        });
    }
    for balancer in settings.monitor_balancers.iter().filter(|_| part.offers) {
        let queue = Queue { settings, address: balancer, key: "monitor_balancers" };
        findings.extend(match queue.round_trip(true) {
            Err(Failure::Unreachable(_)) if part.has_queue && *balancer == asked => None,
            Err(failure) => Some(queue.finding(failure, "queue_allow_ticket", "provider")),
            Ok(()) => None,
        });
    }
    findings
}

enum Failure {
    Unreachable(io::Error),
    /// The message and the answer.
    Refused(&'static str, String),
}

struct Queue<'a> {
    settings: &'a Settings,
    address: &'a HostPort,
    /// The key that names it.
    key: &'static str,
}

impl Queue<'_> {
    /// Sends these messages, each on a connection with the key that it needs.
    fn ask(&self, message: &'static str) -> Result<String, Failure> {
        let url = format!("pegasus://{}/{message}", self.address);
        let key = key_for(&self.settings.keys, &url);
        let answer = ControlConnection::connect_with(self.address.clone(), key)
            .and_then(|mut connection| connection.ask(&url))
            .map_err(Failure::Unreachable)?;
        Ok(answer.into_iter().next().unwrap_or_default())
    }

    /// A ticket for the service for tests, the question for it, and its withdrawal.
    /// `offers`: whether this host has to be allowed the ticket, and not the question.
    fn round_trip(&self, offers: bool) -> Result<(), Failure> {
        let ok = |answer: &str| answer == "ok" || answer.starts_with("ok ");
        let denied = |answer: &str| answer.starts_with("error denied");
        let key = self.settings.client_key(KeyRole::Provider);
        if offers && key.is_some_and(|key| !key.services.is_empty()) {
            // The key is bound to other services: that it is taken is all that can be seen.
            return self.ask("withdraw?service=pegasus-check&provider=:9").map(drop);
        }
        let is_here = self.address.host == "localhost"
            || self.address.literal().is_some_and(|at| at.ip().is_loopback());
        let mut offered = false;
        if offers || is_here {
            let answer = self.ask(TICKET)?;
            offered = ok(&answer);
            if offers && !offered {
                return Err(Failure::Refused("ticket", answer));
            }
        }
        let given = self.ask("next?service=pegasus-check")?;
        if offered {
            let answer = self.ask("withdraw?service=pegasus-check&provider=:9")?;
            if !ok(&answer) {
                return Err(Failure::Refused("withdraw", answer));
            }
        }
        let good = !offered || given.ends_with(PROVIDER) || (offers && denied(&given));
        if good && (offers || !denied(&given)) {
            Ok(())
        } else {
            Err(Failure::Refused("next", given))
        }
    }

    fn finding(&self, failure: Failure, allow: &str, role: &str) -> Finding {
        let (key, address) = (self.key, self.address);
        let place = format!("{key}={address}");
        match failure {
            Failure::Unreachable(error) => {
                let what = format!("this queue cannot be reached: {error}");
                let mend = format!(
                    "{key}=…   (where `pegasus queue` or `pegasus redirect` runs)\n\
                     queue_listen=*:{}   (there, to be reached from other hosts)",
                    address.port
                );
                Finding::new("queue", place, what, mend).unreachable()
            }
            Failure::Refused(message, answer) => {
                let what = format!("this queue refuses `{message}`: {answer}");
                let mend = if answer.starts_with("error denied") {
                    format!(
                        "{allow}=\"127.0.0.0/8 ::1 NETWORK\"   (there, with the network of this \
                         host)\n\
                         key_file=…   (or a key of role {role}, here and there)"
                    )
                } else {
                    String::new()
                };
                Finding::new("queue", place, what, mend)
            }
        }
    }
}

/// Services and providers of the queue that is asked, if it runs and tells.
pub fn providers(settings: &Settings) -> Vec<(String, Provider)> {
    let queue = settings.usual_queue();
    let url = format!("pegasus://{queue}/status");
    let key = key_for(&settings.keys, &url);
    if settings.key_file.is_some() && key.is_none() {
        return Vec::new();
    }
    let lines = ControlConnection::connect_with(queue, key).and_then(|mut queue| queue.ask(&url));
    let provider = |line: &String| {
        let offer = line.strip_prefix("provider ")?;
        let service = key_value::find(offer, "service").filter(|name| *name != SERVICE)?;
        Some((service.to_string(), key_value::find(offer, "address")?.parse().ok()?))
    };
    lines.unwrap_or_default().iter().filter_map(provider).collect()
}
