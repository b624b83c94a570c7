//! What differs between systems: one folder a capability, one file a mechanism.
//!
//! The only place for `unsafe`, always behind a safe function. Each folder's `mod.rs` lists
//! the required items, and chooses a back end. There is always a portable one.
//! A new back end is a new file and a line in that `mod.rs`.

pub mod accept_interest;
pub mod addresses;
pub mod child;
pub mod connect;
#[cfg(feature = "monitor")]
pub mod connections;
pub mod cpu;
pub mod cpus;
pub mod datagram;
pub mod file_mode;
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
mod glibc_start;
pub mod inherit;
pub mod keeper;
#[cfg(feature = "demo")]
pub mod keyboard;
pub mod last_write;
pub mod limits;
pub mod loadavg;
pub mod log_file;
#[cfg(test)]
pub mod loopback;
pub mod notify;
#[cfg(feature = "export")]
pub mod output;
#[cfg(feature = "operate")]
pub mod port_owner;
pub mod privileges;
pub mod process_info;
pub mod reuseport;
pub mod sandbox;
pub mod service_manager;
pub mod signal;
#[cfg(unix)]
mod sockaddr;
pub mod socket;
#[cfg(all(pegasus_linux, any(feature = "monitor", feature = "operate")))]
mod socket_table;
#[cfg(unix)]
mod sockopt;
pub mod splice;
#[cfg(feature = "export")]
pub mod stream_socket;
pub mod syslog;
pub mod terminal_size;
pub mod udp_interest;
