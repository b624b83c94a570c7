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
    /// Requests in progress when it answered last.
    now: u32,
    /// It had requests that found no place, when it answered last.
    waits: bool,
    /// The parts of the whole that its traffic needs.
    demand: f64,
    /// Silent balancers: when its places may be given to others.
    until: Option<Moment>,
}

/// See the file's head.
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
        (share.now, share.waits, share.demand) = (now, waiting > 0, demand);
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
        let needs: Vec<u32> =
            self.shares.iter().map(|share| if up(&share) { share.now + u32::from(share.waits) } else { 0 }).collect();
        let needed = needs.iter().fold(0, |sum: u32, need| sum.saturating_add(*need));
        if needed > most {
            let parts = needs.iter().map(|need| f64::from(*need) / f64::from(needed)).collect::<Vec<_>>();
            return self.apportion(most, &parts);
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
        let mut wanted: Vec<u32> = needs.iter().zip(&fair).map(|(need, fair)| *need.max(fair)).collect();
        let mut over = wanted.iter().sum::<u32>().saturating_sub(most);
        while over > 0 {
            // The one with the most to spare gives.
            let spare = |place: &usize| wanted[*place] - needs[*place];
            let Some(richest) = (0..wanted.len()).max_by_key(spare).filter(|place| spare(place) > 0) else { break };
            wanted[richest] -= 1;
            over -= 1;
        }
        wanted
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
        let keeps = |place: usize| !self.shares[place].waits && self.shares[place].told > shares[place];
        let mut keys: Vec<(i64, bool)> = (0..count).map(|place| (-remainder(place), !keeps(place))).collect();
        order.sort_by_key(|place| std::mem::take(&mut keys[*place]));
        for place in order.into_iter().filter(|place| parts[*place] > 0.0).take(left as usize) {
            shares[place] += 1;
        }
        shares
    }
}
