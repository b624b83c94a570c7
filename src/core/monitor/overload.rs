//! The evidence that a service has more requests at once than are of use.
//!
//! Owns the times of a service's requests, without queues and lately, and the
//! ceiling that follows from them, if any. By Little's law a service needs as
//! many requests in progress as it completes a second, times what one takes
//! without queues. Only where far more are in progress, the CPUs are full, and
//! the times of those that end have grown, is more at once of no use.
//! Connections that merely stay raise what is in progress, but neither the
//! times of those that end nor what is of use. Reads nothing itself.

use super::capacity::{Average, ACTIVE_MIN, UTILISATION_MIN};
use crate::base::sample::Sample;
use crate::base::time::Span;

/// A ceiling is so many times the slots, beside connections that stay.
pub const DEPTH: f64 = 4.0;
/// The CPUs count as full.
const FULL: f64 = 0.9;
/// While a ceiling is in force and used, less than that says that it is too low.
const IDLE: f64 = 0.75;
/// Times are longer than without queues by this factor.
const SLOWER: f64 = 2.0;
/// How long the evidence must last.
const PROOF: Span = Span::from_millis(1500);
/// How long there must be none before the ceiling is lifted.
const CALM: Span = Span::from_secs(5);
/// How fast rates are learned, and connections that stay.
const LEARNING: Span = Span::from_secs(10);
/// The times without queues are the shortest lately; a second makes them longer
/// by this factor, so that a service that became slower is believed in the end.
const FORGETTING: f64 = 1.01;
/// So many requests make what a request takes lately, and this part of them
/// something to go by.
const SAMPLES: f64 = 200.0;
const KNOWN: f64 = 0.1;
/// Requests that must have ended in an interval to tell anything about times.
const ENDED_MIN: f64 = 5.0;

/// What the queues told of a service's requests over one interval.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Requests {
    /// Mean requests in progress.
    pub active: f64,
    /// Requests in progress at the end.
    pub now: f64,
    /// Requests that ended, and the sum of their times, in seconds, and of the
    /// natural logarithms of these.
    pub ended: f64,
    /// See above.
    pub seconds: f64,
    /// See above.
    pub logarithms: f64,
    /// Requests that found no place.
    pub waiting: f64,
}

/// Decides whether a service has more requests at once than are of use.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// Requests completed a second.
    rate: Average,
    /// The mean time of a request lately, and how much is known of it, 0..=1.
    lately: (f64, f64),
    /// The mean time of a request without queues, in seconds; 0: not known.
    time: f64,
    /// The usual time without queues, and whether it is known.
    usual: f64,
    /// Requests in progress that stay.
    stay: Average,
    utilisation: f64,
    proven: Span,
    calm: Span,
    /// In force.
    over: bool,
}

impl Overload {
    /// Learns from one interval of the length `over`. `slots` are those of the
    /// service; a host that does not tell its utilisation proves nothing.
    pub fn learn(&mut self, requests: &Requests, sample: &Sample, slots: f64, over: Span) {
        let utilisation = sample.utilisation;
        let seconds = over.as_secs_f64().max(1e-3);
        if requests.active > ACTIVE_MIN
            && utilisation.is_none_or(|utilisation| utilisation > UTILISATION_MIN)
        {
            self.rate.update(requests.ended / seconds, over, LEARNING);
        }
        let grown = FORGETTING.powf(seconds);
        (self.time, self.usual) = (self.time * grown, self.usual * grown);
        if requests.ended > 0.0 {
            // By requests and not by time, so that a bad beginning is soon forgotten.
            let weight = 1.0 - (-requests.ended / SAMPLES).exp();
            let (sum, of) = &mut self.lately;
            *sum += weight * (requests.seconds / requests.ended - *sum);
            *of += weight * (1.0 - *of);
            if *of > KNOWN {
                shorten(&mut self.time, *sum / *of);
            }
        }
        let usual =
            (requests.ended >= ENDED_MIN).then(|| (requests.logarithms / requests.ended).exp());
        let slower = usual.is_some_and(|usual| self.usual > 0.0 && usual > SLOWER * self.usual);
        if let Some(usual) = usual {
            shorten(&mut self.usual, usual);
        }
        // Readings are noisy: one of the last two counts, or what waits for a CPU.
        let before = std::mem::replace(&mut self.utilisation, utilisation.unwrap_or(0.0));
        let queued = sample.queued.is_some_and(|queued| queued >= sample.cpus);
        let full = utilisation.is_some_and(|utilisation| {
            let most = utilisation.max(before);
            most >= FULL || most >= IDLE && queued
        });
        let idle = utilisation.is_none_or(|utilisation| utilisation.max(before) < IDLE);
        if !slower {
            self.stay.update(
                (requests.active - requests.seconds / seconds).max(0.0),
                over,
                LEARNING,
            );
        }
        let crowd = (requests.now - self.stay.value()).max(0.0);
        let crowded = crowd > DEPTH * slots;
        self.proven = if full && slower && crowded { self.proven + over } else { Span::ZERO };
        let used = requests.waiting > 0.0 || crowd > DEPTH * slots / 2.0;
        self.calm = if self.over && !(used && full) { self.calm + over } else { Span::ZERO };
        if self.proven >= PROOF {
            self.over = true;
        } else if self.calm >= CALM || idle {
            self.over = false;
        }
    }

    /// Requests that are of use at once without queues, by Little's law; none
    /// while nothing is known.
    pub fn useful(&self) -> Option<f64> {
        (self.time > 0.0).then(|| self.rate.value() * self.time)
    }

    /// Requests beside those that stay that are of use at once with these slots;
    /// none while there is no evidence that more would be of none.
    pub fn ceiling(&self, slots: f64) -> Option<f64> {
        self.over.then_some(DEPTH * slots)
    }

    /// Requests in progress that stay.
    pub fn staying(&self) -> f64 {
        self.stay.value()
    }
}

fn shorten(time: &mut f64, lately: f64) {
    if *time == 0.0 || lately < *time {
        *time = lately;
    }
}
