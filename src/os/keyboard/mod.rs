//! Keys of a terminal one by one, as they are pressed, and not shown.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn start() -> bool`: begins; false where standard input is no terminal, or its keys
//!   come by lines only. Whatever ends the process puts the terminal back.
//! - `fn restore()`: puts the terminal back; twice does no harm.

// On MIPS the libc crate asks for tcgetattr(3) of one version of glibc, and a static glibc
// has no versions.
#[cfg_attr(all(unix, not(all(target_arch = "mips", target_env = "gnu"))), path = "termios.rs")]
#[cfg_attr(windows, path = "console.rs")]
#[cfg_attr(all(target_arch = "mips", target_env = "gnu"), path = "none.rs")]
#[cfg_attr(not(any(unix, windows)), path = "none.rs")]
mod mechanism;

/// Keys come one by one until this is dropped, or the process ends. Ctrl-C is a key, too.
pub struct Keyboard(());

impl Keyboard {
    /// None where keys come by lines only.
    pub fn start() -> Option<Keyboard> {
        if !mechanism::start() {
            return None;
        }
        // A panic may end the process without dropping anything.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            mechanism::restore();
            before(panic);
        }));
        Some(Keyboard(()))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        mechanism::restore();
    }
}
