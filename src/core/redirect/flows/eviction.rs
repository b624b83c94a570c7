//! Which flow makes room for a newcomer.
//!
//! Owns the order in which flows are given up: who was silent for the longest
//! time, first among strangers, who sent one datagram only, so that a flood of
//! these displaces itself and not the flows that are in use. Knows no datagram.

use crate::base::slab::Key;
use crate::base::time::Moment;
use crate::base::timer_queue::TimerQueue;

/// Strangers may have a quarter of all places, if others give them up: without
/// any, no newcomer would last until its second datagram.
const NEW_PART: usize = 4;

/// See the file's head. A list holds each flow at the time when it was last
/// touched, or earlier, and perhaps some that are gone or no strangers any more.
#[derive(Debug, Default)]
pub struct EvictionOrder {
    strangers: TimerQueue<Key>,
    regulars: TimerQueue<Key>,
    /// How many flows are regulars.
    count: usize,
}

/// What is known of a flow: whether it is a regular, and when it was touched.
pub type Activity = (bool, Moment);

impl EvictionOrder {
    /// A flow begins, as a stranger.
    pub fn insert(&mut self, flow: Key, now: Moment) {
        self.strangers.schedule(now, flow);
    }

    /// It is no stranger any more.
    pub fn promote(&mut self, flow: Key, now: Moment) {
        self.regulars.schedule(now, flow);
        self.count += 1;
    }

    /// A flow ended.
    pub fn remove(&mut self, regular: bool) {
        self.count -= usize::from(regular);
    }

    /// Takes out the one that is given up first, of so many.
    pub fn pop_least_active(&mut self, flows: usize, standing: impl Fn(Key) -> Option<Activity>) -> Option<Key> {
        let strangers = flows - self.count >= (flows / NEW_PART).max(1);
        let list = if strangers { &mut self.strangers } else { &mut self.regulars };
        while let Some(ranked) = list.next_deadline() {
            let flow = list.pop_due(ranked)?;
            match standing(flow) {
                Some((regular, touched)) if regular != strangers && touched > ranked => list.schedule(touched, flow),
                Some((regular, _)) if regular != strangers => return Some(flow),
                _ => {}
            }
        }
        None
    }

    /// Forgets who is gone, where that could be most of what is known.
    pub fn prune(&mut self, flows: usize, standing: impl Fn(Key) -> Option<Activity>) {
        for (list, regular) in [(&mut self.strangers, false), (&mut self.regulars, true)] {
            if list.len() > 2 * flows + 1024 {
                list.retain(|flow| standing(flow).is_some_and(|(is, _)| is == regular));
            }
        }
    }

    /// How long the lists are.
    #[cfg(test)]
    pub fn sizes(&self) -> [usize; 2] {
        [self.strangers.len(), self.regulars.len()]
    }
}
