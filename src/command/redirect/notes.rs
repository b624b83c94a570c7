//! What an operator reads of clients and flows.
//!
//! Owns how much of it: datagrams may come by the thousand, and from addresses
//! that do not exist.

use log::{log, warn, Level};
use pegasus_core::base::address::Provider;
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::redirector::RedirectLog;

/// How often it is told that the system has no socket to spare.
const TELL: Span = Span::from_secs(60);
/// Flows that are turned away in a second and have a line of their own each.
const TURNED_AWAY_TOLD: usize = 100;
/// What many flows notice within this time is one death of a provider.
const DEATH: Span = Span::from_secs(1);

/// See the file's head.
#[derive(Default)]
pub struct Notes {
    out_of_sockets: LogThrottle,
    /// Flows turned away since then.
    turned_away: (Moment, usize),
    /// Whose death was told, and when.
    dead: Vec<(Provider, Moment)>,
}

impl Notes {
    /// Writes a line of the log, if it says something new.
    pub fn tell(&mut self, note: &RedirectLog, now: Moment) {
        match note {
            RedirectLog::Closed { provider: None, .. } if !self.tells_of_one_turned_away(now) => return,
            RedirectLog::ProviderFailed { provider, .. } => {
                self.dead.retain(|(_, since)| now.since(*since) < DEATH);
                if self.dead.iter().any(|(dead, _)| dead == provider) {
                    return;
                }
                self.dead.push((*provider, now));
            }
            _ => {}
        }
        if let RedirectLog::Closed { outcome: Outcome::OutOfSockets, .. } = note {
            if self.out_of_sockets.allow(now, TELL).is_none() {
                return;
            }
            warn!(target: "redirect", "no socket to spare for datagrams: new clients are refused");
        }
        tell(note, false);
    }

    fn tells_of_one_turned_away(&mut self, now: Moment) -> bool {
        let (since, count) = &mut self.turned_away;
        if now.since(*since) >= Span::from_secs(1) {
            let more = count.saturating_sub(TURNED_AWAY_TOLD);
            if more > 0 {
                warn!(target: "redirect", "{more} more flows were turned away");
            }
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= TURNED_AWAY_TOLD
    }
}

/// Writes what an operator may want to read. `idle`: of somebody who came to say
/// nothing, as a check does all the time.
pub fn tell(note: &RedirectLog, idle: bool) {
    match note {
        RedirectLog::Closed { service, client, provider, outcome, sent, received, waited, lasted } => {
            let level = match outcome {
                Outcome::NoTicket | Outcome::NobodyLeft | Outcome::QueueUnreachable | Outcome::QueueRefused => {
                    Level::Warn
                }
                _ if idle => Level::Debug,
                _ => Level::Info,
            };
            log!(
                target: "redirect",
                level,
                "closed service={service} client={client} provider={} outcome={outcome} sent={sent} \
                 received={received} waited={waited} lasted={lasted}",
                provider.map_or("-".to_string(), |provider| provider.to_string())
            );
        }
        RedirectLog::ProviderFailed { service, provider, why } => {
            warn!(target: "redirect", "failure service={service} provider={provider} why={}", why.word());
        }
    }
}
