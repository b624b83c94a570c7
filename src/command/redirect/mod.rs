//! `pegasus redirect`: joins each client to the next provider.
//!
//! Read [`start`] first: how the process was started decides what it does. Each
//! worker is a thread with an event loop, a state machine and a queue handle of its
//! own. As many more workers have the flows of datagrams, or one where the system
//! cannot divide them.

mod access_log;
mod address_sockets;
mod blocked;
mod deferred_connects;
#[cfg(feature = "dns")]
mod dns;
mod exit_policy;
mod fallbacks;
#[cfg(feature = "http")]
mod http;
#[cfg(not(feature = "http"))]
#[path = "http/none.rs"]
mod http;
mod listen_sockets;
mod own_listeners;
mod per_source;
mod proxy_protocol;
mod queue_handle;
mod shared;
mod start;
mod supervisor;
mod tcp_worker;
mod udp_listener;
mod udp_worker;
mod upstreams;
mod worker;
mod workers;

pub use shared::local_handles_max;
pub use start::run;
pub use workers::RedirectDaemon;
