//! Networks of the test's own: loopback and nothing else, or hosts at a switch.

use std::fs::{self, File};
use std::io;
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
pub fn enter() -> io::Result<()> {
    // SAFETY: no memory is involved; only this thread moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let status = super::tool("ip").args(["link", "set", "lo", "up"]).status()?;
    status.success().then_some(()).ok_or(io::Error::other("ip link set lo up"))
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
        assert_eq!(entered, 0, "{}", io::Error::last_os_error());
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

/// Hosts with a network each, all at one switch, which is in the network of the thread that
/// made it. See [`alone`].
pub struct Switch;

/// A host at a switch. Its name is that of its cable, too.
pub struct Host {
    name: String,
    network: Network,
}

impl Switch {
    /// None, said aloud, where this kernel has no bridges.
    #[track_caller]
    pub fn new() -> Option<Switch> {
        let mut make = super::tool("ip");
        make.args("link add name switch type bridge".split(' '));
        let made = make.output().unwrap();
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            crate::support::skip(&format!("no bridge here: {why}"));
            return None;
        }
        ip("link set switch up");
        Some(Switch)
    }

    /// Gives the switch an address of its own, so that whatever made it is a neighbour of the
    /// hosts.
    #[track_caller]
    pub fn set_address(&self, address: &str) {
        ip(&format!("address add {address} dev switch"));
    }

    /// A host with this address, such as `10.0.0.1/24`, on its interface `eth0`.
    #[track_caller]
    pub fn host(&self, name: &str, address: &str) -> Host {
        let here = Network::current();
        let host = Host { name: name.into(), network: Network::enter_new() };
        here.enter();
        let there = host.network.path();
        ip(&format!("link add name {name} type veth peer name eth0 netns {there}"));
        ip(&format!("link set {name} master switch up"));
        host.at(|| {
            ip(&format!("address add {address} dev eth0"));
            ip("link set eth0 up");
        });
        host
    }
}

impl Host {
    /// Runs a closure in this host's network. Processes that it starts, and sockets that it
    /// opens, stay there.
    #[track_caller]
    pub fn at<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Back(Network);
        impl Drop for Back {
            fn drop(&mut self) {
                self.0.enter();
            }
        }
        let _back = Back(Network::current());
        self.network.enter();
        run()
    }

    /// Pulls its cable, as a loss of power does.
    #[track_caller]
    pub fn unplug(&self) {
        ip(&format!("link set {} down", self.name));
    }

    /// Puts the cable back.
    #[track_caller]
    pub fn plug(&self) {
        ip(&format!("link set {} up", self.name));
    }

    /// Takes an address from its interface, if it is still there.
    pub fn forget(&self, address: &str) {
        let mut delete = super::tool("ip");
        delete.args(["address", "delete", address, "dev", "eth0"]);
        let _ = self.at(|| delete.output());
    }

    /// Whether its interface has this address.
    #[track_caller]
    pub fn has(&self, address: &str) -> bool {
        let mut show = super::tool("ip");
        show.args(["-4", "-oneline", "address", "show", "dev", "eth0"]);
        self.at(|| super::output(&mut show)).contains(&format!(" {address} "))
    }
}
