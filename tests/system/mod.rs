//! The real program among real programs: superservers, web servers, clients.
#![cfg(target_os = "linux")]

mod chunks;
mod cluster;
mod configuration;
mod crowd;
mod datagrams;
mod demo;
mod dns;
mod endings;
mod failover;
mod faults;
mod flows;
mod ftp;
mod garbage;
mod idling;
mod load;
mod losses;
mod permission;
mod plugins;
mod protocol;
mod protocols;
mod proxy;
mod relay;
mod resets;
mod send;
mod silence;
mod slow;
mod superservers;
mod tftp;
mod timeouts;
