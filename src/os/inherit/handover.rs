//! Sockets that go from a process to the one that takes its place: descriptors
//! that survive `exec`, their numbers in a variable of the environment, and a
//! line on which the new process says that it is ready, or why not.

use super::fd_info::{is_internet, listens, socket_option};
use super::moved_sockets::{self, MovedSockets};
use super::Handover;
use crate::os::keeper;
use crate::os::socket::Socket;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `LINE SOCKET=NAME…`, the first two numbers of descriptors. systemd's names
/// (`LISTEN_FDS`) would need the id of the new process, which is unknown
/// before it exists.
const VARIABLE: &str = "PEGASUS_HANDOVER";
/// What the log file is called beside the sockets; no service has this name.
const LOG_FILE: &str = "+log";
/// What the line to a keeper is called.
const KEEPER_LINE: &str = "+keeper";
/// The name of the socket on which further sockets come while both processes run. A
/// program that does not know it passes over it.
const MOVED: &str = "+moved";
const READY: &str = "ready\n";
/// How long a process may take to read what it is sent.
const SEND_WITHIN: Duration = Duration::from_secs(1);
/// The longest text that follows, in bytes.
const FOLLOWED_MAX: u64 = 8 * 1024 * 1024;
/// What a process may say instead of that.
const TEXT_MAX: usize = 4096;

/// A process that is about to take the place of this one.
#[derive(Debug)]
pub struct Successor {
    id: u32,
    child: Mutex<Child>,
    line: UnixStream,
    moved: UnixDatagram,
}

/// Starts the program that this process was started from, as it is now, with
/// the same arguments, and leaves it these sockets, and these words as far as the
/// system keeps them until they are read.
///
/// # Errors
/// Returns the OS error.
pub fn start_successor(sockets: &[(String, &Socket)], data: &[u8]) -> io::Result<Successor> {
    let (line, theirs) = UnixStream::pair()?;
    line.set_nonblocking(true)?;
    let _ = (&line).write(data);
    line.set_nonblocking(false)?;
    let (moved, their_moved) = moved_sockets::pair()?;
    let mut passed = vec![theirs.as_raw_fd(), their_moved.as_raw_fd()];
    let mut text = format!("{} {}={MOVED}", theirs.as_raw_fd(), their_moved.as_raw_fd());
    for (name, socket) in sockets {
        let descriptor = match socket {
            Socket::Tcp(socket) => socket.as_raw_fd(),
            Socket::Udp(socket) => socket.as_raw_fd(),
        };
        text += &format!(" {descriptor}={name}");
        passed.push(descriptor);
    }
    let log_file = super::take_log_file();
    if let Some(file) = &log_file {
        text += &format!(" {}={LOG_FILE}", file.as_raw_fd());
        passed.push(file.as_raw_fd());
    }
    super::set_log_file(log_file.clone());
    let keeper_line = keeper::line_for_successor();
    if let Some(line) = &keeper_line {
        text += &format!(" {}={KEEPER_LINE}", line.as_raw_fd());
        passed.push(line.as_raw_fd());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = Command::new(program_named(&name)?);
    command.arg0(name).args(arguments).env(VARIABLE, text);
    // SAFETY: fcntl(2) is async-signal-safe, and nothing else runs between fork
    // and exec; the numbers are those of the sockets, which live until then.
    unsafe {
        command.pre_exec(move || {
            if passed.iter().any(|descriptor| libc::fcntl(*descriptor, libc::F_SETFD, 0) < 0) {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Successor { id: child.id(), child: Mutex::new(child), line, moved })
}

/// The path that this program was started by.
///
/// # Errors
/// Returns the OS error.
pub fn program() -> io::Result<PathBuf> {
    program_named(&env::args_os().next().unwrap_or_default())
}

/// The path that this program was started by: there may be a newer one now.
fn program_named(name: &OsStr) -> io::Result<PathBuf> {
    let path = Path::new(name);
    let candidates = if path.components().count() > 1 {
        vec![path.to_path_buf()]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(path))
            .collect()
    };
    if let Some(found) = candidates.into_iter().find(|file| file.is_file()) {
        return Ok(found);
    }
    // Its starter gave it some other name. Linux says so of a file that was replaced.
    let own = env::current_exe()?;
    let text = own.as_os_str().to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| own.clone(), PathBuf::from))
}

impl Successor {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends it one more socket, with a line of at most 512 bytes.
    ///
    /// # Errors
    /// Returns the OS error: it does not take sockets, or is gone.
    pub fn send_socket(&self, text: &str, socket: &UdpSocket) -> io::Result<()> {
        moved_sockets::send(&self.moved, text, Some(socket))
    }

    /// No socket follows.
    pub fn end_sockets(&self) {
        // If it is gone or does not listen, it waits for none.
        let _ = moved_sockets::send(&self.moved, "", None);
    }

    /// Waits until it is ready. If it is not in time it is ended.
    ///
    /// # Errors
    /// Why it is not.
    pub fn wait(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        let mut received = String::new();
        let mut buffer = [0; 512];
        let ended = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || received.len() > TEXT_MAX {
                break false;
            }
            let _ = self.line.set_read_timeout(Some(left));
            match (&self.line).read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => received += &String::from_utf8_lossy(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => break true,
            }
            if received == READY {
                return Ok(());
            }
        };
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended {
            let _ = child.kill();
        }
        let status =
            child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let why = if ended { status } else { format!("not ready within {within:?}") };
        let received = received.trim_end().replace('\n', "; ");
        Err(if received.is_empty() { why } else { format!("{why}: {received}") })
    }

    /// Sends it words once it is ready. Answers whether it takes them.
    pub fn send(&self, data: &[u8]) -> bool {
        let _ = self.line.set_write_timeout(Some(SEND_WITHIN));
        (&self.line).write_all(data).is_ok()
    }

    /// Tells it to end, as it serves in vain.
    pub fn end(&self) {
        // The holder of the lock has seen its end, and the system may reuse its id.
        let Ok(mut child) = self.child.try_lock() else { return };
        if let Ok(None) = child.try_wait() {
            // SAFETY: plain numbers; the child has not been waited for, so the id is its own.
            unsafe { libc::kill(self.id as libc::pid_t, libc::SIGTERM) };
        }
    }
}

/// The process that left its sockets to this one.
#[derive(Debug)]
pub struct Predecessor {
    line: UnixStream,
    moved: Option<MovedSockets>,
}

impl Predecessor {
    /// The words that it left; the last ones may be missing.
    pub fn read_data(&self) -> Vec<u8> {
        let mut received = Vec::new();
        // What there is was there before this process: it is not waited for.
        let _ = self.line.set_nonblocking(true);
        let _ = (&self.line).read_to_end(&mut received);
        let _ = self.line.set_nonblocking(false);
        received
    }

    /// The sockets that it sends after the report that this process is ready. None if it
    /// is of a version that sends none.
    pub fn take_sockets(&mut self) -> Option<MovedSockets> {
        self.moved.take()
    }

    /// Tells it that clients are served from now on.
    pub fn report_ready(&self) {
        // If it is gone already, it needs no report.
        let _ = (&self.line).write_all(READY.as_bytes());
    }

    /// Reads what it sends until it is gone, or `on_text` has heard enough: texts that end
    /// with a line with a dot.
    pub fn follow(self, mut on_text: impl FnMut(&str) -> bool) {
        let mut text = String::new();
        let mut lines = BufReader::new(self.line);
        // A line of another version may be anything; its length has a bound all the same.
        while lines.by_ref().take(FOLLOWED_MAX).read_line(&mut text).is_ok_and(|count| count > 0) {
            if text.ends_with("\n.\n") || text == ".\n" {
                if !on_text(&text) {
                    return;
                }
                text.clear();
            } else if text.len() as u64 > FOLLOWED_MAX {
                return;
            }
        }
    }

    /// Tells it why this process will not serve.
    pub fn report_failure(&self, why: &str) {
        let _ = (&self.line).write_all(format!("{why}\n").as_bytes());
    }
}

/// What was left to this process. Its own children do not inherit it.
pub(super) fn take() -> Option<Handover> {
    let text = env::var_os(VARIABLE)?;
    env::remove_var(VARIABLE);
    parse(text)
}

fn parse(text: OsString) -> Option<Handover> {
    let text = text.into_string().ok()?;
    let mut words = text.split(' ');
    let line = open(words.next()?)?;
    let mut sockets = Vec::new();
    let mut moved = None;
    for (descriptor, name) in words.filter_map(|word| word.split_once('=')) {
        let Some(descriptor) = open(descriptor) else { continue };
        if name == LOG_FILE {
            // SAFETY: the descriptor is open, was left to us for this, and nothing else in
            // this process owns it.
            super::set_log_file(Some(Arc::new(unsafe { File::from_raw_fd(descriptor) })));
            continue;
        }
        if name == KEEPER_LINE {
            // SAFETY: as with the log file.
            keeper::inherit_line(unsafe { UnixStream::from_raw_fd(descriptor) });
            continue;
        }
        if name == MOVED {
            // SAFETY: the descriptor is open, was left to us for this, and nothing else in
            // this process owns it.
            moved = MovedSockets::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
            continue;
        }
        if !is_internet(descriptor) {
            continue;
        }
        let socket = match socket_option(descriptor, libc::SO_TYPE) {
            // SAFETY: the descriptor is a listening stream socket that was left to
            // us, and nothing else in this process owns it.
            Some(libc::SOCK_STREAM) if listens(descriptor) => unsafe {
                Socket::Tcp(TcpListener::from_raw_fd(descriptor))
            },
            // SAFETY: the same with a datagram socket.
            Some(libc::SOCK_DGRAM) => unsafe { Socket::Udp(UdpSocket::from_raw_fd(descriptor)) },
            _ => continue,
        };
        sockets.push((name.to_string(), socket));
    }
    // SAFETY: the descriptor is open, was left to us for this, and nothing else
    // in this process owns it.
    let line = unsafe { UnixStream::from_raw_fd(line) };
    let predecessor = Predecessor { line, moved };
    Some(Handover { sockets, predecessor })
}

/// A descriptor that is open, and from now on of this process alone.
fn open(number: &str) -> Option<RawFd> {
    let descriptor: RawFd = number.parse().ok().filter(|descriptor| *descriptor > 2)?;
    // SAFETY: a plain call; a descriptor that is not open is an error.
    (unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == 0).then_some(descriptor)
}
