//! `pegasus export --follow`, and the engines that read what it writes.
#![cfg(target_os = "linux")]

use crate::support::pegasus::{command, SERVICE};
use crate::support::process::{pipe, Process};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// Follows a queue for an engine, which reads at the other end of `to`.
pub fn exporter(
    engine: &str,
    queue: SocketAddr,
    settings: &[&str],
    words: &[&str],
    to: OwnedFd,
) -> Process {
    let mut command = command("export", settings);
    command.args([engine, "-s", SERVICE, &queue.to_string(), "--follow"]).args(words);
    command.stdin(Stdio::null()).stdout(to).stderr(Stdio::piped());
    Process::start_as_is("export", &mut command)
}

/// An nft that executes what is written to the descriptor.
pub fn nft(program: &Path) -> (Process, OwnedFd) {
    let (read, write) = pipe();
    let mut nft = Command::new(program);
    nft.arg("-i").stdin(read).stdout(Stdio::null()).stderr(Stdio::piped());
    (Process::start_as_is("nft", &mut nft), write)
}

/// The runtime API of an HAProxy. Its answers are read and dropped, as socat would.
///
/// # Errors
/// It is not there.
pub fn haproxy(socket: &str) -> Result<OwnedFd, String> {
    let api = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    let mut answers = api.try_clone().map_err(|error| error.to_string())?;
    thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    Ok(api.into())
}
