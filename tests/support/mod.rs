//! Shared by tests with real processes: processes, ports, providers, patience.
//!
//! Tests wait for facts, with a deadline, and never sleep. Every process is ended by its
//! id when its test ends, also after a panic.
#![cfg(target_os = "linux")]

pub mod control_connection;
pub mod datagram;
pub mod haproxy;
pub mod http;
pub mod inetd;
pub mod keyed;
pub mod namespace;
pub mod network;
pub mod nginx;
pub mod pegasus;
pub mod process;
pub mod provider;
pub mod pty;
pub mod random;
pub mod socket;
pub mod superserver;
pub mod visits;
pub mod vsftpd;

use random::Random;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for something that must happen: far longer than it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until a condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, || holds().then_some(()));
}

/// Waits until `look` returns something.
#[track_caller]
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Says why a test does not do all that it does elsewhere: at once, for the test harness hides
/// the output of macros in a test that passes, and at the end of tests/run.
pub fn skip(why: &str) {
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
    let Some(list) = std::env::var_os("PEGASUS_SKIPPED") else { return };
    if let Ok(mut list) = fs::OpenOptions::new().append(true).open(list) {
        let _ = list.write_all(format!("{why}\n").as_bytes());
    }
}

/// Returns a name that no system can look up, and that none asks others for: a label has at
/// most 63 letters.
pub fn unknown_name() -> String {
    "x".repeat(64)
}

/// Returns a port that is free and that no other test was given, of this run or another one.
/// It is outside the range from which the system numbers outgoing connections, so that it
/// stays free.
pub fn free_port() -> u16 {
    free_ports(1).start
}

/// The file of which each test run locks the bytes whose numbers are its ports, if it may.
fn reserved_ports() -> Option<fs::File> {
    let path = std::env::temp_dir().join("pegasus-test-ports");
    fs::OpenOptions::new().create(true).append(true).open(path).ok()
}

/// Reserves a port until this process ends; returns whether no other process has it.
fn reserve(file: &fs::File, port: u16) -> bool {
    // SAFETY: a structure of plain numbers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = port.into();
    lock.l_len = 1;
    // SAFETY: the descriptor is open, and the structure lives as long as the call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) == 0 }
}

/// Returns consecutive ports that are free at every address of this host.
pub fn free_ports(count: u16) -> Range<u16> {
    type Given = (HashSet<u16>, Random, Option<fs::File>);
    static GIVEN: LazyLock<Mutex<Given>> =
        LazyLock::new(|| Mutex::new((HashSet::new(), Random::of_now(), reserved_ports())));
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let below = range
        .split_whitespace()
        .next()
        .and_then(|low| low.parse().ok())
        .unwrap_or(32_768u64)
        .max(11_000);
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let first = (10_000 + given.1.below(below - 10_000 - u64::from(count - 1))) as u16;
        let ports = first..first + count;
        let free = |port| {
            !given.0.contains(&port)
                && given.2.as_ref().is_none_or(|file| reserve(file, port))
                && socket::is_free(port)
        };
        if ports.clone().all(free) {
            given.0.extend(ports.clone());
            return ports;
        }
    }
}

/// The directory of a test; removed with its content when dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("pegasus-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file; returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the path of a tool, if it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let places = std::env::var("PATH").unwrap_or_default();
    let mut paths = places
        .split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|place| Path::new(place).join(name));
    paths.find(|path| path.is_file())
}

/// Returns the command for a tool that must be installed.
#[track_caller]
pub fn tool(name: &str) -> Command {
    match installed(name) {
        Some(path) => Command::new(path),
        None => panic!("`{name}` is not installed; tests/run installs what the system tests need"),
    }
}

/// Returns the output of a command, which must succeed within [`PATIENCE`].
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
