//! POSIX terminals.

use std::mem;
use std::ptr;
use std::sync::OnceLock;

/// How the terminal was.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// Signals that end a process that does not care for them.
const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

pub(super) fn start() -> bool {
    // SAFETY: the structure is plain data, which the call fills in.
    let settings = unsafe {
        let mut settings: libc::termios = mem::zeroed();
        if libc::tcgetattr(libc::STDIN_FILENO, &raw mut settings) != 0 {
            return false;
        }
        settings
    };
    let first = BEFORE.set(settings).is_ok();
    let mut raw = settings;
    raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
    raw.c_cc[libc::VMIN] = 1;
    raw.c_cc[libc::VTIME] = 0;
    if first {
        // SAFETY: both functions do nothing but what may be done in a signal's handler,
        // and the structure is plain data, for which zero is a valid start.
        unsafe {
            libc::atexit(at_exit);
            for signal in ENDING {
                let mut action: libc::sigaction = mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
    }
    // SAFETY: the structure lives for the call.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const raw) == 0 }
}

pub(super) fn restore() {
    if let Some(before) = BEFORE.get() {
        // SAFETY: the call is async-signal-safe, and the structure is never changed.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, ptr::from_ref(before)) };
    }
}

extern "C" fn at_exit() {
    restore();
}

extern "C" fn on_signal(signal: libc::c_int) {
    restore();
    // SAFETY: both calls are async-signal-safe. The signal ends the process when this
    // handler is over, as if there had been none.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
