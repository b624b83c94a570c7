//! Finds the candidate with the fewest requests per weight. The rank in the rotation
//! counts as a fraction of a request: equals take turns, and balancers do not all prefer
//! the provider whose weight is a rounding larger.
//!
//! Owns that key, in logarithmic time although each grant moves all ranks. Among
//! providers with the same weight and number of requests, the one that waited longest is
//! first. So one look at each such group is enough, and none at a group that would lose
//! with the best rank.

use super::interface::{Candidates, Placement, ProviderStats};
use super::key_index::{ratio, KeyIndex};
use super::rotation::Rotation;

/// Most groups that are examined for one choice. Only if more different weights than that
/// are within one request of each other could the fraction have preferred another one.
const PROBES_MAX: usize = 64;

/// The key of a provider; fields are compared in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    /// How slow it is, in steps; the caller of [`LoadIndex::lowest`] combines them.
    step: i16,
    /// The load with one more request, as [`ratio`] makes it.
    load: u64,
    weight: u32,
    /// Follows from load and weight; here so that the turn decides among equals.
    requests: u32,
    turn: u64,
}

impl Rank {
    const fn first_of(step: i16) -> Rank {
        Rank { step, load: 0, weight: 0, requests: 0, turn: 0 }
    }
}

/// The index. Slots are the providers' numbers.
#[derive(Debug, Default)]
pub struct LoadIndex {
    rotation: Rotation,
    index: KeyIndex<Rank>,
}

impl LoadIndex {
    /// Enters a provider with its step, requests and weight.
    pub fn insert(&mut self, stats: &ProviderStats, step: i16, requests: u32, weight: u32) {
        self.rotation.insert(stats.slot, stats.last_grant_seq);
        let load = ratio(f64::from(requests) + 1.0, weight);
        let rank = Rank { step, load, weight, requests, turn: stats.last_grant_seq };
        self.index.insert(stats.slot, stats.availability, rank);
    }

    /// Enters a provider's turn only: enough for [`LoadIndex::load`].
    pub fn insert_by_turn(&mut self, stats: &ProviderStats) {
        self.rotation.insert(stats.slot, stats.last_grant_seq);
    }

    /// Removes a provider.
    pub fn remove(&mut self, slot: usize) {
        self.rotation.remove(slot);
        self.index.remove(slot);
    }

    /// The load of a provider with one more request and the fraction for its rank in the
    /// rotation; and that rank.
    pub fn load(&self, slot: usize, requests: u32, weight: u32) -> (f64, usize) {
        let place = self.rotation.rank(slot);
        let turn = place as f64 / self.rotation.len() as f64;
        ((f64::from(requests) + 1.0 + turn) / f64::from(weight), place)
    }

    /// The slot of the candidate in the lowest class and, there, with the lowest load.
    /// `standing` combines steps: their class, which must not decrease, and a factor to
    /// their load.
    pub fn lowest(
        &self,
        candidates: &dyn Candidates,
        placement: Placement,
        standing: impl Fn(i16) -> (i16, f64),
    ) -> Option<usize> {
        let mut best: Option<((i16, f64, usize), usize)> = None;
        for index in placement
            .availabilities()
            .iter()
            .filter_map(|availability| self.index.of(*availability))
        {
            let mut from = (Rank::first_of(i16::MIN), 0);
            let mut probes = PROBES_MAX;
            while let Some((rank, slot)) = index.from(from.0, from.1).filter(|_| probes > 0) {
                let (class, factor) = standing(rank.step);
                if let Some(((lowest, load, _), _)) = best {
                    if class > lowest {
                        break;
                    }
                    if class == lowest && factor * f64::from_bits(rank.load) > load {
                        let Some(step) = rank.step.checked_add(1) else { break };
                        from = (Rank::first_of(step), 0);
                        continue;
                    }
                }
                if candidates.candidate(slot).is_none() {
                    from = (rank, slot + 1);
                    continue;
                }
                let (load, place) = self.load(slot, rank.requests, rank.weight);
                let key = (class, factor * load, place);
                if best.is_none_or(|(lowest, _)| key < lowest) {
                    best = Some((key, slot));
                }
                from = (Rank { turn: u64::MAX, ..rank }, 0);
                probes -= 1;
            }
        }
        best.map(|(_, slot)| slot)
    }
}
