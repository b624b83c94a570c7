//! When an engine is told of a change.
//!
//! Owns the plan that the engine has. While the queue is away that plan stands. A queue
//! that is back may have been started anew: providers that it does not know yet stay for
//! a while.

use super::plan::Plan;
use crate::base::time::{Moment, Span};

/// Within so many intervals, and so long, every monitor has found a new queue.
const RETURN_INTERVALS: u64 = 5;
const RETURN_MIN: Span = Span::from_secs(5);

/// Decides when an engine is told of a change.
#[derive(Debug)]
pub struct Follower {
    interval: Span,
    plan: Option<Plan>,
    /// No transaction before.
    next: Moment,
    /// Until then no provider is gone because the queue does not know it.
    lenient_until: Moment,
    away: bool,
}

/// What an engine is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Transaction {
    /// The plan that it has; none: this is the first one.
    pub before: Option<Plan>,
    /// The plan that it gets.
    pub after: Plan,
}

impl Follower {
    /// A follower with at most one transaction an interval.
    pub fn new(interval: Span) -> Follower {
        Follower {
            interval,
            plan: None,
            next: Moment::ZERO,
            lenient_until: Moment::ZERO,
            away: false,
        }
    }

    /// How long the queue should count on this reader after it asked.
    pub fn lease(&self) -> Span {
        self.interval.times(RETURN_INTERVALS).max(RETURN_MIN)
    }

    /// The queue cannot be reached; answers whether that is news.
    pub fn lost(&mut self) -> bool {
        !std::mem::replace(&mut self.away, true)
    }

    /// The queue told this; what the engine is told now, if anything.
    pub fn told(&mut self, told: Plan, now: Moment) -> Option<Transaction> {
        if std::mem::take(&mut self.away) && self.plan.is_some() {
            self.lenient_until = now + self.lease();
        }
        if now < self.next {
            return None;
        }
        let after = match &self.plan {
            Some(plan) if now < self.lenient_until => told.with_missing(plan),
            _ => told,
        };
        if self.plan.as_ref().is_some_and(|plan| !plan.differs(&after)) {
            return None;
        }
        self.next = now + self.interval;
        let before = self.plan.replace(after.clone());
        Some(Transaction { before, after })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::of_weights as plan;
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Span::from_millis(millis))
    }

    #[test]
    fn only_changes_are_told_and_one_an_interval() {
        let mut follower = Follower::new(Span::from_secs(1));
        let first = follower.told(plan(&[1000, 1000]), at(0)).unwrap();
        assert_eq!((first.before, first.after), (None, plan(&[1000, 1000])));
        assert_eq!(follower.told(plan(&[1000, 1001]), at(1000)), None);
        let second = follower.told(plan(&[1000]), at(2000)).unwrap();
        assert_eq!(second.before, Some(plan(&[1000, 1000])));
        assert_eq!(follower.told(plan(&[1000, 1000]), at(2500)), None);
        assert!(follower.told(plan(&[1000, 1000]), at(3000)).is_some());
    }

    #[test]
    fn a_queue_that_started_anew_removes_nobody_at_once() {
        let mut follower = Follower::new(Span::from_secs(1));
        follower.told(plan(&[1000, 1000]), at(0));
        assert!(follower.lost() && !follower.lost());
        assert_eq!(follower.told(Plan::default(), at(3000)), None);
        assert_eq!(follower.told(plan(&[1000]), at(7900)), None);
        let gone = follower.told(plan(&[1000]), at(8000)).unwrap();
        assert_eq!(gone.after, plan(&[1000]));
    }
}
