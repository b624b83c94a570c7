//! What nft is told: a whole table, which replaces the one before in one transaction.
//!
//! Owns the text. Connections that exist are conntrack's: they stay with their provider
//! whatever the table says. A packet that finds no provider passes as without the table.

use super::frame::{Frame, Listen};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::provider::Provider;
use pegasus_core::export::buckets;
use pegasus_core::export::plan::Plan;
use std::fmt::Write;
use std::net::IpAddr;

/// The weight of the largest provider where weights are scaled.
const WEIGHT_MAX: u32 = 1000;
/// The same hash in every transaction, so that clients keep their providers.
const SEED: u32 = 0x7347;

/// The commands that replace the service's table.
pub fn ruleset(frame: &Frame, plan: &Plan) -> Vec<String> {
    let table = format!("inet {}", frame.name());
    // A table that is not there cannot be deleted.
    let mut commands: Vec<String> =
        ["add", "delete", "add"].iter().map(|verb| format!("{verb} table {table}")).collect();
    for backend in plan.backends().iter().filter(|backend| backend.open) {
        let (chain, to) = (chain(&backend.provider), destination(&backend.provider));
        commands.push(format!("add chain {table} {chain}"));
        commands.push(format!("add rule {table} {chain} {to}"));
    }
    for (chain, family, source) in [("choose4", true, "ip saddr"), ("choose6", false, "ip6 saddr")]
    {
        commands.push(format!("add chain {table} {chain}"));
        if let Some(rule) = choice(frame, plan, family, source) {
            commands.push(format!("add rule {table} {chain} {rule}"));
        }
    }
    commands.push(format!("add chain {table} service"));
    for listen in &frame.listen {
        for (ipv4, chain) in [(true, "choose4"), (false, "choose6")] {
            if listen.ip.is_none_or(|ip| ip.is_ipv4() == ipv4) {
                let (to, ports) = (match_address(listen, ipv4), match_ports(listen));
                commands.push(format!("add rule {table} service {to} {ports} goto {chain}"));
            }
        }
    }
    for hook in ["prerouting", "output"] {
        commands.push(format!(
            "add chain {table} {hook} {{ type nat hook {hook} priority -100; policy accept; }}"
        ));
        commands.push(format!("add rule {table} {hook} jump service"));
    }
    if frame.masquerade {
        commands.push(format!(
            "add chain {table} postrouting {{ type nat hook postrouting priority 100; \
             policy accept; }}"
        ));
        for listen in &frame.listen {
            let rule = masquerade(listen);
            commands.push(format!("add rule {table} postrouting {rule}"));
        }
    }
    commands
}

/// The chain of a provider. Names have no colons.
fn chain(provider: &Provider) -> String {
    let mut name = format!("provider_{}", provider.ip).replace(':', "_");
    if let Some(port) = provider.port {
        let _ = write!(name, "-{port}");
    }
    name
}

/// What leads there, and counts the connections that it leads.
fn destination(provider: &Provider) -> String {
    match (provider.ip, provider.port) {
        (IpAddr::V4(ip), Some(port)) => {
            format!("meta l4proto {{ tcp, udp }} counter dnat ip to {ip}:{port}")
        }
        (IpAddr::V6(ip), Some(port)) => {
            format!("meta l4proto {{ tcp, udp }} counter dnat ip6 to [{ip}]:{port}")
        }
        (IpAddr::V4(ip), None) => format!("counter dnat ip to {ip}"),
        (IpAddr::V6(ip), None) => format!("counter dnat ip6 to {ip}"),
    }
}

/// The map from a number, random or of the client, to the chain of a provider.
fn choice(frame: &Frame, plan: &Plan, ipv4: bool, source: &str) -> Option<String> {
    let eligible = |provider: &Provider| provider.ip.is_ipv4() == ipv4;
    let chains: Vec<String> =
        plan.backends().iter().map(|backend| chain(&backend.provider)).collect();
    let mut entries = Vec::new();
    let mut entry = |first: u32, last: u32, place: usize| {
        let end = if first == last { String::new() } else { format!("-{last}") };
        entries.push(format!("{first}{end} : goto {}", chains[place]));
    };
    let number = if frame.by_client() {
        let (count, runs) = buckets::runs(plan, eligible);
        runs.iter().for_each(|(range, place)| entry(*range.start(), *range.end(), *place));
        format!("jhash {source} mod {count} seed {SEED:#x}")
    } else {
        let mut sum = 0;
        for (place, weight) in plan.weights(WEIGHT_MAX).into_iter().enumerate() {
            if weight > 0 && eligible(&plan.backends()[place].provider) {
                entry(sum, sum + weight - 1, place);
                sum += weight;
            }
        }
        format!("numgen random mod {sum}")
    };
    (!entries.is_empty()).then(|| format!("{number} vmap {{ {} }}", entries.join(", ")))
}

fn match_address(listen: &Listen, ipv4: bool) -> String {
    match (listen.ip, ipv4) {
        (Some(IpAddr::V4(ip)), _) => format!("ip daddr {ip}"),
        (Some(IpAddr::V6(ip)), _) => format!("ip6 daddr {ip}"),
        (None, true) => "meta nfproto ipv4 fib daddr type local".to_string(),
        (None, false) => "meta nfproto ipv6 fib daddr type local".to_string(),
    }
}

fn protocol(listen: &Listen) -> &'static str {
    match listen.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn ports(listen: &Listen) -> String {
    match listen.first == listen.last {
        true => listen.first.to_string(),
        false => format!("{}-{}", listen.first, listen.last),
    }
}

fn match_ports(listen: &Listen) -> String {
    format!("{} dport {}", protocol(listen), ports(listen))
}

/// Providers answer this host, where no other way leads back.
fn masquerade(listen: &Listen) -> String {
    let address = match listen.ip {
        Some(IpAddr::V4(ip)) => format!("ct original ip daddr {ip} "),
        Some(IpAddr::V6(ip)) => format!("ct original ip6 daddr {ip} "),
        None => String::new(),
    };
    let (protocol, ports) = (protocol(listen), ports(listen));
    format!(
        "ct status dnat {address}meta l4proto {protocol} ct original proto-dst {ports} masquerade"
    )
}
