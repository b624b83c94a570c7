//! The load sources: looks at the machine for the monitor.
//!
//! Owns the readings between two looks. What follows from them is the law's
//! business.

use crate::base::sample::Sample;
use crate::base::time::{Moment, Span};
use crate::os::{cpu, load};

/// Looks at the run queue between two looks at the machine.
const READINGS: u64 = 10;
const READING_MIN: Span = Span::from_millis(50);

/// See the file's head.
pub struct Gauge {
    cpu: bool,
    load: bool,
    cpus: f64,
    times: Option<cpu::Times>,
    runnable: u64,
    readings: u64,
    every: Span,
    next: Moment,
}

impl Gauge {
    /// A gauge of the sources that are wanted, for looks every `interval`.
    pub fn new(cpu: bool, load: bool, interval: Span) -> Gauge {
        let every = interval.part(READINGS).max(READING_MIN);
        let times = if cpu { cpu::times() } else { None };
        Gauge { cpu, load, cpus: load::cpus(), times, runnable: 0, readings: 0, every, next: Moment::ZERO }
    }

    /// CPUs that this process may use.
    pub fn cpus(&self) -> f64 {
        self.cpus
    }

    /// When [`expire`](Gauge::expire) must be called.
    pub fn deadline(&self) -> Option<Moment> {
        self.cpu.then_some(self.next)
    }

    /// Time passed: reads the run queue.
    pub fn expire(&mut self, now: Moment) {
        if self.cpu && now >= self.next {
            self.next = now + self.every;
            if let Some(runnable) = cpu::runnable() {
                self.runnable += u64::from(runnable);
                self.readings += 1;
            }
        }
    }

    /// What was seen since the last look.
    pub fn look(&mut self) -> Sample {
        let mut sample = Sample { cpus: self.cpus, utilisation: None, queued: None, load: None };
        if self.load {
            sample.load = load::averages().map(|averages| averages[0]);
        }
        if self.cpu {
            let times = cpu::times();
            // Before the first tick nothing is known, and nothing can be learned.
            let utilisation = times.and_then(|times| times.utilisation(&self.times?));
            sample.utilisation = times.map(|_| utilisation.unwrap_or(0.0));
            if self.readings > 0 {
                let running = self.runnable as f64 / self.readings as f64;
                let busy = sample.utilisation.unwrap_or(0.0) * self.cpus;
                sample.queued = Some((running - busy).max(0.0));
            } else if utilisation.is_none() {
                sample.queued = Some(0.0);
            }
            (self.times, self.runnable, self.readings) = (times, 0, 0);
        }
        sample
    }
}
