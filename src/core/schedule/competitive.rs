//! `competitive`: quickest class first, then fewest active per ticket; equals
//! take turns. The default.
//!
//! A free ticket is a place where a request starts at once, so providers that
//! have one come first, those of the quickest class (classes are factors of
//! two of the mean time requests take there; finer ones make balancers herd)
//! before the others. Without free tickets it is fewest active per slot.
//! The place in the rotation counts as a fraction of one request: equals take
//! turns, and many balancers do not all prefer the provider whose slots are
//! a rounding more. Where requests are not counted (the paper's way), it is
//! smooth turns in proportion to tickets.
//!
//! Up to [`SCAN_MAX`] providers it looks at each of them. Of more it keeps the
//! order, in which only the class is less exact: times are rounded to eighths
//! of a factor of two before they are compared, a tenth of what they vary by.

use super::loads::Loads;
use super::scheduler::{Question, Record, Scheduler, State, View};
use super::weighted::Turns;
use crate::base::roster::Roster;
use crate::base::time::Span;

/// Up to so many providers it costs less to look at all.
pub const SCAN_MAX: usize = 64;
/// Requests that must have ended before a holding time means anything.
const SAMPLES_MIN: u64 = 10;
/// Shorter times say nothing about speed: a provider that fails fast is no
/// quicker than one that works.
const HELD_MIN: Span = Span::from_millis(1);
/// Steps of a holding time in a class, a factor of two.
const STEPS: i16 = 8;
/// The step of providers of whom no holding time is known.
const UNKNOWN: i16 = i16::MIN;

/// Class, then load and place in the rotation.
type Key = (f64, (f64, usize));

/// See the file's head.
#[derive(Default)]
pub struct Competitive {
    loads: Loads,
    /// There were once more than [`SCAN_MAX`]; until then only turns are kept.
    in_order: bool,
    /// By slot: the step of its holding time, if it is able.
    steps: Vec<Option<i16>>,
    /// How many able providers there are of each known step.
    able: Roster<i16, usize>,
    /// Made when the first request comes that is not counted.
    turns: Option<Turns>,
}

fn held(record: &Record) -> Option<f64> {
    (record.samples >= SAMPLES_MIN).then(|| record.held.max(HELD_MIN).as_secs_f64())
}

fn step(record: &Record) -> i16 {
    held(record).map_or(UNKNOWN, |held| (held.log2() * f64::from(STEPS)).round() as i16)
}

/// `held` is a factor of `quickest`; to the nearest power of two.
fn class(held: f64, quickest: f64) -> f64 {
    let factor = held / quickest;
    // Most are of the quickest class, and a logarithm takes its time.
    if factor * factor < 2.0 {
        0.0
    } else {
        factor.log2().round()
    }
}

impl Competitive {
    /// Looks at everybody.
    fn scan(&self, view: &dyn View, question: Question) -> Option<usize> {
        let able = view.records().filter(|record| record.able());
        let quickest = able.filter_map(held).fold(f64::INFINITY, f64::min);
        let mut best: Option<(Key, usize)> = None;
        for record in view.candidates() {
            let on_ticket = question.on_tickets;
            let weight = if on_ticket { record.tickets } else { record.weight };
            let class = held(record).filter(|_| on_ticket).map_or(0.0, |held| class(held, quickest));
            let least = (f64::from(record.crowd()) + 1.0) / f64::from(weight);
            if best.is_some_and(|((lowest, (load, _)), _)| (class, least) > (lowest, load)) {
                continue;
            }
            let key = (class, self.loads.load(record.slot, record.crowd(), weight));
            if best.is_none_or(|(lowest, _)| key < lowest) {
                best = Some((key, record.slot));
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// Asks the order that is kept, or makes it.
    fn ordered(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        if !self.in_order {
            self.in_order = true;
            view.records().for_each(|record| self.put(record));
        }
        let quickest = self.able.iter().next().map_or(0, |(step, _)| step);
        self.loads.lowest(view, question, |step| match step {
            UNKNOWN => 0,
            step => (step - quickest + STEPS / 2).div_euclid(STEPS),
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
        if let Some(count) = before.and_then(|step| self.able.get_mut(step)) {
            *count -= 1;
        }
        self.able.retain(|_, count| *count > 0);
        if let Some(step) = step {
            let count = self.able.get(step).map_or(1, |count| count + 1);
            self.able.put(step, count);
        }
    }

    fn put(&mut self, record: &Record) {
        let step = step(record);
        self.count(record.slot, Some(step).filter(|step| record.able() && *step != UNKNOWN));
        if record.state == State::Free {
            self.loads.put(record, step, record.crowd(), record.tickets);
        } else {
            self.loads.put(record, UNKNOWN, record.crowd(), record.weight);
        }
    }
}

impl Scheduler for Competitive {
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        if !question.counted {
            let known = || {
                let mut turns = Turns::default();
                view.records().for_each(|record| turns.changed(record));
                turns
            };
            self.turns.get_or_insert_with(known).choose(view, question)
        } else if view.slots() <= SCAN_MAX {
            self.scan(view, question)
        } else {
            self.ordered(view, question)
        }
    }

    fn changed(&mut self, record: &Record) {
        if self.in_order {
            self.put(record);
        } else {
            self.loads.put_turn(record);
        }
        if let Some(turns) = &mut self.turns {
            turns.changed(record);
        }
    }

    fn gone(&mut self, slot: usize) {
        self.loads.take(slot);
        self.count(slot, None);
        if let Some(turns) = &mut self.turns {
            turns.gone(slot);
        }
    }
}
