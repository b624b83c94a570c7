//! systemd's socket for notifications, sd_notify(3).

use std::env;
use std::os::unix::net::UnixDatagram;

/// Reports that this process is ready and is the main one: it may have taken the place of
/// another. Without systemd there is no such socket.
pub fn ready() {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let text = format!("MAINPID={}\nREADY=1", std::process::id());
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
