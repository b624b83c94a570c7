//! Every superserver: the real program if it is installed, or else an imitation that
//! passes the same descriptors.

use super::inetd::{entry, socket_flags};
use super::process::{bind_to_parent, Process};
use super::{free_port, installed, output, pegasus, tool, until, Directory};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A way to start the redirector.
pub struct Kind {
    pub name: &'static str,
    /// It takes its socket back when the redirector ends.
    pub lends: bool,
    start: fn(&Job) -> Option<Server>,
}

const fn each(name: &'static str, start: fn(&Job) -> Option<Server>) -> Kind {
    Kind { name, lends: false, start }
}

const fn lent(name: &'static str, start: fn(&Job) -> Option<Server>) -> Kind {
    Kind { name, lends: true, start }
}

/// The ways for TCP.
pub const STREAMS: &[Kind] = &[
    each("openbsd-inetd nowait", |job| job.inetd("inetd", &["-d", "-i"], "stream tcp nowait.6000")),
    lent("openbsd-inetd wait", |job| job.inetd("inetd", &["-d", "-i"], "stream tcp wait")),
    each("inetutils-inetd nowait", |job| job.inetutils("stream tcp nowait")),
    lent("inetutils-inetd wait", |job| job.inetutils("stream tcp wait")),
    each("xinetd wait=no", |job| job.xinetd("stream", "no")),
    lent("xinetd wait=yes", |job| job.xinetd("stream", "yes")),
    each("busybox inetd nowait", |job| {
        job.inetd("busybox", &["inetd", "-f", "-e"], "stream tcp nowait")
    }),
    lent("busybox inetd wait", |job| {
        job.inetd("busybox", &["inetd", "-f", "-e"], "stream tcp wait")
    }),
    each("busybox tcpsvd", |job| job.with_place("busybox", &["tcpsvd", "-c", "1000", "-b", "128"])),
    each("tcpsvd", |job| job.with_place("tcpsvd", &["-c", "1000", "-b", "128", "-l", "0"])),
    each("tcpserver", |job| {
        job.with_place("tcpserver", &["-H", "-R", "-l", "0", "-c", "1000", "-b", "128"])
    }),
    each("s6-tcpserver", |job| job.with_place("s6-tcpserver", &["-c", "1000"])),
    each("systemd-socket-activate", |job| job.systemd(&[])),
    each("systemd-socket-activate --accept", |job| job.systemd(&["--accept"])),
    each("systemd-socket-activate --inetd", |job| job.systemd(&["--inetd"])),
    each("systemd-socket-activate --inetd --accept", |job| job.systemd(&["--inetd", "--accept"])),
    each("like launchd, Wait false", |job| {
        job.imitation(Imitated::Connections, [true, true, true])
    }),
    lent("like launchd, Wait true", |job| job.imitation(Imitated::Listener, [true, true, true])),
    each("like s6-tcpserver", |job| job.imitation(Imitated::Connections, [true, true, false])),
    lent("like busybox inetd wait", |job| job.imitation(Imitated::Listener, [true, true, false])),
];

/// The ways for UDP.
pub const DATAGRAMS: &[Kind] = &[
    lent("openbsd-inetd dgram wait", |job| job.inetd("inetd", &["-d", "-i"], "dgram udp wait")),
    lent("inetutils-inetd dgram wait", |job| job.inetutils("dgram udp wait")),
    lent("xinetd dgram wait=yes", |job| job.xinetd("dgram", "yes")),
    lent("busybox inetd dgram wait", |job| {
        job.inetd("busybox", &["inetd", "-f", "-e"], "dgram udp wait")
    }),
    each("busybox inetd dgram nowait", |job| {
        job.inetd("busybox", &["inetd", "-f", "-e"], "dgram udp nowait")
    }),
    each("busybox udpsvd", |job| job.with_place("busybox", &["udpsvd", "-c", "100"])),
    lent("udpsvd", |job| job.with_place("udpsvd", &["-l", "0"])),
    each("systemd-socket-activate --datagram", |job| job.systemd(&["--datagram"])),
    lent("like launchd, dgram", |job| job.imitation(Imitated::Datagrams, [true, true, true])),
    lent("like udpsvd", |job| job.imitation(Imitated::Datagrams, [true, false, false])),
];

/// The command to start: the redirector, with its configuration in a file.
struct Job {
    directory: Directory,
    port: u16,
    /// The program and its arguments, without a service.
    words: Vec<String>,
    datagrams: bool,
}

/// The program or its imitation, until it is dropped.
struct Server {
    process: Option<Process>,
    _imitation: Option<Imitation>,
}

/// A running superserver.
pub struct Superserver {
    pub address: SocketAddr,
    server: Server,
    datagrams: bool,
    directory: Directory,
}

impl Kind {
    /// Starts it, with the redirector of `pegasus::SERVICE`. Returns none, and prints
    /// SKIPPED, if it is not installed.
    #[track_caller]
    pub fn start(&self, queue: SocketAddr, settings: &[&str]) -> Option<Superserver> {
        let directory = Directory::new();
        let conf = pegasus::redirect_configuration(&directory, queue, settings);
        let words = [pegasus::path(), "redirect", "-c", &conf].map(str::to_string).to_vec();
        let port = free_port();
        let datagrams = DATAGRAMS.iter().any(|kind| kind.name == self.name);
        let job = Job { directory, port, words, datagrams };
        let Some(server) = (self.start)(&job) else {
            skipped(self.name);
            return None;
        };
        let Job { directory, port, datagrams, .. } = job;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut superserver = Superserver { address, server, datagrams, directory };
        until(&format!("{} listens", self.name), || {
            if let Some(process) = &mut superserver.server.process {
                assert!(process.runs(), "{} ended: {:#?}", self.name, process.log());
            }
            entry(port, datagrams).is_some()
        });
        Some(superserver)
    }
}

impl Superserver {
    /// Returns the flags of its listening socket.
    #[track_caller]
    pub fn flags(&self) -> i32 {
        let process = self.server.process.as_ref().map_or(std::process::id(), Process::id);
        socket_flags(process, self.address.port(), self.datagrams)
    }

    /// What the redirectors said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.file("log")).unwrap_or_default()
    }
}

/// Says that a program is not installed, which only some tests need.
pub fn skipped(name: &str) {
    super::skip(&format!("{name} is not installed"));
}

/// Returns the user that runs this test.
pub fn user() -> String {
    output(tool("id").arg("-un")).trim().to_string()
}

impl Job {
    fn real(&self, command: &mut Command) -> Option<Server> {
        Some(Server { process: Some(Process::start("superserver", command)), _imitation: None })
    }

    /// Starts a program that reads inetd.conf.
    fn inetd(&self, program: &str, options: &[&str], mode: &str) -> Option<Server> {
        let program = installed(program)?;
        if options[0] == "inetd" && !busybox_has("inetd") {
            return None;
        }
        let path = &self.words[0];
        let arguments = self.words[1..].join(" ");
        let line = format!(
            "127.0.0.1:{} {mode} {} {path} pegasus {arguments} -s web\n",
            self.port,
            user()
        );
        let conf = self.directory.write("inetd.conf", &line);
        self.real(Command::new(program).args(options).arg(conf))
    }

    fn inetutils(&self, mode: &str) -> Option<Server> {
        let pid = format!("--pidfile={}", self.directory.file("pid"));
        self.inetd("inetutils-inetd", &["-d", "-R", "60000", &pid], mode)
    }

    fn xinetd(&self, socket: &str, wait: &str) -> Option<Server> {
        let program = installed("xinetd")?;
        let protocol = if socket == "stream" { "tcp" } else { "udp" };
        let path = &self.words[0];
        let arguments = self.words[1..].join(" ");
        let conf = format!(
            "service pegasus\n{{\n\ttype = UNLISTED\n\tsocket_type = {socket}\n\
             \tprotocol = {protocol}\n\tport = {}\n\
             \tbind = 127.0.0.1\n\twait = {wait}\n\tuser = {}\n\tcps = 1000 1\n\tserver = {path}\n\
             \tserver_args = {arguments} -s web\n}}\n",
            self.port,
            user()
        );
        let conf = self.directory.write("xinetd.conf", &conf);
        self.real(&mut xinetd(program, &self.directory, &conf))
    }

    /// Starts a program that takes an address, a port and a command.
    fn with_place(&self, program: &str, options: &[&str]) -> Option<Server> {
        let program = installed(program)?;
        if options[0].ends_with("svd") && !busybox_has(options[0]) {
            return None;
        }
        let mut command = Command::new(program);
        command
            .args(options)
            .args(["127.0.0.1", &self.port.to_string()])
            .args(&self.words)
            .args(["-s", "web"]);
        self.real(&mut command)
    }

    fn systemd(&self, options: &[&str]) -> Option<Server> {
        let mut command = Command::new(installed("systemd-socket-activate")?);
        command.arg(format!("--listen=127.0.0.1:{}", self.port)).args(options);
        // Listeners have names; other sockets have none that means a service.
        if options.is_empty() || self.datagrams {
            command.arg("--fdname=web").args(&self.words);
        } else {
            command.args(&self.words).args(["-s", "web"]);
        }
        self.real(&mut command)
    }

    fn imitation(&self, what: Imitated, descriptors: [bool; 3]) -> Option<Server> {
        let mut words = self.words.clone();
        words.extend(["-s", "web"].map(str::to_string));
        let imitation = Imitation::start(self.port, what, descriptors, words);
        Some(Server { process: None, _imitation: Some(imitation) })
    }
}

/// Starts xinetd in the foreground, with its own log in a file.
pub fn xinetd(program: PathBuf, directory: &Directory, conf: &str) -> Command {
    let log = directory.file("xinetd.log");
    let pid = directory.file("pid");
    let mut command = Command::new(program);
    command.args(["-dontfork", "-f", conf, "-filelog", &log, "-pidfile", &pid]);
    command
}

/// Debian's busybox has neither inetd nor tcpsvd; that of OpenWrt and Alpine has.
pub fn busybox_has(applet: &str) -> bool {
    let Some(program) = installed("busybox") else { return false };
    output(Command::new(program).arg("--list")).lines().any(|line| line == applet)
}

/// What an imitation passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Imitated {
    /// A connection, to a process of its own.
    Connections,
    /// The listening socket, to one process at a time.
    Listener,
    /// As `Listener`, for datagrams.
    Datagrams,
}

/// An imitation: a thread that waits for clients and starts a program.
pub struct Imitation {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Door {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

impl Imitation {
    /// `descriptors`: which of 0, 1 and 2 are the socket; the others are the null
    /// device.
    #[track_caller]
    pub fn start(
        port: u16,
        what: Imitated,
        descriptors: [bool; 3],
        words: Vec<String>,
    ) -> Imitation {
        let place = (Ipv4Addr::LOCALHOST, port);
        let door = match what {
            Imitated::Datagrams => Door::Datagram(UdpSocket::bind(place).unwrap()),
            _ => Door::Stream(TcpListener::bind(place).unwrap()),
        };
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let thread = thread::spawn(move || {
            // All of them die with this thread.
            let mut children = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                if !readable(&door) {
                    continue;
                }
                let socket: OwnedFd = match (&door, what) {
                    (Door::Stream(listener), Imitated::Connections) => {
                        listener.accept().unwrap().0.into()
                    }
                    (Door::Stream(listener), _) => listener.try_clone().unwrap().into(),
                    (Door::Datagram(socket), _) => socket.try_clone().unwrap().into(),
                };
                let of = |ours: bool| {
                    if ours {
                        socket.try_clone().unwrap().into()
                    } else {
                        Stdio::null()
                    }
                };
                let mut command = Command::new(&words[0]);
                command
                    .args(&words[1..])
                    .stdin(of(descriptors[0]))
                    .stdout(of(descriptors[1]))
                    .stderr(of(descriptors[2]));
                let mut child = bind_to_parent(&mut command).spawn().unwrap();
                drop((command, socket));
                while what != Imitated::Connections
                    && !ended.load(Ordering::SeqCst)
                    && child.try_wait().unwrap().is_none()
                {
                    thread::sleep(super::LOOK);
                }
                children.push(child);
            }
            for mut child in children {
                let _ = child.kill();
                let _ = child.wait();
            }
        });
        Imitation { over, thread: Some(thread) }
    }
}

/// Whether the socket becomes readable within a moment.
fn readable(door: &Door) -> bool {
    let fd = match door {
        Door::Stream(listener) => listener.as_raw_fd(),
        Door::Datagram(socket) => socket.as_raw_fd(),
    };
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure, and its count.
    unsafe { libc::poll(&raw mut poll, 1, 20) == 1 }
}

impl Drop for Imitation {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
