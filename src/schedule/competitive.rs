//! `competitive`: quickest class first, then fewest active per ticket; equals
//! take turns. The default.
//!
//! A free ticket is a place where a request starts at once, so providers that
//! have one come first, those of the quickest class (classes are factors of
//! two of the mean time requests take there; finer ones make balancers herd)
//! before the others. Without free tickets it is fewest active per capacity.
//! The place in the rotation counts as a fraction of one request: equals take
//! turns, and many balancers do not all prefer the provider whose capacity is
//! a rounding larger. Where requests are not counted (the paper's way), it is
//! smooth turns in proportion to tickets.

use super::scheduler::{Question, Record, Scheduler, View, SAMPLES_MIN};
use crate::base::time::Span;

/// Shorter times say nothing about speed: a provider that fails fast is no
/// quicker than one that works.
const HELD_MIN: Span = Span::from_millis(1);

/// See the file's head.
#[derive(Default)]
pub struct Competitive {
    turns: Turns,
}

fn held(record: &Record) -> Option<f64> {
    (record.samples >= SAMPLES_MIN).then(|| record.held.max(HELD_MIN).as_secs_f64())
}

impl Scheduler for Competitive {
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize> {
        if !question.counted {
            return self.turns.choose(view);
        }
        let all = view.len();
        let quickest = (0..all).filter_map(|place| view.able(place).and_then(held)).fold(f64::INFINITY, f64::min);
        let key = |place: usize| {
            let record = view.candidate(place)?;
            let requests = f64::from(record.active) + 1.0 + place as f64 / all as f64;
            Some(if question.on_tickets {
                let class = held(record).map_or(0.0, |held| (held / quickest).log2().round());
                (class, requests / f64::from(record.tickets))
            } else {
                (0.0, requests / f64::from(record.capacity))
            })
        };
        let keys = (0..all).filter_map(|place| Some((key(place)?, place)));
        keys.min_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)).map(|(_, place)| place)
    }

    fn gone(&mut self, slot: usize) {
        self.turns.gone(slot);
    }
}

/// Smooth weighted turns: each candidate earns its tickets at every choice,
/// the richest is chosen and pays what all earned.
#[derive(Default)]
struct Turns {
    credit: Vec<f64>,
}

impl Turns {
    fn choose(&mut self, view: &dyn View) -> Option<usize> {
        let (mut total, mut best) = (0.0, None);
        for place in 0..view.len() {
            let Some(record) = view.candidate(place) else { continue };
            if self.credit.len() <= record.slot {
                self.credit.resize(record.slot + 1, 0.0);
            }
            let weight = f64::from(record.tickets);
            total += weight;
            let credit = &mut self.credit[record.slot];
            *credit += weight;
            if best.is_none_or(|(most, _, _)| *credit > most) {
                best = Some((*credit, place, record.slot));
            }
        }
        let (_, place, slot) = best?;
        self.credit[slot] -= total;
        Some(place)
    }

    fn gone(&mut self, slot: usize) {
        if let Some(credit) = self.credit.get_mut(slot) {
            *credit = 0.0;
        }
    }
}
