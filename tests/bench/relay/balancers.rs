//! The balancers that are compared: PEGASUS, others, and none.
//!
//! Owns how each is configured and started, and its processes, which end with it. None of
//! them writes a log; all take the same number of connections. All use one thread for
//! their clients, but those named `-auto`. A program that is not installed is a reason, not a
//! failure.

use super::account::{memory, used};
use super::load::fresh::Way;
use crate::support::control_connection::ControlConnection;
use crate::support::keyed::Keys;
use crate::support::pegasus::{command, command_of, SERVICE};
use crate::support::process::Process;
use crate::support::{free_port, installed, Directory};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a balancer may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// What is asked when the queue of PEGASUS is measured alone.
pub const NEXT: &str = "pegasus://b/next\n";
/// Many more than are in progress at any time.
const TICKETS: u32 = 1_000_000;

/// The surroundings of a balancer.
pub struct Scene<'a> {
    pub providers: &'a [SocketAddr],
    pub datagrams: bool,
    /// Most connections that it must take at once.
    pub connections: usize,
}

/// Why there is nothing to measure.
pub type Skipped = String;

/// A row of the tables.
pub struct Row {
    pub name: &'static str,
    pub start: fn(&Scene) -> Result<Balancer, Skipped>,
}

/// All there are.
pub const ROWS: [Row; 20] = [
    Row { name: "direct", start: direct },
    Row { name: "haproxy", start: |scene| haproxy(scene, false, 1) },
    Row { name: "haproxy-splice", start: |scene| haproxy(scene, true, 1) },
    Row { name: "haproxy-auto", start: |scene| haproxy(scene, false, cpus()) },
    Row { name: "nginx", start: nginx },
    Row { name: "pen", start: pen },
    Row { name: "socket-proxyd", start: super::servers::socket_proxyd },
    Row { name: "pegasus", start: |scene| embedded(scene, command) },
    Row { name: "pegasus-auto", start: |scene| embedded_with(scene, command, None) },
    Row { name: "before", start: before },
    Row { name: "pegasus-daemon", start: |scene| with_daemon(scene, ONE_THREAD, "0") },
    Row { name: "pegasus-keyed", start: keyed },
    Row { name: "pegasus-daemon-auto", start: |scene| with_daemon(scene, None, "0") },
    Row { name: "pegasus-daemon-stock", start: |scene| with_daemon(scene, ONE_THREAD, "auto") },
    Row { name: "pegasus-unasked", start: unasked },
    Row { name: "inetd-nc", start: |scene| super::servers::inetd_other(scene, "nc") },
    Row { name: "inetd-socat", start: |scene| super::servers::inetd_other(scene, "socat") },
    Row { name: "inetd-pegasus", start: super::servers::inetd_pegasus },
    Row { name: "pegasus-queue", start: |scene| queue("default", scene.providers) },
    Row { name: "redis", start: super::servers::redis },
];

/// A running balancer.
pub struct Balancer {
    /// The addresses for clients.
    pub doors: Vec<SocketAddr>,
    /// The processes that count as the balancer.
    pub processes: Vec<Process>,
    /// Of a queue: what to ask it, a line for a line.
    pub question: &'static str,
    /// How clients find a provider.
    pub way: Way,
    /// The directory of the processes, removed after their end.
    _files: Option<Directory>,
}

impl Balancer {
    /// Started, but not yet ready; see [`QueueAddr::serves`].
    pub fn of(door: SocketAddr, process: Process, files: Option<Directory>) -> Balancer {
        let (doors, processes) = (vec![door], vec![process]);
        Balancer { doors, processes, question: "", way: Way::Straight, _files: files }
    }

    /// Processor time of its processes and of their children that ended.
    pub fn used(&self) -> Duration {
        self.processes.iter().map(|process| used(process.id())).sum()
    }

    /// How often they slept and were woken.
    pub fn wake_ups(&self) -> u64 {
        self.processes.iter().flat_map(Process::wake_ups).sum()
    }

    /// Their memory in bytes, of a kind that [`memory`] knows.
    pub fn memory(&self, kind: &str) -> f64 {
        self.processes.iter().map(|process| memory(process.id(), kind)).sum()
    }

    /// Waits until it serves; if it ends instead, returns its output.
    pub fn serves(
        mut self,
        name: &str,
        mut serves: impl FnMut() -> bool,
    ) -> Result<Balancer, Skipped> {
        let start = Instant::now();
        while !serves() {
            let ended =
                self.processes.iter_mut().find_map(|process| (!process.runs()).then_some(process));
            if let Some(ended) = ended {
                // The rest of its output may still be on its way.
                ended.ends();
                return Err(format!("{name} ended: {}", ended.log().join(" | ")));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{name} does not serve after {PATIENCE:?}"));
            }
            thread::sleep(LOOK);
        }
        Ok(self)
    }
}

/// The path of a program, or that it is missing.
pub fn find(name: &str) -> Result<PathBuf, Skipped> {
    installed(name).ok_or_else(|| format!("{name} is not installed"))
}

/// The versions of the programs that report one.
pub fn versions() -> String {
    let version = |name: &&str| {
        let output = Command::new(installed(name)?).arg("-v").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).lines().next()?.split(" sha=").next()?.to_string())
    };
    ["haproxy", "nginx", "redis-server"].iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub fn listens(place: SocketAddr) -> bool {
    TcpStream::connect(place).is_ok()
}

/// Whether this address echoes, or accepts a connection.
fn answers(scene: &Scene, door: SocketAddr) -> bool {
    if !scene.datagrams {
        return listens(door);
    }
    let echo = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(door)?;
        socket.set_read_timeout(Some(10 * LOOK))?;
        socket.send(b"?")?;
        socket.recv(&mut [0; 8])
    };
    echo().is_ok()
}

pub fn direct(scene: &Scene) -> Result<Balancer, Skipped> {
    Ok(Balancer {
        doors: scene.providers.to_vec(),
        processes: Vec::new(),
        question: "",
        way: Way::Straight,
        _files: None,
    })
}

/// For each provider, a piece of configuration.
fn each(scene: &Scene, piece: impl Fn(usize, &SocketAddr) -> String) -> String {
    scene.providers.iter().enumerate().map(|(number, provider)| piece(number, provider)).collect()
}

/// As many threads as a redirector has by default.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn haproxy(scene: &Scene, splice: bool, threads: usize) -> Result<Balancer, Skipped> {
    let program = find("haproxy")?;
    let directory = Directory::new();
    let port = free_port();
    let most = scene.connections;
    // `option splice-auto` alone does not splice this load.
    let (global, defaults) = match splice {
        true => (
            " maxpipes 64\n tune.pipesize 1048576\n",
            " option splice-request\n option splice-response\n",
        ),
        false => ("", ""),
    };
    let servers = each(scene, |number, provider| format!(" server s{number} {provider}\n"));
    let text = format!(
        "global\n nbthread {threads}\n maxconn {most}\n{global}\
         defaults\n mode tcp\n maxconn {most}\n{defaults}\
         \x20timeout connect 5s\n timeout client 10m\n timeout server 10m\n\
         listen {SERVICE}\n bind 127.0.0.1:{port}\n balance roundrobin\n{servers}"
    );
    let conf = directory.write("haproxy.cfg", &text);
    start(scene, "haproxy", Command::new(program).args(["-db", "-f", &conf]), port, directory)
}

fn nginx(scene: &Scene) -> Result<Balancer, Skipped> {
    let program = find("nginx")?;
    let directory = Directory::new();
    let port = free_port();
    let servers = each(scene, |_, provider| format!("server {provider}; "));
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let module = if module.is_file() {
        format!("load_module {};\n", module.display())
    } else {
        String::new()
    };
    // Two a connection, and a few of its own. One process, which ends with this one.
    let place = directory.path().display().to_string();
    let most = 2 * scene.connections + 64;
    let kind = if scene.datagrams { "udp" } else { "backlog=4096" };
    let text = format!(
        "{module}master_process off;\ndaemon off;\npid {place}/pid;\nerror_log {place}/error.log;\n\
         events {{ worker_connections {most}; multi_accept on; }}\n\
         stream {{\n  proxy_timeout 10m;\n  upstream all {{ {servers}}}\n\
         \x20 server {{ listen 127.0.0.1:{port} {kind}; proxy_pass all; }}\n}}\n"
    );
    let conf = directory.write("nginx.conf", &text);
    let log = directory.file("error.log");
    start(
        scene,
        "nginx",
        Command::new(program).args(["-p", &place, "-c", &conf, "-e", &log]),
        port,
        directory,
    )
}

fn pen(scene: &Scene) -> Result<Balancer, Skipped> {
    let program = find("pen")?;
    let port = free_port();
    let most = scene.connections.to_string();
    let mut command = Command::new(program);
    // In the foreground, without affinity.
    command.args(["-f", "-r", "-x", &most, "-t", "5"]);
    if scene.datagrams {
        command.arg("-U");
    }
    command.arg(local(port).to_string());
    command.args(scene.providers.iter().map(|provider| format!("{provider}:{most}:{most}")));
    start(scene, "pen", &mut command, port, Directory::new())
}

fn start(
    scene: &Scene,
    name: &str,
    command: &mut Command,
    port: u16,
    directory: Directory,
) -> Result<Balancer, Skipped> {
    let balancer = Balancer::of(local(port), Process::start(name, command), Some(directory));
    balancer.serves(name, || answers(scene, local(port)))
}

/// Offers the providers' tickets to a queue.
pub fn offer(queue: SocketAddr, service: &str, providers: &[SocketAddr]) {
    let mut line = ControlConnection::to(queue);
    for provider in providers {
        let answer = line.ask(&format!(
            "ticket?provider={provider}&service={service}&tickets={TICKETS}&capacity={TICKETS}\
             &lease=2h"
        ));
        assert!(answer.starts_with("ok "), "{answer}");
    }
}

/// A queue of PEGASUS with tickets of these providers.
pub fn queue(service: &str, providers: &[SocketAddr]) -> Result<Balancer, Skipped> {
    queue_with(service, providers, &[])
}

fn queue_with(
    service: &str,
    providers: &[SocketAddr],
    settings: &[&str],
) -> Result<Balancer, Skipped> {
    let place = local(free_port());
    let listen = format!("queue_listen={place}");
    let settings = [&["log=none", &listen], settings].concat();
    let process = Process::start("queue", &mut command("queue", &settings));
    let mut queue = Balancer::of(place, process, None);
    queue.question = NEXT;
    let queue = queue.serves("pegasus queue", || listens(place))?;
    offer(place, service, providers);
    Ok(queue)
}

/// Makes a command of PEGASUS with settings.
pub type Program = fn(&str, &[&str]) -> Command;

/// A number of threads; none: what the program chooses.
pub type Threads = Option<usize>;

pub const ONE_THREAD: Threads = Some(1);

/// A redirector; more settings say which queue it asks.
fn redirect(
    scene: &Scene,
    program: Program,
    threads: Threads,
    settings: &[String],
) -> (Process, SocketAddr) {
    let door = local(free_port());
    let most = format!("redirect_connections_max={}", scene.connections);
    let listen =
        format!("service_{SERVICE}_listen={door}{}", if scene.datagrams { "/udp" } else { "" });
    let threads = threads.map_or("auto".to_string(), |count| count.to_string());
    let own = ["log=none", &format!("redirect_threads={threads}"), &most, &listen];
    let settings: Vec<&str> = own.into_iter().chain(settings.iter().map(String::as_str)).collect();
    (Process::start("redirect", &mut program("redirect", &settings)), door)
}

/// The environment variable with the path of another build, to compare with.
pub const BEFORE: &str = "PEGASUS_BENCH_BEFORE";

/// The other build, in the same way as the `pegasus` row.
fn before(scene: &Scene) -> Result<Balancer, Skipped> {
    std::env::var_os(BEFORE).ok_or_else(|| format!("{BEFORE} is not set"))?;
    embedded(scene, |name, settings| {
        command_of(Command::new(std::env::var_os(BEFORE).unwrap_or_default()), name, settings)
    })
}

pub fn embedded(scene: &Scene, program: Program) -> Result<Balancer, Skipped> {
    embedded_with(scene, program, ONE_THREAD)
}

fn embedded_with(scene: &Scene, program: Program, threads: Threads) -> Result<Balancer, Skipped> {
    answering(scene, program, threads, &[])
}

/// The same with more settings.
pub fn answering(
    scene: &Scene,
    program: Program,
    threads: Threads,
    more: &[String],
) -> Result<Balancer, Skipped> {
    let queue = local(free_port());
    let own = ["redirect_queue=embedded".to_string(), format!("queue_listen={queue}")];
    let settings = [&own[..], more].concat();
    let (process, door) = redirect(scene, program, threads, &settings);
    let balancer = Balancer::of(door, process, None);
    let balancer = balancer.serves("pegasus redirect", || listens(queue))?;
    offer(queue, SERVICE, scene.providers);
    balancer.serves("pegasus redirect", || answers(scene, door))
}

pub fn with_daemon(scene: &Scene, threads: Threads, stock: &str) -> Result<Balancer, Skipped> {
    let stock = format!("redirect_stock={stock}");
    beside(scene, queue(SERVICE, scene.providers)?, threads, vec![stock])
}

/// As `pegasus-daemon`, and what the two say to each other is encrypted.
fn keyed(scene: &Scene) -> Result<Balancer, Skipped> {
    let keys = Keys::of(&[&["balancer", "lb1"]]);
    let client = keys.client("balancer", "lb1");
    let queue = queue_with(SERVICE, scene.providers, &[&keys.setting("keys")])?;
    let mut balancer = beside(scene, queue, ONE_THREAD, vec!["redirect_stock=0".into(), client])?;
    balancer._files = Some(keys.directory);
    Ok(balancer)
}

/// A redirector that asks this queue in a process of its own.
fn beside(
    scene: &Scene,
    mut balancer: Balancer,
    threads: Threads,
    mut settings: Vec<String>,
) -> Result<Balancer, Skipped> {
    settings.push(format!("redirect_queue={}", balancer.doors[0]));
    let (process, door) = redirect(scene, command, threads, &settings);
    balancer.doors = vec![door];
    balancer.processes.push(process);
    balancer.serves("pegasus redirect", || answers(scene, door))
}

/// It finds no queue and sends all clients to its fallback providers at once: the same
/// redirector without any request to a queue.
fn unasked(scene: &Scene) -> Result<Balancer, Skipped> {
    let fallback = each(scene, |_, provider| format!("{provider} "));
    let settings = [
        format!("redirect_queue={}", local(free_port())),
        format!("service_{SERVICE}_fallback={}", fallback.trim_end()),
    ];
    let (process, door) = redirect(scene, command, ONE_THREAD, &settings);
    let balancer = Balancer::of(door, process, None);
    balancer.serves("pegasus redirect", || answers(scene, door))
}
