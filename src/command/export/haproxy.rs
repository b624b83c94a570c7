//! What HAProxy is told: commands of its runtime API, version 2.5 or later.
//!
//! Owns the text, and which name a provider has there. The backend is the exporter's: a
//! server in it that is no provider is put into maintenance and deleted.

use super::frame::Frame;
use crate::os::stream_socket;
use pegasus_core::base::provider::Provider;
use pegasus_core::export::follower::Transaction;
use pegasus_core::export::plan::{Change, Plan};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// The most that HAProxy takes.
const WEIGHT_MAX: u32 = 256;
/// A state that is longer is not read to its end: thousands of servers fit.
const STATE_BYTES_MAX: u64 = 4 << 20;
/// The connection of a follower stays open for so long without a change.
const IDLE: &str = "set timeout cli 7d";

/// The commands that keep a backend of HAProxy as the plan has it.
pub struct Haproxy {
    backend: String,
    /// The servers that were there before, by address.
    present: BTreeMap<SocketAddr, String>,
    /// Names of the servers of this service.
    names: BTreeMap<SocketAddr, String>,
}

impl Haproxy {
    /// One whose backend has no servers.
    pub fn empty(backend: String) -> Haproxy {
        Haproxy { backend, present: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// The one behind this socket, a path or `HOST:PORT`.
    ///
    /// # Errors
    /// The OS error, or what the answer is instead of a state.
    pub fn ask(backend: String, socket: &str) -> io::Result<Haproxy> {
        let mut stream = stream_socket::connect(socket)?;
        stream.write_all(format!("show servers state {backend}\n").as_bytes())?;
        let mut state = String::new();
        stream.take(STATE_BYTES_MAX).read_to_string(&mut state)?;
        let Some(present) = servers(&state) else {
            let line = state.lines().next().unwrap_or("nothing");
            return Err(io::Error::other(format!("it answers: {line}")));
        };
        Ok(Haproxy { backend, names: present.clone(), present })
    }

    /// The commands that lead to the new plan.
    pub fn commands(&mut self, frame: &Frame, change: &Transaction) -> Vec<String> {
        let none = Plan::default();
        let first = change.before.is_none();
        let changes = change.before.as_ref().unwrap_or(&none).changes(&change.after, WEIGHT_MAX);
        let mut commands = Vec::new();
        for change in &changes {
            match *change {
                Change::Add { provider, weight } => {
                    self.add(frame, provider, weight, &mut commands)
                }
                Change::Set { provider, weight } => {
                    if let Some(server) = frame.socket(provider) {
                        let server = self.server(frame, server);
                        set(&server, weight, &mut commands);
                    }
                }
                Change::Remove { provider } => {
                    if let Some(server) = frame.socket(provider) {
                        remove(&self.server(frame, server), &mut commands);
                    }
                }
            }
        }
        if first {
            let wanted = |address: &SocketAddr| {
                let backends = change.after.backends().iter();
                let mut sockets = backends.filter_map(|backend| frame.socket(backend.provider));
                sockets.any(|socket| socket == *address)
            };
            for (address, name) in std::mem::take(&mut self.present) {
                if !wanted(&address) {
                    remove(&format!("{}/{name}", self.backend), &mut commands);
                    self.names.remove(&address);
                }
            }
            // Without it, one line is all that HAProxy reads of a connection.
            commands.insert(0, "prompt".to_string());
            match frame.stays {
                true => commands.insert(1, IDLE.to_string()),
                false => commands.push("quit".to_string()),
            }
        }
        commands
    }

    /// A server that may be there already, under its own name or, since it was removed
    /// while it had connections, under ours: then only the first command fails.
    fn add(&mut self, frame: &Frame, provider: Provider, weight: u32, commands: &mut Vec<String>) {
        let Some(address) = frame.socket(provider) else { return };
        let known = self.present.contains_key(&address);
        let server = self.server(frame, address);
        if !known {
            commands.push(format!("add server {server} {address} weight {}", weight.max(1)));
        }
        set(&server, weight, commands);
    }

    /// `BACKEND/NAME` of a server.
    fn server(&mut self, frame: &Frame, address: SocketAddr) -> String {
        let name = self
            .names
            .entry(address)
            .or_insert_with(|| format!("{}_{}_{}", frame.name(), address.ip(), address.port()));
        format!("{}/{name}", self.backend)
    }
}

fn set(server: &str, weight: u32, commands: &mut Vec<String>) {
    if weight == 0 {
        commands.push(format!("set server {server} state drain"));
    } else {
        commands.push(format!("set server {server} weight {weight}"));
        commands.push(format!("set server {server} state ready"));
    }
}

/// It cannot be deleted while it has connections; then it stays in maintenance.
fn remove(server: &str, commands: &mut Vec<String>) {
    commands.push(format!("set server {server} state maint"));
    commands.push(format!("del server {server}"));
}

/// The servers in the answer to `show servers state`, by address; none: it is no state.
fn servers(state: &str) -> Option<BTreeMap<SocketAddr, String>> {
    let mut lines = state.lines();
    let header = lines.find_map(|line| line.strip_prefix("# "))?;
    let column = |name| header.split(' ').position(|column| column == name);
    let (name, ip, port) = (column("srv_name")?, column("srv_addr")?, column("srv_port")?);
    let server = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ip: IpAddr = words.get(ip)?.parse().ok()?;
        let port = words.get(port)?.parse().ok()?;
        Some((SocketAddr::new(ip, port), words.get(name)?.to_string()))
    };
    Some(lines.filter_map(server).collect())
}
