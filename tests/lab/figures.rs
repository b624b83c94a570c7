//! What came of a run.
//!
//! Owns the counting of answers and times. Judges nothing.

use super::cluster::Cluster;
use super::setting::Setting;
use pegasus_core::base::time::Span;

/// Times in milliseconds; all of measured requests only.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub came: u64,
    pub refused: u64,
    /// Connections that could not be made.
    pub retried: u64,
    /// Requests whose provider died under them.
    pub lost: u64,
    /// Requests that were answered with an error, or never.
    pub failed: u64,
    /// Requests that found nobody alive.
    pub unserved: u64,
    /// Requests that began where all CPUs had one already.
    pub over: u64,
    good_within: Span,
    good: u64,
    times: Vec<f64>,
    /// What answers took beyond their work at speed 1, in ms.
    waits: Vec<f64>,
    /// Mean tickets of a bid, by provider.
    pub slots: Vec<f64>,
    /// Requests in progress in parts of the capacity of the latest bid, at most.
    pub overshoot: f64,
    /// How long after its last ticket a provider got its last grant.
    pub late_grants: Vec<Span>,
    /// Grants by provider.
    pub grants: Vec<u64>,
    pub messages: u64,
}

impl Figures {
    pub fn new(setting: &Setting) -> Figures {
        Figures { good_within: setting.good, ..Figures::default() }
    }

    pub fn came(&mut self, measured: bool) {
        self.came += u64::from(measured);
    }

    pub fn answered(&mut self, took: Span, work: f64) {
        self.good += u64::from(took <= self.good_within);
        self.times.push(took.as_secs_f64() * 1000.0);
        self.waits.push(((took.as_secs_f64() - work) * 1000.0).max(0.0));
    }

    /// What only Pegasus has.
    pub fn observe(&mut self, cluster: &Cluster) {
        let ledger = &cluster.ledger;
        self.slots =
            ledger.tickets.iter().map(|(sum, bids)| *sum as f64 / (*bids).max(1) as f64).collect();
        self.overshoot = ledger.overshoot;
        self.late_grants =
            (0..self.slots.len()).map(|provider| ledger.grants_after_tickets(provider)).collect();
        self.grants.clone_from(&ledger.grants);
        self.messages = cluster.messages;
    }

    /// No more will come.
    pub fn finish(&mut self) {
        self.times.sort_unstable_by(f64::total_cmp);
        self.waits.sort_unstable_by(f64::total_cmp);
    }

    pub fn mean(&self) -> f64 {
        self.times.iter().sum::<f64>() / self.times.len().max(1) as f64
    }

    /// The time that this part of the answers did not exceed.
    pub fn quantile(&self, part: f64) -> f64 {
        let place = (self.times.len() as f64 * part).ceil() as usize;
        self.times.get(place.clamp(1, self.times.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The same of the time beyond the work at speed 1.
    pub fn wait_quantile(&self, part: f64) -> f64 {
        let place = (self.waits.len() as f64 * part).ceil() as usize;
        self.waits.get(place.clamp(1, self.waits.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn mean_wait(&self) -> f64 {
        self.waits.iter().sum::<f64>() / self.waits.len().max(1) as f64
    }

    fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.came.max(1) as f64
    }

    pub fn refused_percent(&self) -> f64 {
        self.percent(self.refused)
    }

    pub fn retried_percent(&self) -> f64 {
        self.percent(self.retried)
    }

    /// Refused, lost, failed or without provider.
    pub fn failed_percent(&self) -> f64 {
        self.percent(self.refused + self.lost + self.failed + self.unserved)
    }

    pub fn good_percent(&self) -> f64 {
        self.percent(self.good)
    }

    pub fn answered_count(&self) -> u64 {
        self.times.len() as u64
    }
}
