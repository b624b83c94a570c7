//! Which flow makes room for a new one.
//!
//! Owns the order in which flows are given up: the longest silent first, and first
//! among newcomers, of which one datagram came. So a flood of newcomers displaces itself
//! and not the flows that are in use. Knows no datagram.

use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::base::timer_queue::TimerQueue;

/// Newcomers may have one in so many of all flows: with none, no newcomer would last
/// until its second datagram.
const NEW_PART: usize = 4;

/// The flows in the order of their last datagram. A list holds each flow at the time
/// when it was last touched, or earlier, and perhaps some that are gone or no newcomers
/// any more.
#[derive(Debug, Default)]
pub struct EvictionOrder {
    newcomers: TimerQueue<Key>,
    established_list: TimerQueue<Key>,
    /// How many flows are established.
    count: usize,
}

/// What is known of a flow: whether it is established, and when it was touched.
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

    /// Forgets flows that are gone, where they could be most of a list.
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
