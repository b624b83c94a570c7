//! Choices out of bytes, and the turns of a state machine.

use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};

/// Timeouts between two inputs; more would be a machine that spins.
const TURNS_MAX: usize = 100_000;

/// Bytes to choose by; zeros when they are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) =
            self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// Mostly a moment, sometimes days.
    pub fn span(&mut self) -> Span {
        let factor = u64::from(self.byte());
        match self.below(16) {
            0 => Span::ZERO,
            1 => Span::from_secs(factor * 1000),
            2..=5 => Span::from_secs(factor),
            _ => Span::from_millis(factor * 8),
        }
    }
}

/// Lets time pass as a loop would, until an output says that all is over.
pub fn pass<M: StateMachine>(
    machine: &mut M,
    now: Moment,
    mut is_over: impl FnMut(M::Output) -> bool,
) {
    for turn in 0.. {
        while let Some(output) = machine.poll_output() {
            if is_over(output) {
                return;
            }
        }
        if machine.next_timeout().is_none_or(|next| next > now) {
            return;
        }
        assert!(turn < TURNS_MAX, "it spins");
        machine.handle_timeout(now);
    }
}
