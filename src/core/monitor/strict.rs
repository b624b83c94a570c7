//! Dividing a strict capacity among balancers: together they never have more
//! requests in progress than it.
//!
//! Owns what each balancer may have in progress at the most (its bound), from
//! what it was told and what it answered. A place moves only after the balancer
//! that loses it has answered that it is below its new share. Knows no message
//! and no clock.
//!
//! What is known of a balancer that fell silent: no more than its bound is in
//! progress there. Until its lease ends it may grant, and what it granted may
//! go on after that, so its bound stays reserved until it answers again, for
//! [`RESERVED_MAX`] at the most.

use crate::base::time::{Moment, Span};
use std::collections::VecDeque;

/// How long the places of a silent balancer stay reserved, beyond its lease:
/// as long as a redirector lets a silent connection live by default.
pub const RESERVED_MAX: Span = Span::from_secs(600);

/// What is known of one balancer.
#[derive(Clone, Debug)]
struct Share {
    /// The share it was told last.
    told: u32,
    /// The shares that it was told and has not answered to, oldest first.
    unanswered: VecDeque<u32>,
    /// It has no more requests in progress than that.
    bound: u32,
    /// It has answered, so that the bound is its own and not only that of all.
    known: bool,
    /// Requests in progress when it answered last.
    now: u32,
    /// It had requests that found no place, when it answered last.
    waits: bool,
    /// The parts of the whole that its traffic needs.
    demand: f64,
    /// Silent balancers: when its places may be given to others.
    until: Option<Moment>,
}

/// Divides a strict capacity among balancers.
#[derive(Clone, Debug)]
pub struct Strict {
    most: u32,
    shares: Vec<Share>,
    /// Whose turn it is where not everybody can have what it needs.
    turn: usize,
}

impl Strict {
    /// Nothing is known of so many balancers: each may hold all of an earlier
    /// monitor's offer until it answers, or until `lease` has passed.
    pub fn new(most: u32, balancers: usize, lease: Span, now: Moment) -> Strict {
        let share = Share {
            told: 0,
            unanswered: VecDeque::new(),
            bound: most,
            known: false,
            now: 0,
            waits: false,
            demand: 0.0,
            until: Some(now + lease),
        };
        Strict { most, shares: vec![share; balancers], turn: 0 }
    }

    /// Another capacity from now on.
    pub fn set_most(&mut self, most: u32) {
        self.most = most;
    }

    /// The most of all together.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// This balancer can be talked to: it will say what it has.
    pub fn up(&mut self, balancer: usize) {
        let Some(share) = self.shares.get_mut(balancer) else { return };
        if share.bound == 0 {
            // It was given up, and may have something in progress all the same.
            (share.bound, share.known) = (self.most, false);
        }
        share.until = None;
        share.unanswered.clear();
    }

    /// This balancer is away; its lease ends within `lease`.
    pub fn down(&mut self, balancer: usize, lease: Span, now: Moment) {
        let Some(share) = self.shares.get_mut(balancer) else { return };
        // What was on its way to it may have arrived.
        share.unanswered.clear();
        (share.waits, share.now, share.demand) = (false, 0, 0.0);
        share.until.get_or_insert(now + lease + RESERVED_MAX);
    }

    /// This balancer is told its share.
    pub fn tell(&mut self, balancer: usize, places: u32) {
        let Some(share) = self.shares.get_mut(balancer) else { return };
        share.told = places;
        share.bound = share.bound.max(places);
        share.unanswered.push_back(places);
    }

    /// It answered: so many are in progress there, so many found no place, and
    /// its traffic in any unit.
    pub fn answered(&mut self, balancer: usize, now: u32, waiting: u64, demand: f64) {
        let Some(share) = self.shares.get_mut(balancer) else { return };
        let Some(applied) = share.unanswered.pop_front() else { return };
        (share.now, share.waits, share.demand, share.known) = (now, waiting > 0, demand, true);
        // Above its share it grants nothing, so what is in progress only falls.
        share.bound = share.unanswered.iter().copied().fold(now.max(applied), u32::max);
    }

    /// It answered that it takes no offers.
    pub fn refused(&mut self, balancer: usize) {
        if let Some(share) = self.shares.get_mut(balancer) {
            share.unanswered.pop_front();
        }
    }

    /// Whether a balancer has nothing to spare, so that places may have to move
    /// before the interval is over.
    pub fn is_tight(&self) -> bool {
        let up = || self.shares.iter().filter(|share| share.until.is_none());
        up().count() > 1 && up().any(|share| share.waits || share.now >= share.told)
            || up().any(|share| share.told < share.bound)
    }

    /// Whether requests wait at a balancer that can be talked to.
    pub fn has_waiting(&self) -> bool {
        self.shares.iter().any(|share| share.until.is_none() && share.waits)
    }

    /// Requests that all may have in progress now, at the most.
    pub fn bound(&self) -> u32 {
        self.shares.iter().fold(0, |sum, share| sum.saturating_add(share.bound))
    }

    /// The share of each balancer now; what cannot be given yet follows when
    /// others have answered.
    pub fn shares(&mut self, now: Moment) -> Vec<u32> {
        for share in &mut self.shares {
            if share.until.is_some_and(|until| now >= until) {
                share.bound = 0;
            }
        }
        let wanted = self.wanted();
        let mut room = self.most.saturating_sub(self.bound());
        let count = self.shares.len();
        let mut shares = vec![0; count];
        // Those with requests that wait come first, and all in turn.
        let mut order: Vec<usize> = (0..count).map(|place| (place + self.turn) % count).collect();
        order.sort_by_key(|balancer| !self.shares[*balancer].waits);
        self.turn = (self.turn + 1) % count.max(1);
        for balancer in order {
            let share = &self.shares[balancer];
            if !share.known && count > 1 {
                continue;
            }
            let more = wanted[balancer].saturating_sub(share.bound).min(room);
            room -= more;
            shares[balancer] = wanted[balancer].min(share.bound + more);
        }
        shares
    }

    /// The shares that would be right if places could move at once: what each
    /// has and needs, and the rest half evenly and half by demand.
    fn wanted(&self) -> Vec<u32> {
        let up = |share: &&Share| share.until.is_none();
        let silent = self.shares.iter().filter(|share| !up(share)).map(|share| share.bound);
        let most = self.most.saturating_sub(silent.fold(0, u32::saturating_add));
        let count = self.shares.iter().filter(up).count();
        let needs: Vec<u32> = self
            .shares
            .iter()
            .map(|share| if up(&share) { share.now.saturating_add(share.waits.into()) } else { 0 })
            .collect();
        let needed = needs.iter().fold(0, |sum: u32, need| sum.saturating_add(*need));
        if needed > most {
            return self.deal(most, &needs);
        }
        let demand: f64 = self.shares.iter().map(|share| share.demand).sum();
        let even = 1.0 / count.max(1) as f64;
        let part = |share: &Share| match share {
            share if !up(&share) => 0.0,
            share if demand > 0.0 => 0.5 * even + 0.5 * share.demand / demand,
            _ => even,
        };
        // First what is needed, then the parts as far as there is enough for them.
        let parts: Vec<f64> = self.shares.iter().map(part).collect();
        let fair = self.apportion(most, &parts);
        let mut wanted: Vec<u32> =
            needs.iter().zip(&fair).map(|(need, fair)| *need.max(fair)).collect();
        let mut over = wanted.iter().sum::<u32>().saturating_sub(most);
        while over > 0 {
            // The one with the most to spare gives.
            let spare = |place: &usize| wanted[*place] - needs[*place];
            let Some(richest) =
                (0..wanted.len()).max_by_key(spare).filter(|place| spare(place) > 0)
            else {
                break;
            };
            wanted[richest] -= 1;
            over -= 1;
        }
        wanted
    }

    /// Places one by one in turn to those that still need one, so that under
    /// contention each gets some, sooner or later.
    fn deal(&self, most: u32, needs: &[u32]) -> Vec<u32> {
        let mut shares = vec![0; needs.len()];
        let mut left = most;
        while left > 0 {
            let before = left;
            for step in 0..needs.len() {
                let place = (step + self.turn) % needs.len();
                if left > 0 && shares[place] < needs[place] {
                    shares[place] += 1;
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
        shares
    }

    /// Whole shares in these parts of a whole; remainders to the largest, equals
    /// to those that hold places already, then in turn.
    fn apportion(&self, whole: u32, parts: &[f64]) -> Vec<u32> {
        let exact: Vec<f64> = parts.iter().map(|part| part * f64::from(whole)).collect();
        let mut shares: Vec<u32> = exact.iter().map(|exact| (exact + 1e-9) as u32).collect();
        let left = whole.saturating_sub(shares.iter().sum());
        let count = parts.len();
        let mut order: Vec<usize> = (0..count).map(|place| (place + self.turn) % count).collect();
        let remainder = |place: usize| ((exact[place] - f64::from(shares[place])) * 1e6) as i64;
        let keeps =
            |place: usize| !self.shares[place].waits && self.shares[place].told > shares[place];
        let mut keys: Vec<(i64, bool)> =
            (0..count).map(|place| (-remainder(place), !keeps(place))).collect();
        order.sort_by_key(|place| std::mem::take(&mut keys[*place]));
        for place in order.into_iter().filter(|place| parts[*place] > 0.0).take(left as usize) {
            shares[place] += 1;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    const LEASE: Span = Span::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Span::from_secs(seconds))
    }

    fn heard(most: u32, balancers: usize) -> Strict {
        let mut strict = Strict::new(most, balancers, LEASE, at(0));
        for balancer in 0..balancers {
            strict.up(balancer);
        }
        for balancer in 0..balancers {
            strict.tell(balancer, 0);
            strict.answered(balancer, 0, 0, 0.0);
        }
        strict
    }

    #[test]
    fn nothing_is_given_before_all_have_said_what_they_have() {
        let mut strict = Strict::new(3, 2, LEASE, at(0));
        strict.up(0);
        strict.tell(0, 0);
        strict.answered(0, 1, 0, 0.0);
        assert_eq!(
            strict.shares(at(4)),
            [0, 0],
            "an earlier monitor may have led three to the other one"
        );
        assert_eq!(strict.shares(at(5)), [3, 0], "its lease is over");
        let mut alone = Strict::new(3, 1, LEASE, at(0));
        alone.up(0);
        assert_eq!(alone.shares(at(0)), [3], "there is no other");
    }

    #[test]
    fn a_place_moves_when_its_holder_has_answered_that_it_is_free() {
        let mut strict = heard(1, 2);
        let first = strict.shares(at(0));
        let holder = first.iter().position(|share| *share == 1).unwrap();
        let other = 1 - holder;
        strict.tell(holder, 1);
        strict.answered(holder, 1, 0, 1.0);
        strict.tell(other, 0);
        strict.answered(other, 0, 5, 5.0);
        for _ in 0..3 {
            let shares = strict.shares(at(1));
            assert_eq!(shares[other], 0, "the place is in use");
            strict.tell(holder, shares[holder]);
            strict.answered(holder, 1, 0, 1.0);
        }
        strict.tell(holder, 0);
        strict.answered(holder, 0, 0, 1.0);
        strict.tell(other, 0);
        strict.answered(other, 0, 5, 5.0);
        assert_eq!(strict.shares(at(2))[other], 1);
    }

    #[test]
    fn under_contention_each_gets_its_turn() {
        let mut strict = heard(2, 3);
        let mut had = [0; 3];
        for _ in 0..30 {
            let shares = strict.shares(at(1));
            for (balancer, share) in shares.into_iter().enumerate() {
                strict.tell(balancer, share);
                had[balancer] += share;
                // All that it may have ends before the next turn, and more wait.
                strict.answered(balancer, 0, 1, 1.0);
            }
        }
        // A place that moves belongs to no balancer for one turn.
        assert!(had.iter().all(|had| *had >= 8), "{had:?}");
    }

    #[test]
    fn the_places_of_a_silent_balancer_stay_reserved() {
        let mut strict = heard(4, 2);
        for balancer in 0..2 {
            strict.tell(balancer, 2);
            strict.answered(balancer, 2, 9, 1.0);
        }
        strict.down(0, LEASE, at(10));
        assert_eq!(strict.shares(at(11)), [0, 2]);
        assert_eq!(strict.shares(at(10 + 5 + 599)), [0, 2]);
        assert_eq!(strict.shares(at(10 + 5 + 600)), [0, 4]);
    }

    /// Balancers that grant all they may, lose messages, fall silent and return:
    /// the sum of what they have in progress never exceeds the capacity.
    #[test]
    fn whatever_happens_the_sum_stays_within_the_capacity() {
        let given = std::env::var("PEGASUS_SEED").unwrap_or_default();
        let first = u64::from_str_radix(given.trim_start_matches("0x"), 16).unwrap_or(0x7347);
        println!("replay: PEGASUS_SEED={first:#x}");
        let mut moved = 0;
        for seed in first..first + 300 {
            let mut random = Random::new(seed);
            let (most, count) = ([1, 2, 8][random.below(3)], [1, 4, 16][random.below(3)]);
            let mut strict = Strict::new(most, count, LEASE, at(0));
            // By balancer: capacity, in progress, messages under way, up.
            let mut balancers = vec![(0u32, 0u32, VecDeque::<u32>::new(), false); count];
            for step in 0..2000u64 {
                let now = Moment::after_start(Span::from_millis(6000 + 10 * step));
                let balancer = random.below(count);
                let (capacity, active, messages, up) = &mut balancers[balancer];
                match random.below(8) {
                    0 if !*up => {
                        *up = true;
                        strict.up(balancer);
                    }
                    0 if random.below(10) == 0 => {
                        // Some of what was sent still arrives, and its reply is lost.
                        let arrives = random.below(messages.len() + 1);
                        messages.drain(..).take(arrives).for_each(|share| *capacity = share);
                        *up = false;
                        strict.down(balancer, LEASE, now);
                    }
                    1 | 2 if *up && !messages.is_empty() => {
                        *capacity = messages.pop_front().unwrap();
                        let waiting = u64::from(*active >= *capacity);
                        strict.answered(balancer, *active, waiting, f64::from(*active));
                    }
                    3 => {
                        for (balancer, share) in strict.shares(now).into_iter().enumerate() {
                            if balancers[balancer].3 && balancers[balancer].2.len() < 3 {
                                balancers[balancer].2.push_back(share);
                                strict.tell(balancer, share);
                            }
                        }
                    }
                    4 if *active > 0 => *active -= 1,
                    _ if *active < *capacity => {
                        *active += 1;
                        moved += 1;
                    }
                    _ => {}
                }
                let sum: u32 = balancers.iter().map(|(_, active, ..)| active).sum();
                assert!(sum <= most, "seed {seed:#x}, step {step}: {sum} of {most} in progress");
            }
        }
        assert!(moved > 10_000, "a bound that is never used proves nothing: {moved}");
    }
}
