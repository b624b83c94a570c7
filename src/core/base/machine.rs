//! The shape of every state machine: inputs with `now`, outputs as values.
//!
//! Owns one trait. A machine knows no socket, clock, file or thread, so the
//! loop in `net` and a simulator in the tests drive the very same code.

use super::time::Moment;

/// A state machine driven by [`handle`](Machine::handle) and
/// [`expire`](Machine::expire), emptied by [`poll`](Machine::poll).
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it wants done.
    type Output;

    /// Something happened.
    fn handle(&mut self, input: Self::Input, now: Moment);

    /// Time passed.
    fn expire(&mut self, now: Moment);

    /// When it wants [`expire`](Machine::expire) to be called, if ever.
    fn deadline(&self) -> Option<Moment>;

    /// The next thing to do; asked until there is none.
    fn poll(&mut self) -> Option<Self::Output>;
}
