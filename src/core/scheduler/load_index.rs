//! Fewest requests per weight, and the rotation counts as a fraction of one
//! request: equals take turns, and many balancers do not all prefer the
//! provider whose weight is a rounding larger.
//!
//! Owns that key, in logarithmic time although the rotation moves everybody at
//! each grant: of those with the same weight and as many requests the one that
//! waited longest is first, so one look at each such group is enough, and none
//! at a group that would lose with the best place in the rotation.

use super::interface::{Candidates, Placement, ProviderStats};
use super::key_index::{ratio, KeyIndex};
use super::rotation::Rotation;

/// Groups to look at for one choice. Where more different weights than that
/// are within one request of each other, only the rotation's fraction could
/// prefer one of the others.
const PROBES_MAX: usize = 64;

/// The key of a provider; compared field by field, from the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    /// Comes before everything else, in steps that the caller puts together.
    step: i16,
    /// Requests with one more, per weight, as [`ratio`] makes it.
    load: u64,
    weight: u32,
    /// Told by load and weight, so that the turn decides among their equals.
    requests: u32,
    turn: u64,
}

impl Rank {
    const fn first_of(step: i16) -> Rank {
        Rank { step, load: 0, weight: 0, requests: 0, turn: 0 }
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct LoadIndex {
    rotation: Rotation,
    index: KeyIndex<Rank>,
}

impl LoadIndex {
    /// Enters what is known of a provider: its step, requests and weight.
    pub fn insert(&mut self, stats: &ProviderStats, step: i16, requests: u32, weight: u32) {
        self.rotation.insert(stats.slot, stats.last_grant_seq);
        let load = ratio(f64::from(requests) + 1.0, weight);
        let rank = Rank { step, load, weight, requests, turn: stats.last_grant_seq };
        self.index.insert(stats.slot, stats.availability, rank);
    }

    /// Enters its turn only, for who does without [`LoadIndex::lowest`].
    pub fn insert_by_turn(&mut self, stats: &ProviderStats) {
        self.rotation.insert(stats.slot, stats.last_grant_seq);
    }

    /// Forgets a provider.
    pub fn remove(&mut self, slot: usize) {
        self.rotation.remove(slot);
        self.index.remove(slot);
    }

    /// The load of a provider with one more request and its place in the
    /// rotation counted, and that place.
    pub fn load(&self, slot: usize, requests: u32, weight: u32) -> (f64, usize) {
        let place = self.rotation.rank(slot);
        let turn = place as f64 / self.rotation.len() as f64;
        ((f64::from(requests) + 1.0 + turn) / f64::from(weight), place)
    }

    /// The slot of the candidate with the lowest class, and of those with the
    /// lowest load. `class` puts steps together, rising with them.
    pub fn lowest(
        &self,
        candidates: &dyn Candidates,
        placement: Placement,
        class: impl Fn(i16) -> i16,
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
                let class = class(rank.step);
                if let Some(((lowest, load, _), _)) = best {
                    if class > lowest {
                        break;
                    }
                    if class == lowest && f64::from_bits(rank.load) > load {
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
                let key = (class, load, place);
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
