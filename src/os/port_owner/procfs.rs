//! The kernel's table of sockets, and the descriptors of each process.

use super::PortOwner;
use crate::os::socket_table::{for_each, LISTEN};
use std::fs;
use std::net::SocketAddr;

/// A process that has this port, of any address.
pub fn of(socket: SocketAddr, datagrams: bool) -> Option<PortOwner> {
    let inodes = inodes(socket.port(), datagrams);
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

/// The inodes of sockets that listen on this port. Those for datagrams have no such state.
fn inodes(port: u16, datagrams: bool) -> Vec<String> {
    let mut inodes = Vec::new();
    for table in if datagrams { ["udp", "udp6"] } else { ["tcp", "tcp6"] } {
        for_each(table, |socket| {
            if socket.port == port && (datagrams || socket.state == LISTEN) {
                inodes.push(socket.inode.to_string());
            }
        });
    }
    inodes
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
