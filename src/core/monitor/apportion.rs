//! Dividing slots among those who ask, half evenly and half by demand.
//!
//! Owns the arithmetic; the sum of whole shares stays within one of the whole.

use crate::base::random::Random;

/// The part of each: half even, half by demand; even while there is no demand.
pub fn shares(demand: &[f64]) -> Vec<f64> {
    let total: f64 = demand.iter().sum();
    let even = 1.0 / demand.len().max(1) as f64;
    demand
        .iter()
        .map(|demand| if total > 0.0 { 0.5 * even + 0.5 * demand / total } else { even })
        .collect()
}

/// Rounds shares to whole numbers, each up or down at random with the right
/// mean, so that their sum is within one of the sum of the shares (systematic
/// rounding, from a random place in a random order).
pub fn round(shares: &[f64], random: &mut Random) -> Vec<u32> {
    let mut whole = vec![0; shares.len()];
    let (offset, start) = (random.unit(), random.below(shares.len().max(1)));
    let (mut sum, mut given) = (offset, 0.0);
    for step in 0..shares.len() {
        let place = (start + step) % shares.len();
        sum += shares[place].max(0.0);
        // A hair more, so that 0.1 + 0.2 + … + 0.9 does not lose a whole.
        let reached = (sum + 1e-9).floor();
        whole[place] = (reached - given) as u32;
        given = reached;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_shares_add_up_and_are_fair_in_the_mean() {
        let shares = [0.3, 2.5, 0.2, 1.0];
        let mut random = Random::new(1);
        let mut sums = [0u32; 4];
        for _ in 0..10_000 {
            let whole = round(&shares, &mut random);
            assert_eq!(whole.iter().sum::<u32>(), 4);
            for (sum, whole) in sums.iter_mut().zip(whole) {
                *sum += whole;
            }
        }
        for (sum, share) in sums.iter().zip(shares) {
            assert!((f64::from(*sum) / 10_000.0 - share).abs() < 0.03, "{sums:?}");
        }
        assert_eq!(round(&[25.0], &mut random), [25]);
    }

    #[test]
    fn half_even_half_by_demand() {
        assert_eq!(shares(&[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(shares(&[3.0, 1.0]), [0.625, 0.375]);
        assert_eq!(shares(&[]), Vec::<f64>::new());
    }
}
