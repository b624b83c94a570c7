//! A real HAProxy, and what it says of its servers.

use super::process::Process;
use super::{free_port, tool, until, Directory, PATIENCE};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;

/// A HAProxy with a backend `pegasus_web`, and its runtime API.
pub struct Haproxy {
    pub address: SocketAddr,
    pub directory: Directory,
    _process: Process,
}

impl Haproxy {
    #[track_caller]
    pub fn start(servers: &str) -> Haproxy {
        let directory = Directory::new();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let file = directory.write(
            "haproxy.cfg",
            &format!(
                "global\n stats socket {} level admin\n\
                 defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server \
                 30s\n\
                 frontend web\n bind {address}\n default_backend pegasus_web\n\
                 backend pegasus_web\n balance roundrobin\n{servers}",
                directory.file("api")
            ),
        );
        let process = Process::start("haproxy", tool("haproxy").args(["-db", "-f", &file]));
        let haproxy = Haproxy { address, directory, _process: process };
        until("HAProxy is ready", || haproxy.connect().is_ok());
        haproxy
    }

    pub fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.directory.file("api"))
    }

    #[track_caller]
    pub fn ask(&self, commands: &str) -> String {
        let mut stream = self.connect().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(commands.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Name, address, state and weight of each server: 0 stopped, 2 running; 0 in use,
    /// 1 in maintenance, 8 drained.
    pub fn servers(&self) -> Vec<[String; 4]> {
        let state = self.ask("show servers state pegasus_web\n");
        let mut lines = state.lines();
        let header: Vec<&str> = lines.nth(1).unwrap()[2..].split(' ').collect();
        let column = |name| header.iter().position(|column| *column == name).unwrap();
        let columns = [
            column("srv_name"),
            column("srv_port"),
            column("srv_admin_state"),
            column("srv_uweight"),
        ];
        let row = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            columns.map(|column| words[column].to_string())
        };
        lines.filter(|line| !line.is_empty()).map(row).collect()
    }

    /// What HAProxy's statistics say of a server, by the name of the column.
    pub fn statistic(&self, server: &str, column: &str) -> String {
        let text = self.ask("show stat pegasus_web 4 -1\n");
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let number = header.iter().position(|name| *name == column).unwrap();
        let row = lines.find(|row| row.get(1) == Some(&server));
        row.unwrap_or_else(|| panic!("no {server}: {text}"))[number].to_string()
    }
}
