//! `random-two`: of two random candidates the one with fewer requests per capacity, as
//! `random(2)` of HAProxy.
//!
//! It knows almost nothing of the other providers, so it is better than a random choice
//! and worse than any order of all. Its strength is many balancers with old information,
//! but tickets are never that old.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use super::key_index::ratio;
use crate::base::random::Random;

/// Draws before all candidates are examined. A draw fails only for a provider that the
/// request avoids.
const DRAWS: usize = 8;

/// The scheduler. A choice takes constant time.
pub struct RandomTwo {
    random: Random,
    /// The slots of each availability that can be granted.
    pools: [Vec<u32>; Availability::GRANTABLE],
    /// By slot: its pool, and its position there.
    places: Vec<Option<(usize, usize)>>,
}

impl RandomTwo {
    /// Returns a scheduler whose choices follow from the seed.
    pub fn new(seed: u64) -> RandomTwo {
        RandomTwo { random: Random::new(seed), pools: Default::default(), places: Vec::new() }
    }

    /// Draws two different candidates, or one if there is no other.
    fn draw<'a>(
        &mut self,
        candidates: &'a dyn Candidates,
        placement: Placement,
    ) -> [Option<&'a ProviderStats>; 2] {
        let pools = placement
            .availabilities()
            .iter()
            .filter_map(|state| Some(self.pools[state.grantable()?].as_slice()));
        let pools: [&[u32]; 2] = {
            let mut pools = pools.chain([&[][..], &[][..]]);
            [pools.next().unwrap_or_default(), pools.next().unwrap_or_default()]
        };
        let all = pools[0].len() + pools[1].len();
        let at = |number: usize| {
            let slot = pools[0].get(number).or_else(|| pools[1].get(number - pools[0].len()));
            slot.and_then(|slot| candidates.candidate(*slot as usize))
        };
        let one = self.random.below(all);
        let other = self.random.below(all.saturating_sub(1));
        [at(one), at(if other < one { other } else { other + 1 }).filter(|_| all > 1)]
    }
}

impl Scheduler for RandomTwo {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        let load = |stats: &&ProviderStats| {
            (ratio(f64::from(stats.used()), stats.weight), stats.last_grant_seq)
        };
        let drawn = (0..DRAWS)
            .find_map(|_| self.draw(candidates, placement).into_iter().flatten().min_by_key(load));
        drawn.or_else(|| candidates.iter().min_by_key(load)).map(|stats| stats.slot)
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        if self.places.len() <= stats.slot {
            self.places.resize(stats.slot + 1, None);
        }
        let pool = stats.availability.grantable();
        if self.places[stats.slot].map(|(pool, _)| pool) != pool {
            self.on_remove(stats.slot);
            if let Some(pool) = pool {
                self.places[stats.slot] = Some((pool, self.pools[pool].len()));
                self.pools[pool].push(stats.slot as u32);
            }
        }
    }

    fn on_remove(&mut self, slot: usize) {
        if let Some((pool, at)) = self.places.get_mut(slot).and_then(Option::take) {
            self.pools[pool].swap_remove(at);
            if let Some(moved) = self.pools[pool].get(at) {
                self.places[*moved as usize] = Some((pool, at));
            }
        }
    }
}
