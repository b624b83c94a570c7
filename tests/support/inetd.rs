//! A real superserver, with one line in its configuration.

use super::process::Process;
use super::{free_port, output, pegasus, tool, until, until_some, Directory};
use std::net::{Ipv4Addr, SocketAddr};

/// One process per client. Without the number inetd allows 256 starts a minute.
const EACH: &str = "stream tcp nowait.6000";

/// inetd, which listens and starts the redirector for each client.
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

    /// As [`redirect`](Inetd::redirect), but the first client's process serves later
    /// clients too.
    #[track_caller]
    pub fn redirect_all(queue: SocketAddr, settings: &[&str]) -> Inetd {
        Inetd::in_mode("stream tcp wait", queue, settings)
    }

    /// One process for all datagrams, until it has been idle.
    #[track_caller]
    pub fn redirect_datagrams(queue: SocketAddr, settings: &[&str]) -> Inetd {
        Inetd::in_mode("dgram udp wait", queue, settings)
    }

    #[track_caller]
    fn in_mode(mode: &str, queue: SocketAddr, settings: &[&str]) -> Inetd {
        let directory = Directory::new();
        let conf = pegasus::redirect_configuration(&directory, queue, settings);
        Inetd::in_directory(directory, mode, &format!("redirect -c {conf} -s {}", pegasus::SERVICE))
    }

    #[track_caller]
    fn in_directory(directory: Directory, mode: &str, arguments: &str) -> Inetd {
        let port = free_port();
        let path = pegasus::path();
        let user = output(tool("id").arg("-un"));
        let line = format!("127.0.0.1:{port} {mode} {} {path} pegasus {arguments}\n", user.trim());
        let conf = directory.write("inetd.conf", &line);
        let mut process = Process::start("inetd", tool("inetd").args(["-d", "-i", &conf]));
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        until("inetd listens", || {
            assert!(process.runs(), "inetd ended: {:#?}", process.log());
            entry(port, mode.starts_with("dgram")).is_some()
        });
        Inetd { process, address, directory }
    }

    /// Returns the processes that it has started.
    pub fn started(&self) -> Vec<i32> {
        let id = |line: &String| line.split_once(" execv ")?.0.parse().ok();
        self.process.log().iter().filter_map(id).collect()
    }

    /// Returns how many of them have ended, in `wait` mode.
    pub fn ended(&self) -> usize {
        self.process.log_with(&["restored "]).len()
    }

    /// Whether calls on its listening socket block, as they must.
    #[track_caller]
    pub fn listener_blocks(&self) -> bool {
        socket_flags(self.process.id(), self.address.port(), false) & libc::O_NONBLOCK == 0
    }

    /// Returns inetd's own process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the log of the redirectors.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.file("log")).unwrap_or_default()
    }
}

/// Returns the line in `/proc` about the socket that is bound to this port, in words.
/// It needs no connection. The network is that of the thread.
pub fn entry(port: u16, datagrams: bool) -> Option<Vec<String>> {
    let (table, state) = if datagrams {
        ("/proc/thread-self/net/udp", "07")
    } else {
        ("/proc/thread-self/net/tcp", "0A")
    };
    let table = std::fs::read_to_string(table).unwrap_or_default();
    let place = format!("0100007F:{port:04X}");
    let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<String>>();
    table.lines().map(words).find(|words| words.len() > 9 && words[1] == place && words[3] == state)
}

/// Returns the flags of the socket that is bound to this port, as a process has it.
#[track_caller]
pub fn socket_flags(process: u32, port: u16, datagrams: bool) -> i32 {
    // A table that changes while it is read may lack a line.
    let inode = &until_some("it listens", || entry(port, datagrams))[9];
    let place = format!("/proc/{process}");
    let socket = format!("socket:[{inode}]");
    let ours = |number: &String| {
        let target = std::fs::read_link(format!("{place}/fd/{number}"));
        target.is_ok_and(|target| target.to_string_lossy() == socket)
    };
    let descriptors = std::fs::read_dir(format!("{place}/fd")).unwrap().flatten();
    let mut numbers = descriptors.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let number = numbers.find(ours).expect("a descriptor of the listener");
    let text = std::fs::read_to_string(format!("{place}/fdinfo/{number}")).unwrap();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap()
}
