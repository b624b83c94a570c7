//! Which flow makes room for a new one.
//!
//! Owns the order of eviction: the least recently active flow first, and newcomers, with
//! a single datagram, before established flows. A flood of newcomers thus displaces
//! itself and not the flows in use. Knows no datagram.

use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::base::timer_queue::TimerQueue;

/// Newcomers are evicted first only while they hold at least a quarter of all flows. With
/// no such quarter no newcomer would last until its second datagram.
const NEW_PART: usize = 4;

/// The order of eviction. A list holds each flow at the time of its last activity, or
/// earlier, and may hold flows that have ended or been promoted.
#[derive(Debug, Default)]
pub struct EvictionOrder {
    newcomers: TimerQueue<Key>,
    established_list: TimerQueue<Key>,
    /// How many flows are established.
    count: usize,
}

/// Whether a flow is established, and when it was last active.
pub type Activity = (bool, Moment);

impl EvictionOrder {
    /// A flow begins, as a newcomer.
    pub fn insert(&mut self, flow: Key, now: Moment) {
        self.newcomers.schedule(now, flow);
    }

    /// A newcomer becomes established.
    pub fn promote(&mut self, flow: Key, now: Moment) {
        self.established_list.schedule(now, flow);
        self.count += 1;
    }

    /// A flow has ended.
    pub fn remove(&mut self, established: bool) {
        self.count -= usize::from(established);
    }

    /// Removes and returns the flow to evict, of this many `flows`.
    pub fn pop_least_active(
        &mut self,
        flows: usize,
        activity: impl Fn(Key) -> Option<Activity>,
    ) -> Option<Key> {
        let newcomers = flows - self.count >= (flows / NEW_PART).max(1);
        let list = if newcomers { &mut self.newcomers } else { &mut self.established_list };
        while let Some(ranked) = list.next_deadline() {
            let flow = list.pop_due(ranked)?;
            match activity(flow) {
                Some((established, touched)) if established != newcomers && touched > ranked => {
                    list.schedule(touched, flow)
                }
                Some((established, _)) if established != newcomers => return Some(flow),
                _ => {}
            }
        }
        None
    }

    /// Drops stale entries, if they could be the majority.
    pub fn prune(&mut self, flows: usize, activity: impl Fn(Key) -> Option<Activity>) {
        for (list, established) in
            [(&mut self.newcomers, false), (&mut self.established_list, true)]
        {
            if list.len() > 2 * flows + 1024 {
                list.retain(|flow| activity(flow).is_some_and(|(is, _)| is == established));
            }
        }
    }

    /// How many entries the lists have.
    #[cfg(test)]
    pub fn sizes(&self) -> [usize; 2] {
        [self.newcomers.len(), self.established_list.len()]
    }
}
