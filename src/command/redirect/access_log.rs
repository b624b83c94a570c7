//! The access log: what an operator reads of clients and flows.
//!
//! Owns how much of it: datagrams may come by the thousand, and from addresses
//! that do not exist.

use log::{log, log_enabled, warn, Level};
use pegasus_core::base::log_throttle::LogThrottle;
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::redirect::redirector::RedirectLog;
use std::fmt::Display;

/// How often a lack of sockets is logged.
const LOG_INTERVAL: Span = Span::from_secs(60);
/// Flows that are turned away in a second and have a line of their own each.
const REJECTED_LOGGED_MAX: usize = 100;
/// Failures that many flows notice within this time are one failure of a provider.
const FAILURE_WINDOW: Span = Span::from_secs(1);

/// What of the flows of a worker was logged already.
#[derive(Default)]
pub struct AccessLog {
    out_of_sockets: LogThrottle,
    /// Flows rejected since then.
    rejected: (Moment, usize),
    /// Failures that were logged, and when.
    recent_failures: Vec<(Provider, Moment)>,
}

impl AccessLog {
    /// Writes a line of the log, if it says something new.
    pub fn log(&mut self, note: &RedirectLog, now: Moment) {
        match note {
            RedirectLog::Closed { provider: None, .. } if !self.count_rejected(now) => return,
            RedirectLog::ProviderFailed { provider, .. } => {
                self.recent_failures.retain(|(_, since)| now.since(*since) < FAILURE_WINDOW);
                if self.recent_failures.iter().any(|(failed, _)| failed == provider) {
                    return;
                }
                self.recent_failures.push((*provider, now));
            }
            _ => {}
        }
        if let RedirectLog::Closed { outcome: Outcome::OutOfSockets, .. } = note {
            if self.out_of_sockets.allow(now, LOG_INTERVAL).is_none() {
                return;
            }
            warn!(target: "redirect", "no socket to spare for datagrams: new clients are refused");
        }
        log_note(note, false);
    }

    fn count_rejected(&mut self, now: Moment) -> bool {
        let (since, count) = &mut self.rejected;
        if now.since(*since) >= Span::from_secs(1) {
            let more = count.saturating_sub(REJECTED_LOGGED_MAX);
            if more > 0 {
                warn!(target: "redirect", "{more} more flows were refused");
            }
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= REJECTED_LOGGED_MAX
    }
}

fn or_dash(value: &Option<impl Display>) -> &dyn Display {
    value.as_ref().map_or(&"-", |value| value)
}

/// Whether clients that come and go have a line each.
pub fn is_on() -> bool {
    log_enabled!(target: "redirect", Level::Info)
}

/// Writes a line of the access log. `is_check`: the client was a check that sent
/// nothing, as some front proxies do all the time.
pub fn log_note(note: &RedirectLog, is_check: bool) {
    match note {
        RedirectLog::Closed {
            service,
            client,
            local,
            provider,
            outcome,
            sent,
            received,
            waited,
            lasted,
        } => {
            let level = match outcome {
                Outcome::NoTicket
                | Outcome::NobodyLeft
                | Outcome::QueueUnreachable
                | Outcome::QueueRefused => Level::Warn,
                _ if is_check => Level::Debug,
                _ => Level::Info,
            };
            log!(
                target: "redirect",
                level,
                "closed service={service} client={client} local={} provider={} \
                 outcome={outcome} sent={sent} received={received} waited={waited} \
                 lasted={lasted}",
                or_dash(local),
                or_dash(provider)
            );
        }
        RedirectLog::ProviderFailed { service, provider, why } => {
            let why = why.word();
            warn!(
                target: "redirect",
                "failure service={service} provider={provider} why={why}"
            );
        }
    }
}
