//! The shape of every state machine: inputs with `now`, outputs as values.
//!
//! Owns one trait, and the machine that does nothing. A machine knows no socket, clock, file or
//! thread, so the loop in `net` and a simulator in the tests drive the very same code.

use super::time::Moment;

/// A state machine driven by [`handle_input`](StateMachine::handle_input) and
/// [`handle_timeout`](StateMachine::handle_timeout), and emptied by
/// [`poll_output`](StateMachine::poll_output).
pub trait StateMachine {
    /// What can happen to it.
    type Input;
    /// What it wants done.
    type Output;

    /// Something happened.
    fn handle_input(&mut self, input: Self::Input, now: Moment);

    /// Time passed.
    fn handle_timeout(&mut self, now: Moment);

    /// When it wants [`handle_timeout`](StateMachine::handle_timeout) to be called, if ever.
    fn next_timeout(&self) -> Option<Moment>;

    /// The next thing to do; asked until there is none.
    fn poll_output(&mut self) -> Option<Self::Output>;
}

/// For a loop in which there is nothing to decide.
pub struct NoStateMachine;

impl StateMachine for NoStateMachine {
    type Input = ();
    type Output = ();

    fn handle_input(&mut self, (): (), _: Moment) {}
    fn handle_timeout(&mut self, _: Moment) {}
    fn next_timeout(&self) -> Option<Moment> {
        None
    }
    fn poll_output(&mut self) -> Option<()> {
        None
    }
}
