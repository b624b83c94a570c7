//! What a daemon takes at most: of clients, flows and so on, and of memory.
//!
//! Owns the worst cases. The places where things grow keep them.

use super::daemon::{ports, threads, DescriptorBudget, AGENT_CONNECTIONS_MAX};
use crate::config::settings::{QueueLocation, Settings};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::key_value;

/// The most memory that a client holds, in bytes: what was read from each side, while the
/// other one takes nothing.
const CLIENT_BYTES: u64 = 2 * 64 * 1024 + 1024;
/// The same for a flow of datagrams; those that wait are counted for the thread.
const FLOW_BYTES: u64 = 1024;
/// For a thread: the buffer that it copies through, and the datagrams that wait.
const THREAD_BYTES: u64 = 64 * 1024;
const WAITING_DATAGRAMS_BYTES: u64 = 16 * 1024 * 1024;
/// For a connection of a monitor to a balancer, a service that it offers, and one that asks
/// for its load.
const BALANCER_BYTES: u64 = 72 * 1024;
const OFFER_BYTES: u64 = 1024;
const AGENT_BYTES: u64 = 256;

/// The most memory that a queue with these settings takes, in bytes.
#[cfg(feature = "queue")]
fn queue_bytes(settings: &Settings) -> u64 {
    super::queue::memory_max(settings) as u64
}

/// No queue is in this program.
#[cfg(not(feature = "queue"))]
fn queue_bytes(_: &Settings) -> u64 {
    0
}

/// What a daemon command takes at most, in a line of pairs: of clients, flows and so on, and
/// the memory of this process if it has all of that at once. What the system itself keeps
/// for sockets and pipes is not in it.
pub fn bounds(name: &str, settings: &Settings) -> String {
    let mut line = String::new();
    let (mut memory, mut of_queue) = (0, 0);
    let mut add = |key: &str, count: usize, bytes: u64| {
        key_value::push(&mut line, key, count);
        memory += count as u64 * bytes;
    };
    if name == "redirect" {
        let budget = DescriptorBudget::of(settings);
        let udp = ports(settings, Transport::Udp) > 0;
        let waiting = if udp { WAITING_DATAGRAMS_BYTES } else { 0 };
        add("threads", threads(settings) as usize, THREAD_BYTES + waiting);
        add("clients", budget.clients, CLIENT_BYTES);
        add("flows", if udp { budget.flows } else { 0 }, FLOW_BYTES);
    }
    if name == "queue" || (name == "redirect" && settings.asked_queue() == QueueLocation::Embedded)
    {
        // What several of these hold together has bounds of its own.
        add("connections", settings.queue_connections_max, 0);
        add("services", settings.queue.services_max, 0);
        add("providers", settings.queue.providers_max, 0);
        add("waiting", settings.queue.waiting_max, 0);
        of_queue = queue_bytes(settings);
    }
    if name == "monitor" {
        add("balancers", settings.monitor_balancers.len(), BALANCER_BYTES);
        add("services", settings.to_offer().len(), OFFER_BYTES);
        if !settings.monitor_agent.is_empty() {
            add("askers", AGENT_CONNECTIONS_MAX, AGENT_BYTES);
        }
    }
    key_value::push(
        &mut line,
        "memory",
        format_args!("{}MiB", (memory + of_queue).div_ceil(1 << 20)),
    );
    line
}
