//! The weight of a provider whose clients an engine leads.
//!
//! Owns the load of the host as its services feel it, and the weight that follows. An
//! engine leads clients in proportion to the weights, and does not tell how they fare. So
//! each provider compares what it gets with what that costs it: its part of the weights
//! over its load is what it could take, in a unit that all providers share. Each moves its
//! weight there a part of the way, until all are equally loaded. Reads nothing itself.

use crate::base::sample::Sample;
use crate::monitor::capacity;

/// The weight of an average provider at an average load. Weights have three digits after
/// the point, and a small share of this still has enough of them. The mean of all weights
/// moves there by this part of the way, in logarithms: slowly, so that those which begin a
/// little later than others are not on another scale.
const SCALE: f64 = 10.0;
const RESCALING: f64 = 0.1;
/// What counts as an average load; another value only changes the scale.
const LOAD: f64 = 0.5;
/// Readings below this are noise.
const LOAD_MIN: f64 = 0.05;
/// Of what waits for a CPU no more is believed.
const LOAD_MAX: f64 = 2.0;
/// Tasks for each CPU beyond which a full host is overloaded.
const CROWD: f64 = 8.0;
/// The part of the way, in logarithms, the same for all: with another one a provider would
/// gain on the others wherever the load is not [`LOAD`]. The engine is an interval behind,
/// and one more for the exporter, with which anything below 0.6 is stable. This comes within
/// a twentieth in ten intervals, and keeps out most of the noise of single ones.
const GAIN: f64 = 0.2;
/// So many intervals pass until what a provider sees follows from its weight.
const EARLY: u32 = 2;
/// No provider gets less than this part of an equal share: it would never be seen again
/// that its load is over.
const SHARE_MIN: f64 = 0.01;

/// What a full host counts as while what waits there becomes less: it gets less than it
/// can take already, and only works off what came before.
const RECOVERING: f64 = 0.9;
/// Fewer tasks for each CPU are no queue to work off.
const QUEUE: f64 = 2.0;

/// Mean tasks over an interval that ran or waited for a CPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tasks {
    /// Those that work for clients of the services.
    pub own: f64,
    /// All others.
    pub foreign: f64,
}

impl Tasks {
    fn own_part(&self) -> f64 {
        match self.own + self.foreign {
            all if all > 0.0 => self.own / all,
            _ => 1.0,
        }
    }
}

/// How full a host is for its services.
#[derive(Clone, Debug, Default)]
pub struct HostLoad {
    /// Requests that ran or waited in the interval before.
    before: f64,
}

impl HostLoad {
    /// The load over an interval, from 0; above 1 where far more wait than is of use.
    /// Where `tasks` are not told, all are taken for requests. What others compute is not
    /// held against the services; what they take away is.
    pub fn look(&mut self, sample: &Sample, tasks: Option<Tasks>) -> f64 {
        let tasks = tasks.unwrap_or(Tasks { own: runnable(sample), foreign: 0.0 });
        let load = load(sample, tasks);
        let own = runnable(sample) * tasks.own_part();
        let before = std::mem::replace(&mut self.before, own);
        if own < before && before > QUEUE * sample.cpus {
            return load.min(RECOVERING.max(1.0 - capacity::spare(sample)));
        }
        load
    }
}

/// Mean tasks that ran or waited for a CPU.
fn runnable(sample: &Sample) -> f64 {
    sample.utilisation.unwrap_or(0.0) * sample.cpus.max(0.01) + sample.queued.unwrap_or(0.0)
}

fn load(sample: &Sample, tasks: Tasks) -> f64 {
    let cpus = sample.cpus.max(0.01);
    let full = 1.0 - capacity::spare(sample);
    let Some(utilisation) = sample.utilisation else { return full };
    let busy = utilisation * cpus;
    let Tasks { own, foreign } = tasks;
    let used = busy * tasks.own_part();
    // A CPU each for the tasks of others; where there are not enough, all share them.
    let fair = cpus * own.max(1.0) / (own.max(1.0) + foreign);
    let available = (cpus - foreign).max(fair);
    let crowded = if used > 0.9 * available { own / (CROWD * available) } else { 0.0 };
    (used / available).max(crowded.min(LOAD_MAX)).max(full)
}

/// The weight of a provider at one queue whose readers lead the clients.
#[derive(Clone, Debug, Default)]
pub struct EngineWeight {
    /// What is offered while an engine leads; none: nothing is known yet.
    weight: Option<f64>,
    /// Its weight beside the mean of all, in the answer to the last offer.
    share: Option<f64>,
    /// The last answer said that an engine leads.
    leads: bool,
    /// Answers to pass over: they are about a time before the engine knew of this weight.
    early: u32,
}

impl EngineWeight {
    /// The weight to offer, while an engine leads.
    pub fn weight(&self) -> Option<f64> {
        self.weight.filter(|_| self.leads)
    }

    /// The queue answered an offer of the weight `sent`: with a share where an engine leads,
    /// 0 where it leads no client here. `joined`: it is the first answer. Returns whether another
    /// offer should follow.
    pub fn answered(&mut self, share: Option<f64>, sent: f64, joined: bool) -> bool {
        let began = !std::mem::replace(&mut self.leads, share.is_some()) && self.leads;
        let Some(share) = share else { return false };
        if share <= 0.0 {
            // No client is led here, so its load says nothing about its weight. That stays
            // as it is, for the time when clients come again.
            (self.share, self.early) = (None, EARLY);
            return false;
        }
        let joined = joined || !began;
        if !began && self.weight.is_some() {
            self.share = Some(share).filter(|_| self.early == 0);
            return false;
        }
        // What is told is about weights of before. All keep theirs, but one that joins
        // others has slots on another scale than theirs: it begins as an average one.
        self.share = None;
        self.early = EARLY;
        let known = self.weight.is_some();
        let start = if joined && share > 1.0 { sent / share } else { sent };
        self.weight = self.weight.or(Some(start));
        known || start != sent
    }

    /// An interval is over, at this load.
    pub fn look(&mut self, load: f64) {
        self.early = self.early.saturating_sub(1);
        let (Some(share), Some(weight)) = (self.share.take(), self.weight) else { return };
        let mean = weight / share.max(1e-6);
        let scale = mean * (SCALE / mean).powf(RESCALING);
        let load = load.clamp(LOAD_MIN, LOAD_MAX);
        let factor = (LOAD / load).powf(GAIN);
        self.weight = Some(scale * (share * factor).max(SHARE_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpus: f64, utilisation: f64, queued: f64) -> Sample {
        let (utilisation, queued) = (Some(utilisation), Some(queued));
        Sample { cpus, utilisation, queued, load: None, full: None }
    }

    fn about(one: f64, other: f64) {
        assert!((one - other).abs() < 0.01, "{one} instead of {other}");
    }

    fn look(sample: &Sample, tasks: Option<(f64, f64)>) -> f64 {
        let tasks = tasks.map(|(own, foreign)| Tasks { own, foreign });
        HostLoad::default().look(sample, tasks)
    }

    #[test]
    fn without_tasks_of_others_the_load_is_the_utilisation() {
        about(look(&sample(4.0, 0.5, 0.2), None), 0.5);
        about(look(&sample(4.0, 0.5, 0.2), Some((2.2, 0.0))), 0.5);
        about(look(&sample(1.0, 0.0, 0.0), Some((0.0, 0.0))), 0.0);
        // A source that calls the host full is believed.
        about(look(&Sample { full: Some(0.9), ..sample(1.0, 0.3, 0.0) }, None), 0.9);
        about(look(&Sample { utilisation: None, ..sample(1.0, 0.3, 0.0) }, None), 0.0);
    }

    #[test]
    fn what_others_take_away_counts_and_what_they_use_does_not() {
        // One task of others beside a request for a quarter of the time.
        about(look(&sample(1.0, 1.0, 0.25), Some((0.25, 1.0))), 0.4);
        // It has a CPU of its own among four.
        about(look(&sample(4.0, 0.5, 0.0), Some((1.0, 1.0))), 1.0 / 3.0);
        // Only others.
        about(look(&sample(1.0, 1.0, 3.0), Some((0.0, 4.0))), 0.0);
        // Without knowledge of whose the tasks are, the host is full.
        about(look(&sample(1.0, 1.0, 0.25), None), 1.0);
    }

    #[test]
    fn a_crowd_is_more_than_full_until_it_becomes_smaller() {
        about(look(&sample(1.0, 1.0, 3.0), None), 1.0);
        about(look(&sample(1.0, 1.0, 11.0), None), 1.5);
        about(look(&sample(1.0, 1.0, 99.0), None), LOAD_MAX);
        about(look(&sample(1.0, 0.5, 99.0), None), 0.5);
        let mut host = HostLoad::default();
        host.look(&sample(1.0, 1.0, 99.0), None);
        about(host.look(&sample(1.0, 1.0, 90.0), None), RECOVERING);
        about(host.look(&sample(1.0, 1.0, 95.0), None), LOAD_MAX);
    }

    #[test]
    fn a_monitor_that_joins_begins_as_an_average_one() {
        let mut joins = EngineWeight::default();
        assert!(joins.answered(Some(8.0), 16.0, true));
        assert_eq!(joins.weight(), Some(2.0));
        let mut small = EngineWeight::default();
        assert!(!small.answered(Some(0.2), 1.0, true));
        assert_eq!(small.weight(), Some(1.0));
        // The exporter is new, and not the provider.
        let mut stays = EngineWeight::default();
        assert!(!stays.answered(None, 16.0, true) && stays.weight().is_none());
        assert!(!stays.answered(Some(2.0), 16.0, false));
        assert_eq!(stays.weight(), Some(16.0));
    }

    #[test]
    fn a_weight_stays_while_no_client_is_led_here() {
        let mut weight = EngineWeight::default();
        assert!(!weight.answered(Some(0.0), 0.0, true));
        weight.look(0.0);
        assert_eq!(weight.weight(), None);
        assert!(weight.answered(Some(2.0), 8.0, false));
        let known = weight.weight();
        assert_eq!(known, Some(4.0));
        for _ in 0..50 {
            weight.answered(Some(0.0), 4.0, false);
            weight.look(0.0);
        }
        assert_eq!(weight.weight(), known);
        weight.answered(Some(1.0), 4.0, false);
        weight.look(0.0);
        assert_eq!(weight.weight(), known, "the engine has only just heard of it");
        weight.answered(Some(1.0), 4.0, false);
        weight.look(0.0);
        assert!(weight.weight() > known);
    }

    #[test]
    fn what_was_learned_outlives_a_queue_that_starts_anew() {
        let mut weight = EngineWeight::default();
        weight.answered(Some(1.0), 4.0, true);
        for _ in 0..EARLY {
            weight.answered(Some(3.0), 4.0, false);
            weight.look(1.0);
            assert_eq!(weight.weight(), Some(4.0), "that share was of other weights");
        }
        weight.answered(Some(3.0), 4.0, false);
        weight.look(1.0);
        let learned = weight.weight();
        assert_ne!(learned, Some(4.0));
        weight.answered(None, 4.0, true);
        assert_eq!(weight.weight(), None);
        assert!(weight.answered(Some(0.7), 4.0, false));
        weight.look(1.0);
        assert_eq!(weight.weight(), learned);
    }

    #[test]
    fn a_full_provider_loses_and_an_idle_one_gains_but_no_share_is_nothing() {
        let looked = |share: f64, load: f64| {
            let mut weight = EngineWeight::default();
            weight.answered(Some(1.0), 1.0, false);
            (0..EARLY).for_each(|_| weight.look(load));
            weight.answered(Some(share), 1.0, false);
            weight.look(load);
            weight.weight().unwrap()
        };
        assert!(looked(1.0, 1.0) < looked(1.0, 0.5) && looked(1.0, 0.5) < looked(1.0, 0.2));
        assert_eq!(looked(1.0, 0.0), looked(1.0, LOAD_MIN));
        assert!(looked(0.0, 4.0) > 0.0);
    }
}
