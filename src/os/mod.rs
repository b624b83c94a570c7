//! The OS shims: one folder per capability, one file per mechanism,
//! always with a portable fallback. The only place for `unsafe`, each behind a safe
//! function. A port to another system answers the questions of these folders.

pub mod addresses;
pub mod child;
pub mod connect;
pub mod cpu;
pub mod cpus;
pub mod datagram;
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod glibc_start;
pub mod inherit;
pub mod limits;
pub mod loadavg;
pub mod notify;
pub mod privileges;
pub mod process_info;
pub mod reuseport;
pub mod service_manager;
pub mod signal;
#[cfg(unix)]
mod sockaddr;
pub mod socket;
#[cfg(unix)]
mod sockopt;
pub mod splice;
pub mod syslog;
pub mod terminal_size;
pub mod udp_interest;
