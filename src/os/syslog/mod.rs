//! Where does the system collect log lines?

#[cfg(unix)]
mod socket;
#[cfg(unix)]
pub use socket::Syslog;

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::Syslog;
