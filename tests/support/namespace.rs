//! A network of the test's own: loopback, and nothing else.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
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

/// A network that this thread can enter and leave. It lasts as long as anything is in it.
pub struct Network(File);

impl Network {
    /// The one that this thread is in.
    #[track_caller]
    pub fn current() -> Network {
        Network(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// A new one, which this thread enters.
    #[track_caller]
    pub fn enter_new() -> Network {
        enter().unwrap();
        Network::current()
    }

    #[track_caller]
    pub fn enter(&self) {
        // SAFETY: the descriptor is open, and no memory is involved.
        let entered = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
    }

    /// Its name for `ip link … netns`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `ip` with these words, in the network that this thread is in.
#[track_caller]
pub fn ip(words: &str) {
    super::output(super::tool("ip").args(words.split(' ')));
}

/// The only ports of outgoing connections from now on, as `FIRST LAST`.
#[track_caller]
pub fn set_local_ports(range: &str) {
    // The kernel takes this for the network of the thread that writes it.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).unwrap();
}
