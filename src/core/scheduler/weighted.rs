//! `weighted`: smooth turns in proportion to tickets (EEVDF, Stoica and Abdel-Wahab
//! 1995).
//!
//! Owns [`Weighted`], which `competitive` uses for requests that are not counted. Each
//! choice is one tick of a clock that runs one turn for each ticket of all providers. A
//! provider's next turn starts after its last one, by its share. Of the turns that have
//! started, the one that should end first is chosen. No provider is ever more than about
//! one turn ahead or behind. Turns are as even as the smooth weighted round robin of
//! nginx, which examines all providers for each choice.

use super::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use crate::base::ordered_index::OrderedIndex;

/// The length of a turn with one ticket; with two it is half of that.
const TURN: i128 = 1 << 64;

/// Providers of one availability, which take turns.
#[derive(Default)]
struct RunQueue {
    virtual_time: i128,
    /// Sum of all weights.
    weight: u64,
    /// How far a choice moves the clock. Stored, because division is slow.
    tick: i128,
    /// Providers whose turn has started, by its end.
    eligible: OrderedIndex<i128>,
    /// The other providers, by the start of their turn.
    future: OrderedIndex<i128>,
}

#[derive(Clone, Copy)]
struct Turn {
    run_queue: usize,
    weight: u32,
    start: i128,
    length: i128,
}

impl RunQueue {
    fn weigh(&mut self, weight: u64) {
        self.weight = weight;
        self.tick = TURN / i128::from(weight.max(1));
    }
}

impl Turn {
    fn end(&self) -> i128 {
        self.start + self.length
    }
}

/// The scheduler. A choice takes logarithmic time.
#[derive(Default)]
pub struct Weighted {
    run_queues: [RunQueue; Availability::GRANTABLE],
    /// By slot: its turn, or how far ahead of the clock it was when it left.
    turns: Vec<Result<Turn, i128>>,
}

impl Weighted {
    /// Removes a provider from its run queue, but remembers how far ahead it is.
    fn dequeue(&mut self, slot: usize) {
        let Some(Ok(turn)) = self.turns.get(slot).copied() else { return };
        let queue = &mut self.run_queues[turn.run_queue];
        queue.weigh(queue.weight - u64::from(turn.weight));
        if !queue.future.remove(turn.start, slot) {
            queue.eligible.remove(turn.end(), slot);
        }
        self.turns[slot] = Err(turn.start - queue.virtual_time);
    }

    fn enqueue(&mut self, slot: usize, queue: usize, weight: u32) {
        let Err(ahead) = self.turns[slot] else { return };
        let length = TURN / i128::from(weight);
        let number = queue;
        let queue = &mut self.run_queues[number];
        let turn = Turn {
            run_queue: number,
            weight,
            start: queue.virtual_time + ahead.clamp(-length, length),
            length,
        };
        queue.weigh(queue.weight + u64::from(weight));
        queue.future.insert(turn.start, slot);
        self.turns[slot] = Ok(turn);
    }
}

impl Scheduler for Weighted {
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize> {
        for number in placement.availabilities().iter().filter_map(|state| state.grantable()) {
            let queue = &mut self.run_queues[number];
            while let Some((start, slot)) =
                queue.future.first().filter(|(start, _)| *start <= queue.virtual_time)
            {
                queue.future.remove(start, slot);
                if let Ok(turn) = &self.turns[slot] {
                    queue.eligible.insert(turn.end(), slot);
                }
            }
            // Only the few providers that the request avoids are passed over.
            let mut candidate = |slot| candidates.candidate(slot).is_some();
            let found =
                queue.eligible.find(&mut candidate).or_else(|| queue.future.find(&mut candidate));
            let Some((_, slot)) = found else { continue };
            let Ok(turn) = self.turns[slot] else { continue };
            if !queue.eligible.remove(turn.end(), slot) {
                queue.future.remove(turn.start, slot);
            }
            let next = Turn { start: turn.end(), ..turn };
            queue.future.insert(next.start, slot);
            queue.virtual_time += queue.tick;
            self.turns[slot] = Ok(next);
            return Some(slot);
        }
        None
    }

    fn on_update(&mut self, stats: &ProviderStats) {
        let slot = stats.slot;
        if self.turns.len() <= slot {
            self.turns.resize(slot + 1, Err(0));
        }
        let (queue, weight) = (stats.availability.grantable(), stats.tickets.max(1));
        let known = self.turns[slot].ok().map(|turn| (turn.run_queue, turn.weight));
        if known != queue.map(|queue| (queue, weight)) {
            self.dequeue(slot);
            if let Some(queue) = queue {
                self.enqueue(slot, queue, weight);
            }
        }
    }

    fn on_remove(&mut self, slot: usize) {
        self.dequeue(slot);
        if let Some(turn) = self.turns.get_mut(slot) {
            *turn = Err(0);
        }
    }
}
