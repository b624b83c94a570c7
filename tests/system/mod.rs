//! The real program among real programs: superservers, web servers, clients.
#![cfg(target_os = "linux")]

mod chunks;
mod cluster;
mod configuration;
mod crowd;
mod datagrams;
mod demo;
mod descriptors;
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
mod overload;
mod permission;
mod plugins;
mod protocol;
mod protocols;
mod proxy;
mod relay;
mod reload;
mod resets;
mod samples;
mod send;
mod silence;
mod slow;
mod superserver_matrix;
mod superservers;
mod tftp;
mod timeouts;
mod upgrade;
