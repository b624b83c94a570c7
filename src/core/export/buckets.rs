//! Which provider a hash of a client's address leads to.
//!
//! Owns the table of buckets. Each bucket goes to the provider with the highest weighted
//! random number (rendezvous hashing, Thaler and Ravishankar 1998), so that a change of
//! one provider moves few clients of the others.

use super::plan::Plan;
use crate::base::provider::Provider;
use crate::base::random::Random;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Buckets for a service of usual size, and for one of many providers.
const FEW: u32 = 1024;
const MANY: u32 = 4096;
/// From so many providers on it is one of many.
const MANY_FROM: usize = 128;

/// A run of neighbouring buckets, and the place of their provider in the plan.
pub type Run = (RangeInclusive<u32>, usize);

/// The number of buckets, and the runs that cover them all; no run where no provider of
/// `eligible` is open.
pub fn runs(plan: &Plan, eligible: impl Fn(&Provider) -> bool) -> (u32, Vec<Run>) {
    let open: Vec<(usize, u64, f64)> = plan
        .backends()
        .iter()
        .enumerate()
        .filter(|(_, backend)| backend.open && eligible(&backend.provider))
        .map(|(place, backend)| (place, seed(&backend.provider), backend.weight as f64))
        .collect();
    let count = if open.len() < MANY_FROM { FEW } else { MANY };
    let mut runs: Vec<Run> = Vec::new();
    for bucket in 0..count {
        let score = |(_, seed, weight): &(usize, u64, f64)| {
            weight / -unit(mix(seed ^ mix(u64::from(bucket)))).ln()
        };
        let best = open.iter().max_by(|one, other| score(one).total_cmp(&score(other)));
        let Some((place, ..)) = best else { break };
        match runs.last_mut() {
            Some((range, last)) if last == place => *range = *range.start()..=bucket,
            _ => runs.push((bucket..=bucket, *place)),
        }
    }
    (count, runs)
}

/// Always the same for a provider, whichever program asks.
fn seed(provider: &Provider) -> u64 {
    let fold = |seed, byte: &u8| mix(seed ^ u64::from(*byte));
    let seed = match provider.ip {
        IpAddr::V4(ip) => ip.octets().iter().fold(0x7347, fold),
        IpAddr::V6(ip) => ip.octets().iter().fold(0x7347, fold),
    };
    provider.port.unwrap_or(0).to_be_bytes().iter().fold(seed, fold)
}

fn mix(value: u64) -> u64 {
    Random::new(value).bits()
}

/// Above 0, below 1.
fn unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::of_weights as plan;
    use super::*;

    /// By bucket: its provider.
    fn table(plan: &Plan) -> Vec<usize> {
        let (count, runs) = runs(plan, |_| true);
        let mut table = Vec::new();
        for (range, place) in runs {
            assert_eq!(*range.start() as usize, table.len(), "a gap");
            table.extend(range.map(|_| place));
        }
        assert!(table.is_empty() || table.len() == count as usize);
        table
    }

    #[test]
    fn buckets_follow_the_weights() {
        let table = table(&plan(&[1000, 2000, 0, 4000]));
        let count = |place| table.iter().filter(|bucket| **bucket == place).count() as f64;
        for (place, part) in [(0, 1.0 / 7.0), (1, 2.0 / 7.0), (2, 0.0), (3, 4.0 / 7.0)] {
            let got = count(place) / table.len() as f64;
            assert!((got - part).abs() < 0.04, "{place}: {got} instead of {part}");
        }
    }

    #[test]
    fn who_leaves_moves_only_its_own_clients() {
        let (before, after) = (plan(&[1000, 1000, 1000]), plan(&[1000, 0, 1000]));
        for (old, new) in table(&before).into_iter().zip(table(&after)) {
            assert!(old == new || old == 1, "{old} became {new}");
        }
        assert!(table(&plan(&[0])).is_empty());
    }
}
