//! Console control events of Windows: Ctrl-C, Ctrl-Break and closing drain. A
//! service's controls come the same way.

use super::Signal;
use mio::{Registry, Token, Waker};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use windows_sys::Win32::System::Console::{
    SetConsoleCtrlHandler, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT,
};

static WAKER: OnceLock<Arc<Waker>> = OnceLock::new();
static MANAGED: AtomicBool = AtomicBool::new(false);

pub(super) struct SignalSource;

unsafe extern "system" fn handle(event: u32) -> i32 {
    // Only services hear that a user, any user, logs off, and they stay. Of the
    // end of the system they hear by their manager, too: twice would be "at once".
    if event == CTRL_LOGOFF_EVENT || event == CTRL_SHUTDOWN_EVENT && MANAGED.load(Ordering::Relaxed)
    {
        return 1;
    }
    super::raise(Signal::Terminate);
    // Windows ends the process when this returns, or some seconds later: time to
    // drain. This is a thread of its own, which ends with the process.
    while event == CTRL_CLOSE_EVENT || event == CTRL_SHUTDOWN_EVENT {
        thread::park();
    }
    1
}

pub(super) fn wake() {
    if let Some(waker) = WAKER.get() {
        let _ = waker.wake();
    }
}

pub(super) fn install(
    _: &Registry,
    _: Token,
    waker: &Arc<Waker>,
    managed: bool,
) -> io::Result<SignalSource> {
    MANAGED.store(managed, Ordering::Relaxed);
    let _ = WAKER.set(waker.clone());
    // The manager may have ended this service before it listened.
    wake();
    // SAFETY: the handler is a function that lives as long as the process.
    if unsafe { SetConsoleCtrlHandler(Some(handle), 1) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(SignalSource)
}

impl SignalSource {
    pub(super) fn drain(&mut self) {}
}
