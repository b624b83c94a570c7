//! The side of the system: one folder per question, one file per mechanism,
//! always with a plain twin. The only place for `unsafe`, each behind a safe
//! function. A port to another system answers the questions of these folders.

pub mod addresses;
pub mod child;
pub mod connect;
pub mod cpu;
pub mod cpus;
pub mod datagram;
pub mod inherit;
pub mod limits;
pub mod load;
#[cfg(unix)]
mod name;
pub mod notify;
#[cfg(unix)]
mod option;
pub mod service;
pub mod share;
pub mod signal;
pub mod socket;
pub mod splice;
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod stack;
pub mod syslog;
pub mod user;
pub mod watch;
