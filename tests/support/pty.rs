//! A program at a terminal of its own.

use super::process::Process;
use super::until;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A terminal, and the program that has it.
pub struct Terminal {
    pub process: Process,
    /// The side of a person.
    keyboard: File,
    /// The side of the program, which stays open so that its settings can be read.
    line: OwnedFd,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a program; all its standard streams are a terminal of this size.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command, columns: u16, rows: u16) -> Terminal {
        let (mut person, mut line): (RawFd, RawFd) = (-1, -1);
        let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call fills in two descriptors, which belong to nobody else then.
        let (person, line) = unsafe {
            let (name, settings) = (ptr::null_mut(), ptr::null_mut());
            let opened =
                libc::openpty(&raw mut person, &raw mut line, name, settings, &raw mut size);
            assert_eq!(opened, 0, "no pseudo-terminal");
            // No child keeps the person's side: with it, nobody would ever hang up.
            libc::fcntl(person, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(line, libc::F_SETFD, libc::FD_CLOEXEC);
            (File::from_raw_fd(person), OwnedFd::from_raw_fd(line))
        };
        let stream = || line.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: both calls are async-signal-safe; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| match libc::setsid() {
                -1 => Err(std::io::Error::last_os_error()),
                _ if libc::ioctl(0, libc::TIOCSCTTY as _, 0) != 0 => {
                    Err(std::io::Error::last_os_error())
                }
                _ => Ok(()),
            })
        };
        let process = Process::start_as_is(name, command);
        let screen: Arc<Mutex<String>> = Arc::default();
        let (shown, mut reader) = (screen.clone(), person.try_clone().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Terminal { process, keyboard: person, line, screen }
    }

    #[track_caller]
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// All that was shown since the last call of [`forget`](Terminal::forget).
    pub fn shown(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget(&self) {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until this text was shown.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        until(&format!("the terminal shows {text:?}: {:?}", self.shown()), || {
            self.shown().contains(text)
        });
    }

    /// Whether keys reach the program one by one, and are not shown.
    pub fn is_raw(&self) -> bool {
        // SAFETY: the structure is plain data, which the call fills in.
        let settings = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.line.as_raw_fd(), &raw mut settings), 0);
            settings
        };
        settings.c_lflag & (libc::ICANON | libc::ECHO) == 0
    }
}
