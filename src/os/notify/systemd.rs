//! systemd's socket for notifications, sd_notify(3).

use std::env;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Reports that this process is ready and is the main one: it may have taken the place of
/// another. Without systemd there is no such socket.
pub fn ready() {
    send(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// Reports that the configuration is being read again. systemd compares the time with
/// that of its request (`Type=notify-reload`).
pub fn reloading() {
    send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
}

/// Reports that the process is about to end.
pub fn stopping() {
    send("STOPPING=1");
}

/// Reports that the process still works.
pub fn alive() {
    send("WATCHDOG=1");
}

/// Half of the time after which systemd would think that this process hangs. The
/// variable for a process id is not looked at: an upgrade changes the process, and not
/// the duty.
pub fn watchdog_interval() -> Option<Duration> {
    env::var_os("NOTIFY_SOCKET")?;
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros / 2)).filter(|interval| !interval.is_zero())
}

fn monotonic_micros() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the structure that it is given, which lives until then.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

fn send(text: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A manager that does not read must not stop the work.
    let _ = socket.set_nonblocking(true);
    #[cfg(target_os = "linux")]
    if let Some(name) = path.to_string_lossy().strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        if let Ok(address) = std::os::unix::net::SocketAddr::from_abstract_name(name) {
            let _ = socket.send_to_addr(text.as_bytes(), &address);
        }
        return;
    }
    let _ = socket.send_to(text.as_bytes(), path);
}
