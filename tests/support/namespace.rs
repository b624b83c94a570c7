//! A network of the test's own: loopback, and nothing else.

use std::fs;
use std::thread;

/// Runs a closure in a thread with a network of its own. Processes that it starts are in
/// that network too, and end with the thread. Where that is not allowed, says so, and
/// does nothing.
#[track_caller]
pub fn alone(run: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(move || match enter() {
            Ok(()) => run(),
            Err(why) => crate::support::skip(&format!("no network namespace here: {why}")),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Moves this thread into a network of its own. Threads and processes that it starts later
/// are in it too.
pub fn enter() -> std::io::Result<()> {
    // SAFETY: no memory is involved; only this thread moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let status = super::tool("ip").args(["link", "set", "lo", "up"]).status()?;
    status.success().then_some(()).ok_or(std::io::Error::other("ip link set lo up"))
}

/// The only ports of outgoing connections from now on, as `FIRST LAST`.
#[track_caller]
pub fn set_local_ports(range: &str) {
    // The kernel takes this for the network of the thread that writes it.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).unwrap();
}
