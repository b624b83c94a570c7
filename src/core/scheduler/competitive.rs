//! `competitive`: quickest class first, then fewest active per ticket; equals take turns.
//! The default.
//!
//! A free ticket is a slot where a request starts at once, so providers that have one
//! come first, and among them those of the quickest class. Classes are factors of two of
//! the mean time that requests take there; finer ones make balancers herd.
//!
//! Without free tickets it is fewest active per slot, and at a slow provider each counts
//! for more. By number alone, who waits at one that is four times slower waits four times
//! as long. By expected delay alone the quick ones are overrun when all have much to do. So
//! it is between: the factor to the quickest, to the power of two thirds. Factors up to the
//! square root of two count for nothing: they are chance.
//!
//! The rank in the rotation counts as a fraction of a request: equals take turns, and
//! balancers do not all prefer the provider whose weight is a rounding larger. Requests that
//! are not counted (the paper's way) take smooth turns in proportion to tickets.
//!
//! Up to [`SCAN_MAX`] providers are all examined. Beyond that an order is kept, in which
//! only the times are less exact: they are rounded to eighths of a factor of two before
//! they are compared, which is a tenth of their variation.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use super::load_index::LoadIndex;
use super::weighted::Weighted;
use crate::base::time::Span;

/// Up to this many providers it is cheaper to examine all.
pub const SCAN_MAX: usize = 64;
/// Requests that must have ended before a mean time means anything.
pub const SAMPLES_MIN: u64 = 10;
/// Shorter times say nothing about speed: a provider that fails fast is no quicker than
/// one that works.
const SERVICE_TIME_MIN: Span = Span::from_millis(1);
/// Steps of a mean time in a class, which is a factor of two.
const STEPS: i16 = 8;
/// How a factor between times becomes one between loads: what of it is chance, as a
/// logarithm to the base of two, and the power of the rest.
const CHANCE: f64 = 0.5;
const POWER: f64 = 2.0 / 3.0;
/// The step of providers without a known mean time.
const UNKNOWN: i16 = i16::MIN;

/// Class, then load and rank in the rotation.
type Key = (f64, (f64, usize));

/// The scheduler. A choice costs a look at up to [`SCAN_MAX`] providers, or logarithmic
/// time.
#[derive(Default)]
pub struct Competitive {
    loads: LoadIndex,
    /// There have been more than [`SCAN_MAX`]; until then only turns are kept.
    ordered_mode: bool,
    /// By slot: the step of its mean time, if it is available.
    steps: Vec<Option<i16>>,
    /// The number of available providers of each step, in order of steps.
    available_by_step: Vec<(i16, usize)>,
    /// For requests that are not counted; made when the first one comes.
    turns: Option<Weighted>,
}

fn service_time(stats: &ProviderStats) -> Option<f64> {
    (stats.samples >= SAMPLES_MIN).then(|| stats.service_time.max(SERVICE_TIME_MIN).as_secs_f64())
}

fn step(stats: &ProviderStats) -> i16 {
    service_time(stats)
        .map_or(UNKNOWN, |service_time| (service_time.log2() * f64::from(STEPS)).round() as i16)
}

/// The factor from `quickest` to a mean time, as a logarithm to the base of two.
fn octaves(service_time: f64, quickest: f64) -> f64 {
    let factor = service_time / quickest;
    // Most are nearly as quick, and a logarithm is slow.
    if factor * factor < 2.0 {
        0.0
    } else {
        factor.log2()
    }
}

/// The class of a mean time so far from the quickest.
fn class(octaves: f64) -> f64 {
    // Most are near, and rounding is slow where the processor cannot do it.
    if octaves.abs() < 0.5 {
        0.0
    } else {
        octaves.round()
    }
}

/// What a request counts for at a provider whose mean time is so many times that of the
/// quickest; of that factor the logarithm to the base of two.
fn slowness(octaves: f64) -> f64 {
    if octaves > CHANCE {
        (POWER * (octaves - CHANCE)).exp2()
    } else {
        1.0
    }
}

impl Competitive {
    /// Examines all candidates.
    fn scan(&self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        let able = candidates.all().filter(|stats| stats.is_available());
        let quickest = able.filter_map(service_time).fold(f64::INFINITY, f64::min);
        let mut best: Option<(Key, usize)> = None;
        for stats in candidates.iter() {
            let on_ticket = placement.free_tickets_only;
            let weight = if on_ticket { stats.tickets } else { stats.weight };
            let octaves = service_time(stats).map_or(0.0, |time| octaves(time, quickest));
            let (class, factor) =
                if on_ticket { (class(octaves), 1.0) } else { (0.0, slowness(octaves)) };
            let least = factor * ((f64::from(stats.crowd()) + 1.0) / f64::from(weight));
            if best.is_some_and(|((lowest, (load, _)), _)| (class, least) > (lowest, load)) {
                continue;
            }
            let (load, place) = self.loads.load(stats.slot, stats.crowd(), weight);
            let key = (class, (factor * load, place));
            if best.is_none_or(|(lowest, _)| key < lowest) {
                best = Some((key, stats.slot));
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// Uses the order that is kept, and makes it the first time.
    fn ordered(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        if !self.ordered_mode {
            self.ordered_mode = true;
            candidates.all().for_each(|stats| self.index(stats));
        }
        let quickest = self.available_by_step.first().map_or(0, |(step, _)| *step);
        self.loads.lowest(candidates, placement, |step| match step {
            UNKNOWN => (0, 1.0),
            step if placement.free_tickets_only => {
                ((step - quickest + STEPS / 2).div_euclid(STEPS), 1.0)
            }
            step => (0, slowness(f64::from(step - quickest) / f64::from(STEPS))),
        })
    }

    fn count(&mut self, slot: usize, step: Option<i16>) {
        if self.steps.len() <= slot {
            self.steps.resize(slot + 1, None);
        }
        let before = std::mem::replace(&mut self.steps[slot], step);
        if before == step {
            return;
        }
        let counts = &mut self.available_by_step;
        if let Some(at) =
            before.and_then(|step| counts.binary_search_by_key(&step, |(step, _)| *step).ok())
        {
            counts[at].1 -= 1;
            if counts[at].1 == 0 {
                counts.remove(at);
            }
        }
        if let Some(step) = step {
            match counts.binary_search_by_key(&step, |(step, _)| *step) {
                Ok(at) => counts[at].1 += 1,
                Err(at) => counts.insert(at, (step, 1)),
            }
        }
    }

    fn index(&mut self, stats: &ProviderStats) {
        let step = step(stats);
        self.count(stats.slot, Some(step).filter(|step| stats.is_available() && *step != UNKNOWN));
        let on_ticket = stats.availability == Availability::FreeTicket;
        let weight = if on_ticket { stats.tickets } else { stats.weight };
        self.loads.insert(stats, step, stats.crowd(), weight);
    }
}

impl Scheduler for Competitive {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        if !placement.counted {
            let known = || {
                let mut turns = Weighted::default();
                candidates.all().for_each(|stats| turns.on_update(stats));
                turns
            };
            self.turns.get_or_insert_with(known).choose(candidates, placement)
        } else if candidates.slots() <= SCAN_MAX {
            self.scan(candidates, placement)
        } else {
            self.ordered(candidates, placement)
        }
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        if self.ordered_mode {
            self.index(stats);
        } else {
            self.loads.insert_by_turn(stats);
        }
        if let Some(turns) = &mut self.turns {
            turns.on_update(stats);
        }
    }

    fn on_remove(&mut self, slot: usize) {
        self.loads.remove(slot);
        self.count(slot, None);
        if let Some(turns) = &mut self.turns {
            turns.on_remove(slot);
        }
    }
}
