//! A real superserver, with one line in its configuration.

use super::process::Process;
use super::{free_port, output, pegasus, tool, until, Directory};
use std::net::{Ipv4Addr, SocketAddr};

/// A process for each client; without a number inetd allows 256 starts a minute.
const EACH: &str = "stream tcp nowait.6000";

/// It listens, and starts the redirector for each client.
pub struct Inetd {
    process: Process,
    pub address: SocketAddr,
    directory: Directory,
}

impl Inetd {
    /// `arguments` follow the program's name.
    #[track_caller]
    pub fn start(arguments: &str) -> Inetd {
        Inetd::in_directory(Directory::new(), EACH, arguments)
    }

    /// `redirect` with these settings, in a file; its log is in another.
    #[track_caller]
    pub fn redirect(queue: SocketAddr, settings: &[&str]) -> Inetd {
        Inetd::in_mode(EACH, queue, settings)
    }

    /// The same, and the first client's process serves the later ones too.
    #[track_caller]
    pub fn redirect_all(queue: SocketAddr, settings: &[&str]) -> Inetd {
        Inetd::in_mode("stream tcp wait", queue, settings)
    }

    /// One process for all datagrams, for a while.
    #[track_caller]
    pub fn redirect_datagrams(queue: SocketAddr, settings: &[&str]) -> Inetd {
        Inetd::in_mode("dgram udp wait", queue, settings)
    }

    #[track_caller]
    fn in_mode(mode: &str, queue: SocketAddr, settings: &[&str]) -> Inetd {
        let directory = Directory::new();
        let (queue, log) = (format!("redirect_queue={queue}"), format!("log={}", directory.file("log")));
        let settings: Vec<&str> = settings.iter().copied().chain([queue.as_str(), log.as_str()]).collect();
        let conf = pegasus::configuration(&directory, &settings);
        Inetd::in_directory(directory, mode, &format!("redirect -c {conf} -s {}", pegasus::SERVICE))
    }

    #[track_caller]
    fn in_directory(directory: Directory, mode: &str, arguments: &str) -> Inetd {
        let (port, path) = (free_port(), pegasus::path());
        let user = output(tool("id").arg("-un"));
        let line = format!("127.0.0.1:{port} {mode} {} {path} pegasus {arguments}\n", user.trim());
        let conf = directory.write("inetd.conf", &line);
        let mut process = Process::start("inetd", tool("inetd").args(["-d", "-i", &conf]));
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        until("inetd listens", || {
            assert!(process.runs(), "inetd ended: {:#?}", process.log());
            listens(port, mode.starts_with("dgram"))
        });
        Inetd { process, address, directory }
    }

    /// The superserver itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What the redirectors said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.file("log")).unwrap_or_default()
    }
}

/// Whether somebody listens on this port, found out without becoming a client.
fn listens(port: u16, datagrams: bool) -> bool {
    let (table, state) = if datagrams { ("/proc/net/udp", "07") } else { ("/proc/net/tcp", "0A") };
    let table = std::fs::read_to_string(table).unwrap_or_default();
    let place = format!("0100007F:{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&place) && words.nth(1) == Some(state)
    })
}
