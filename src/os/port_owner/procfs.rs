//! Linux tells it in files: the sockets of a family, and the descriptors of a process.

use super::PortOwner;
use std::fs;
use std::net::SocketAddr;

/// A process that has this port, of any address.
pub fn of(socket: SocketAddr, datagrams: bool) -> Option<PortOwner> {
    let kind = if datagrams { "udp" } else { "tcp" };
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| fs::read_to_string(format!("/proc/net/{kind}{family}")).ok())
        .flat_map(|table| inodes(&table, socket.port(), datagrams))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let id = ids.find(|id| {
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| {
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
        })
    })?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?.trim_end().to_string();
    Some(PortOwner { id, name })
}

/// The inodes of sockets that listen on this port; datagrams are not in a state.
fn inodes(table: &str, port: u16, datagrams: bool) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let inode = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_here = words.get(1)?.ends_with(&port);
        let is_open = datagrams || *words.get(3)? == LISTEN;
        (is_here && is_open).then(|| words.get(9).map(ToString::to_string))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn the_owner_of_a_port_of_ours_is_this_process() {
        let stream = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = std::process::id();
        let owner = of(stream.local_addr().unwrap(), false).map(|owner| owner.id);
        assert_eq!(owner, Some(own));
        let owner = of(datagrams.local_addr().unwrap(), true).map(|owner| owner.id);
        assert_eq!(owner, Some(own));
    }
}
