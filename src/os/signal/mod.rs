//! What the operator asks of this process: signals, console events, calls of a manager.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `struct SignalSource` with `fn drain(&mut self)`: forgets the wake-ups that came.
//! - `fn install(&Registry, Token, &Arc<Waker>, managed: bool) -> io::Result<SignalSource>`:
//!   counts signals in `PENDING` from now on, and wakes the loop for each.
//! - `fn wake()` where `raise` is compiled: wakes the loop.

use mio::{Registry, Token, Waker};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod backend;

/// What a signal asks of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// End in good order; the second time: at once.
    Terminate,
    /// Read the configuration again.
    Reload,
    /// Open the log file again.
    Reopen,
    /// Let a new process take over.
    Upgrade,
}

/// How often each signal came and was not seen yet: `Terminate` in the low
/// byte, then `Reload`, `Reopen`, `Upgrade`.
static PENDING: AtomicU32 = AtomicU32::new(0);
const ONE: [u32; 4] = [1, 1 << 8, 1 << 16, 1 << 24];

/// A signal that comes by a call: from a console, or a manager of services.
#[cfg(windows)]
pub(super) fn raise(signal: Signal) {
    PENDING.fetch_add(ONE[signal as usize], Ordering::Relaxed);
    backend::wake();
}

/// Signals as readiness of the token that they were installed with.
pub struct Signals(backend::SignalSource);

impl Signals {
    /// Catches this process's signals from now on; they wake the poll of
    /// `registry` under `token`, or through `waker`. `managed`: a manager of
    /// services tells this process when the system ends.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn install(
        registry: &Registry,
        token: Token,
        waker: &Arc<Waker>,
        managed: bool,
    ) -> io::Result<Signals> {
        backend::install(registry, token, waker, managed).map(Signals)
    }

    /// The signals that came since the last call.
    pub fn take(&mut self) -> Vec<Signal> {
        self.0.drain();
        let pending = PENDING.swap(0, Ordering::Relaxed);
        let count = |signal: usize| (pending >> (8 * signal)) & 0xff;
        let mut signals = vec![Signal::Terminate; count(0) as usize];
        for (number, signal) in [(1, Signal::Reload), (2, Signal::Reopen), (3, Signal::Upgrade)] {
            if count(number) > 0 {
                signals.push(signal);
            }
        }
        signals
    }
}
