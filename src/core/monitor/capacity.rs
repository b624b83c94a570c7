//! How many requests a host can run at once: its slots.
//!
//! Owns the estimator, in the words of queueing theory (Little): requests in
//! progress, less those only waiting for a CPU, divided by the utilisation of
//! the CPUs, is what fills them. A service that mostly waits for others gets
//! many slots, one that computes gets as many as there are CPUs; nothing to
//! configure. It orders providers and refuses no client. Reads nothing itself.

pub use crate::base::sample::Sample;
use crate::base::time::Span;

/// Requests a second and CPU, before anything is learned of queues that count none.
const PAPER_START: f64 = 25.0;
/// How far beyond what the requests that end need at once the slots may be.
const USEFUL_MARGIN: f64 = 1.1;
/// Below these nothing can be learned.
pub(super) const UTILISATION_MIN: f64 = 0.05;
pub(super) const ACTIVE_MIN: f64 = 0.05;
/// How fast the estimator learns.
const LEARNING: Span = Span::from_secs(10);
const LEARNING_PAPER: Span = Span::from_secs(5);
/// In paper mode a little more than the host did is offered.
const PAPER_MARGIN: f64 = 1.25;
/// Up to so many slots a CPU a service only computes, as far as readings can show.
const COMPUTES: f64 = 1.3;
/// Slots a CPU, where the load source tells neither utilisation nor queue.
const SLOTS_PER_CPU: f64 = 4.0;

/// An exponential average; of what it has seen, while that is not long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    pub(super) fn update(&mut self, value: f64, over: Span, memory: Span) {
        let kept = (-over.as_secs_f64() / memory.as_secs_f64()).exp();
        self.sum = self.sum * kept + value * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
    }

    pub(super) fn value(&self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

/// Estimates how many requests the host can run at once.
#[derive(Clone, Debug)]
pub struct CapacityEstimator {
    active: Average,
    utilisation: Average,
    slots: f64,
    rate: Average,
    utilisation_paper: Average,
    per_second: f64,
}

impl CapacityEstimator {
    /// Nothing learned yet.
    pub fn new(cpus: f64) -> CapacityEstimator {
        CapacityEstimator {
            active: Average::default(),
            utilisation: Average::default(),
            slots: cpus,
            rate: Average::default(),
            utilisation_paper: Average::default(),
            per_second: PAPER_START * cpus,
        }
    }

    /// Learns from one interval of the length `over`: the sample, the requests
    /// in progress that the queues reported, how many of them are of use (none:
    /// not known), and the requests that queues which count none granted.
    pub fn observe(
        &mut self,
        sample: &Sample,
        active: f64,
        useful: Option<f64>,
        granted_paper: f64,
        over: Span,
    ) {
        let (Some(utilisation), Some(queued)) = (sample.utilisation, sample.queued) else {
            // Without both readings there is nothing to learn from.
            self.slots = match sample.utilisation {
                Some(_) => sample.cpus,
                None => SLOTS_PER_CPU * sample.cpus,
            }
            .max(sample.cpus);
            return;
        };
        if utilisation > UTILISATION_MIN && active > ACTIVE_MIN {
            self.active.update((active - queued).max(0.0), over, LEARNING);
            self.utilisation.update(utilisation, over, LEARNING);
            // Sessions, slow disks and hung requests are in progress, but not of use.
            let useful = useful.map_or(f64::INFINITY, |useful| USEFUL_MARGIN * useful);
            self.slots = self.active.value().min(useful) / self.utilisation.value();
        }
        self.slots = self.slots.max(sample.cpus);
        if utilisation > UTILISATION_MIN && granted_paper > 0.0 {
            self.rate.update(granted_paper / over.as_secs_f64().max(1e-3), over, LEARNING_PAPER);
            self.utilisation_paper.update(utilisation, over, LEARNING_PAPER);
            self.per_second = self.rate.value() / self.utilisation_paper.value();
        }
    }

    /// The slots of the host: none if a source calls it full.
    pub fn slots(&self, sample: &Sample) -> f64 {
        // Of equal hosts that compute none is to seem larger than another.
        let slots = if self.slots < COMPUTES * sample.cpus { sample.cpus } else { self.slots };
        slots * spare(sample)
    }

    /// Requests that the host can take in an interval, for queues that
    /// count none in progress.
    pub fn per_interval(&self, sample: &Sample, interval: Span) -> f64 {
        (PAPER_MARGIN * self.per_second * interval.as_secs_f64() - sample.queued.unwrap_or(0.0))
            .max(1.0)
            * spare(sample)
    }
}

/// What load average and fullness leave of the host, 0..=1; the fullest
/// counts, and all is left where neither is a source.
pub fn spare(sample: &Sample) -> f64 {
    let load = sample.load.map_or(0.0, |load| load / sample.cpus.max(0.01));
    (1.0 - load.max(sample.full.unwrap_or(0.0))).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(cpus: f64, active: f64, utilisation: f64, queued: f64) -> f64 {
        let sample = Sample {
            cpus,
            utilisation: Some(utilisation),
            queued: Some(queued),
            load: None,
            full: None,
        };
        let mut estimator = CapacityEstimator::new(cpus);
        for _ in 0..60 {
            estimator.observe(&sample, active, None, 0.0, Span::from_secs(1));
        }
        estimator.slots(&sample)
    }

    #[test]
    fn a_service_that_computes_gets_its_cpus_loaded_or_not() {
        assert!((learned(4.0, 2.0, 0.5, 0.0) - 4.0).abs() < 0.01);
        assert!((learned(4.0, 14.0, 1.0, 10.0) - 4.0).abs() < 0.01);
    }

    #[test]
    fn a_service_that_waits_four_fifths_of_its_time_gets_five_a_cpu() {
        assert!((learned(4.0, 10.0, 0.5, 0.0) - 20.0).abs() < 0.01);
    }

    #[test]
    fn it_starts_with_the_cpus_and_never_falls_below_them() {
        assert_eq!(learned(4.0, 0.0, 0.9, 0.0), 4.0);
        assert_eq!(learned(4.0, 0.5, 1.0, 3.0), 4.0);
    }

    #[test]
    fn a_load_average_scales_four_slots_a_cpu() {
        let mut estimator = CapacityEstimator::new(2.0);
        let sample = |load| Sample {
            cpus: 2.0,
            utilisation: None,
            queued: None,
            load: Some(load),
            full: None,
        };
        estimator.observe(&sample(0.5), 1.0, None, 0.0, Span::from_secs(1));
        assert_eq!(
            (
                estimator.slots(&sample(0.0)),
                estimator.slots(&sample(0.5)),
                estimator.slots(&sample(2.0)),
                estimator.slots(&sample(9.0))
            ),
            (8.0, 6.0, 0.0, 0.0)
        );
    }

    #[test]
    fn paper_mode_offers_a_quarter_more_than_the_machine_can_do() {
        let sample =
            Sample { cpus: 4.0, utilisation: Some(0.5), queued: Some(0.0), load: None, full: None };
        let mut estimator = CapacityEstimator::new(4.0);
        for _ in 0..60 {
            estimator.observe(&sample, 0.0, None, 40.0, Span::from_secs(1));
        }
        assert!((estimator.per_interval(&sample, Span::from_secs(1)) - 100.0).abs() < 0.1);
    }
}
