//! What ipvsadm is told: the lines of `ipvsadm --restore`, which carries out each as it
//! reads it.
//!
//! Owns the text. The kernel has no service on all addresses: `*` is passed over. A
//! provider that gets no new clients has weight 0 there and keeps its connections.

use super::frame::{Frame, Listen};
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::provider::Provider;
use pegasus_core::export::follower::Transaction;
use pegasus_core::export::plan::{Change, Plan};
use std::net::{IpAddr, SocketAddr};

/// The kernel takes up to 65535.
const WEIGHT_MAX: u32 = 1000;

/// The lines that lead to the new plan.
pub fn commands(frame: &Frame, change: &Transaction) -> Vec<String> {
    let mut commands = Vec::new();
    let none = Plan::default();
    let before = change.before.as_ref().unwrap_or(&none);
    let changes = before.changes(&change.after, WEIGHT_MAX);
    for listen in &frame.listen {
        let Some(ip) = listen.ip else { continue };
        for port in listen.first..=listen.last {
            let service = service(listen, SocketAddr::new(ip, port));
            if change.before.is_none() {
                commands.push(format!(
                    "-A {service} -s {}{}",
                    scheduler(&frame.scheduler),
                    persistence(frame)
                ));
            }
            let ours = |change: &&Change| listen.takes(of(change).ip);
            commands.extend(changes.iter().filter(ours).map(|change| line(change, &service, port)));
        }
    }
    commands
}

fn of(change: &Change) -> Provider {
    match change {
        Change::Add { provider, .. }
        | Change::Set { provider, .. }
        | Change::Remove { provider } => *provider,
    }
}

fn line(change: &Change, service: &str, port: u16) -> String {
    let server = of(change).socket(port);
    match change {
        Change::Add { weight, .. } => format!("-a {service} -r {server} -m -w {weight}"),
        Change::Set { weight, .. } => format!("-e {service} -r {server} -m -w {weight}"),
        Change::Remove { .. } => format!("-d {service} -r {server}"),
    }
}

fn service(listen: &Listen, address: SocketAddr) -> String {
    match listen.transport {
        Transport::Tcp => format!("-t {address}"),
        Transport::Udp => format!("-u {address}"),
    }
}

/// The kernel's scheduler that comes nearest.
fn scheduler(name: &str) -> &'static str {
    match name {
        "round-robin" => "rr",
        "weighted" => "wrr",
        "source-hash" => "mh",
        "first" => "ovf",
        "shortest-delay" => "sed",
        "never-queue" => "nq",
        _ => "wlc",
    }
}

fn persistence(frame: &Frame) -> String {
    let Some(timeout) = frame.affinity else { return String::new() };
    let mask = match frame.listen.first().and_then(|listen| listen.ip) {
        Some(IpAddr::V6(_)) => " -M 128",
        _ => "",
    };
    format!(" -p {}{mask}", (timeout.as_secs_f64().ceil() as u64).max(1))
}
