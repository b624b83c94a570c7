//! The contestants: who leads the clients to the providers, and how.
//!
//! Owns how each is configured and started, its processes, and how its operator drains a
//! provider. A program that is not installed is a reason, not a failure. None writes a log
//! of requests. All look after the health of providers as well as they can.

use super::clients::Door;
use crate::bench::follow::{self, exporter};
use crate::bench::provider::{Provider, BEATS};
use crate::bench::relay::account;
use crate::support::control_connection::ControlConnection;
use crate::support::inetd::Inetd;
use crate::support::pegasus::{command, pegasus, Queue, Redirect, SERVICE};
use crate::support::process::{run, Process};
use crate::support::{free_port, installed, until, Directory};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Why there is nothing to measure.
pub type Skipped = String;

/// A row of the tables.
pub struct Row {
    pub name: &'static str,
    /// For a chart.
    pub short: &'static str,
    /// For people.
    pub what: &'static str,
    pub start: fn(&Scene) -> Result<Contestant, Skipped>,
}

/// All there are.
pub const ROWS: [Row; 14] = [
    Row {
        name: "direct",
        short: "the quickest, alone",
        what: "the quickest provider alone, no balancer",
        start: direct,
    },
    Row {
        name: "dns",
        short: "DNS round robin",
        what: "round robin DNS (dnsmasq), a question a client",
        start: dns,
    },
    Row {
        name: "pegasus-dns",
        short: "PEGASUS, as DNS",
        what: "round robin DNS of PEGASUS (redirect_dns)",
        start: pegasus_dns,
    },
    Row {
        name: "nft",
        short: "kernel, equal weights",
        what: "the kernel (nft numgen), equal weights",
        start: nft,
    },
    Row {
        name: "pegasus-nft",
        short: "kernel, export",
        what: "the kernel, weights by `pegasus export nft --follow`",
        start: pegasus_nft,
    },
    Row {
        name: "apache",
        short: "Apache, heartbeat",
        what: "Apache: mod_heartmonitor, lbmethod_heartbeat, mod_proxy_hcheck",
        start: apache,
    },
    Row {
        name: "haproxy",
        short: "HAProxy leastconn",
        what: "HAProxy leastconn",
        start: |scene| haproxy(scene, Fed::No),
    },
    Row {
        name: "haproxy-weights",
        short: "HAProxy, true weights",
        what: "HAProxy leastconn with the true weights",
        start: |scene| haproxy(scene, Fed::Truth),
    },
    Row {
        name: "haproxy-agent",
        short: "HAProxy, agent check",
        what: "HAProxy leastconn, weights by agent checks of our monitors",
        start: |scene| haproxy(scene, Fed::Agent),
    },
    Row {
        name: "haproxy-export",
        short: "HAProxy, export",
        what: "HAProxy leastconn, weights by `pegasus export haproxy --follow`",
        start: |scene| haproxy(scene, Fed::Export),
    },
    Row {
        name: "pegasus-nowait",
        short: "PEGASUS, inetd nowait",
        what: "PEGASUS, started by inetd for each client",
        start: |scene| by_inetd(scene, Inetd::redirect),
    },
    Row {
        name: "pegasus-wait",
        short: "PEGASUS, inetd wait",
        what: "PEGASUS, started by inetd once",
        start: |scene| by_inetd(scene, Inetd::redirect_all),
    },
    Row {
        name: "pegasus-queue",
        short: "PEGASUS, two daemons",
        what: "PEGASUS, queue and redirector as two daemons",
        start: two_daemons,
    },
    Row { name: OURS, short: "PEGASUS", what: "PEGASUS, one daemon", start: standalone },
];

/// The row that the others are compared with.
pub const OURS: &str = "pegasus";

/// What a contestant finds.
pub struct Scene<'a> {
    pub providers: &'a [Provider],
    /// Their true speeds.
    pub speeds: &'a [f64],
    pub directory: &'a Directory,
    /// Why there is no network of its own, or none.
    pub shared: Option<&'a str>,
}

impl Scene<'_> {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.providers.iter().map(|provider| provider.address).collect()
    }

    fn port(&self) -> u16 {
        self.providers[0].address.port()
    }

    fn alone(&self) -> Result<(), Skipped> {
        self.shared.map_or(Ok(()), |why| Err(format!("no network namespace: {why}")))
    }
}

/// How its operator takes a provider out.
enum Drains {
    No,
    Queue(SocketAddr),
    Haproxy(String),
}

/// A contestant that serves. Its processes end with it.
pub struct Contestant {
    pub door: Door,
    drains: Drains,
    queues: Vec<Queue>,
    redirects: Vec<Redirect>,
    inetds: Vec<Inetd>,
    processes: Vec<Process>,
    /// On the providers' hosts.
    monitors: Vec<Process>,
    _files: Directory,
}

impl Contestant {
    fn at(door: Door) -> Contestant {
        Contestant {
            door,
            drains: Drains::No,
            queues: Vec::new(),
            redirects: Vec::new(),
            inetds: Vec::new(),
            processes: Vec::new(),
            monitors: Vec::new(),
            _files: Directory::new(),
        }
    }

    /// Monitors of all providers, and a queue that has heard of all.
    fn watched(mut self, scene: &Scene, queue: SocketAddr) -> Contestant {
        self.monitors = monitors(scene, &queue.to_string(), &|_| None);
        until("all providers have tickets", || {
            let status = ControlConnection::to(queue).status();
            scene.providers.iter().all(|provider| status.tickets(provider.address) > 0)
        });
        self.drains = Drains::Queue(queue);
        self
    }

    /// Processor time of the balancer's processes, and that of the monitors.
    pub fn used(&self) -> (Duration, Duration) {
        let ours = self.queues.iter().map(|queue| queue.id());
        let ours = ours.chain(self.redirects.iter().map(|redirect| redirect.id()));
        let ours = ours.chain(self.inetds.iter().map(|inetd| inetd.process().id()));
        let ours = ours.chain(self.processes.iter().map(Process::id)).map(used_with_children);
        (ours.sum(), self.monitors.iter().map(Process::used).sum())
    }

    /// Takes a provider out, or in again; false if its operator would have to edit files.
    pub fn drain(&self, number: usize, provider: SocketAddr, drained: bool) -> bool {
        match &self.drains {
            Drains::No => false,
            Drains::Queue(queue) => {
                let word = if drained { "drain" } else { "resume" };
                let message = format!("{word}?service={SERVICE}&provider={provider}");
                ControlConnection::to(*queue).ask(&message);
                true
            }
            Drains::Haproxy(socket) => {
                let server = format!("pegasus_web/s{number}");
                let text = match drained {
                    true => format!("disable agent {server};set server {server} state drain\n"),
                    false => format!("set server {server} state ready;enable agent {server}\n"),
                };
                tell_haproxy(socket, &text);
                true
            }
        }
    }
}

/// Of a process, of its children that run, and of those that ended.
fn used_with_children(id: u32) -> Duration {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    account::used(id) + children.map(account::used).sum::<Duration>()
}

fn find(name: &str) -> Result<PathBuf, Skipped> {
    installed(name).ok_or_else(|| format!("{name} is not installed"))
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

fn serves(name: &str, process: &mut Process, door: SocketAddr) -> Result<(), Skipped> {
    let mut ended = false;
    until(&format!("{name} listens"), || {
        ended = !process.runs();
        ended || TcpStream::connect(door).is_ok()
    });
    if !ended {
        return Ok(());
    }
    process.ends();
    Err(format!("{name} ended: {}", process.log().join(" | ")))
}

/// A monitor for each provider; `agent` gives the address of its agent check.
fn monitors(
    scene: &Scene,
    queues: &str,
    agent: &dyn Fn(&Provider) -> Option<SocketAddr>,
) -> Vec<Process> {
    let each = scene.providers.iter().map(|provider| {
        let mut settings = vec![
            format!("monitor_balancers={queues}"),
            format!("monitor_load=file:{}", provider.load.display()),
            format!("service_{SERVICE}_provider={}", provider.address),
            format!("service_{SERVICE}_check=http:/health"),
        ];
        settings.extend(agent(provider).map(|place| format!("monitor_agent={place}")));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut process = Process::start("monitor", &mut command("monitor", &settings));
        process.says(&["[monitor] ready "]);
        process
    });
    each.collect()
}

fn direct(scene: &Scene) -> Result<Contestant, Skipped> {
    let quickest = (0..scene.speeds.len())
        .max_by(|a, b| scene.speeds[*a].total_cmp(&scene.speeds[*b]).then(b.cmp(a)));
    Ok(Contestant::at(Door::At(scene.addresses()[quickest.unwrap_or(0)])))
}

fn dns(scene: &Scene) -> Result<Contestant, Skipped> {
    let program = find("dnsmasq")?;
    let place = local();
    let mut command = Command::new(program);
    command.args(["-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--listen-address=127.0.0.1", "--user=", "--pid-file="]);
    command.arg(format!("--port={}", place.port()));
    for provider in scene.addresses() {
        command.arg(format!("--host-record=web.example,{}", provider.ip()));
    }
    let mut contestant = Contestant::at(Door::Named(place, scene.port()));
    let mut process = Process::start("dnsmasq", &mut command);
    // It listens on TCP as well.
    serves("dnsmasq", &mut process, place)?;
    contestant.processes.push(process);
    Ok(contestant)
}

fn pegasus_dns(scene: &Scene) -> Result<Contestant, Skipped> {
    let (queue, place) = (Queue::start(&[]), local());
    let names = format!("redirect_dns={place}");
    let redirect = Redirect::start(queue.address, &[&names, "service_web_dns=web.example"]);
    let mut contestant = Contestant::at(Door::Named(place, scene.port()));
    let address = queue.address;
    contestant.queues.push(queue);
    contestant.redirects.push(redirect);
    Ok(contestant.watched(scene, address))
}

fn nft(scene: &Scene) -> Result<Contestant, Skipped> {
    scene.alone()?;
    let program = find("nft")?;
    let door = local();
    let count = scene.providers.len();
    let each = scene.addresses().into_iter().enumerate();
    let map = each.fold(String::new(), |mut map, (number, provider)| {
        let _ = write!(map, "{number} : {} . {}, ", provider.ip(), provider.port());
        map
    });
    let rules = format!(
        "table ip paper_{0} {{ chain output {{ type nat hook output priority -100;\n\
         ip daddr 127.0.0.1 tcp dport {0} dnat to numgen inc mod {count} map {{ {map} }}\n}}\n}}\n",
        door.port(),
    );
    let (status, _, errors) = run(Command::new(program).args(["-f", "-"]), rules.as_bytes());
    match status {
        0 => Ok(Contestant::at(Door::At(door))),
        _ => Err(format!("nft: {}", errors.trim())),
    }
}

fn pegasus_nft(scene: &Scene) -> Result<Contestant, Skipped> {
    scene.alone()?;
    let program = find("nft")?;
    let (queue, door) = (Queue::start(&[]), local());
    let mut contestant = Contestant::at(Door::At(door)).watched(scene, queue.address);
    // A table of its own: several contestants share this kernel.
    let listen = format!("service_{SERVICE}_listen={door}");
    let (nft, write) = follow::nft(&program);
    let exporter = exporter("nft", queue.address, &[&listen], &[], write);
    contestant.processes.extend([nft, exporter]);
    contestant.queues.push(queue);
    until("all are in the kernel's map", || {
        let mut list = Command::new(&program);
        let table = run(list.args(["list", "table", "inet", "pegasus_web"]), b"").1;
        scene.addresses().iter().all(|place| table.contains(&format!("dnat ip to {place}")))
    });
    Ok(contestant)
}

/// Where HAProxy has its weights from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    No,
    Truth,
    Agent,
    Export,
}

fn haproxy(scene: &Scene, fed: Fed) -> Result<Contestant, Skipped> {
    let program = find("haproxy")?;
    if fed == Fed::Agent && !pegasus(&["help", "config"]).1.contains("monitor_agent") {
        return Err("this program has no monitor_agent".into());
    }
    let door = local();
    let mut contestant = Contestant::at(Door::At(door));
    let socket = contestant._files.file("api");
    let port = free_port();
    let mut text = format!(
        "global\n maxconn 8000\n stats socket {socket} level admin\n\
         defaults\n mode http\n timeout connect 1s\n timeout client 60s\n timeout server 60s\n\
         \x20option redispatch 1\n retries 3\n retry-on conn-failure 503\n\
         frontend {SERVICE}\n bind {door}\n default_backend pegasus_web\n\
         backend pegasus_web\n balance leastconn\n option httpchk GET /health\n\
         \x20default-server check inter 1s fastinter 200ms fall 1 rise 2\n"
    );
    for (number, provider) in scene.addresses().into_iter().enumerate() {
        let _ = write!(text, " server s{number} {provider}");
        let _ = match fed {
            Fed::Truth => write!(text, " weight {}", 16.0 * scene.speeds[number]),
            Fed::Agent => {
                let ip = provider.ip();
                write!(text, " agent-check agent-addr {ip} agent-port {port} agent-inter 1s")
            }
            Fed::No | Fed::Export => Ok(()),
        };
        text.push('\n');
    }
    let conf = scene.directory.write(&format!("haproxy-{}.cfg", door.port()), &text);
    let queue = (fed == Fed::Export).then(|| Queue::start(&[]));
    match &queue {
        Some(queue) => contestant = contestant.watched(scene, queue.address),
        None if fed == Fed::Agent => {
            // Its queue is one that is never there: HAProxy alone decides.
            let agent = |provider: &Provider| Some(SocketAddr::new(provider.address.ip(), port));
            contestant.monitors = monitors(scene, &local().to_string(), &agent);
        }
        None => {}
    }
    let mut process = Process::start("haproxy", Command::new(program).args(["-db", "-f", &conf]));
    serves("haproxy", &mut process, door)?;
    contestant.processes.push(process);
    if let Some(queue) = queue {
        let api = follow::haproxy(&socket)?;
        let words = ["--socket", socket.as_str()];
        contestant.processes.push(exporter("haproxy", queue.address, &[], &words, api));
        contestant.queues.push(queue);
    } else {
        contestant.drains = Drains::Haproxy(socket);
    }
    Ok(contestant)
}

fn tell_haproxy(socket: &str, text: &str) {
    let mut answer = String::new();
    let told = UnixStream::connect(socket).and_then(|mut stream| {
        stream.write_all(text.as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    told.unwrap_or_else(|error| panic!("{socket}: {error}"));
}

/// Lets multicast datagrams go over loopback, for heartbeats.
fn multicast() -> Result<(), Skipped> {
    let ip = find("ip")?;
    for words in ["link set lo multicast on", "route replace 239.0.0.0/8 dev lo"] {
        let (status, _, errors) = run(Command::new(&ip).args(words.split(' ')), b"");
        if status != 0 {
            return Err(format!("ip {words}: {}", errors.trim()));
        }
    }
    Ok(())
}

fn apache(scene: &Scene) -> Result<Contestant, Skipped> {
    scene.alone()?;
    let program = find("apache2").or_else(|_| find("httpd"))?;
    let folder = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/libexec/apache2"];
    let folder = folder
        .into_iter()
        .find(|folder| fs::exists(format!("{folder}/mod_lbmethod_heartbeat.so")).unwrap_or(false));
    let folder = folder.ok_or("Apache has no mod_lbmethod_heartbeat here")?;
    multicast()?;
    let door = local();
    let mut contestant = Contestant::at(Door::At(door));
    let place = contestant._files.path().display().to_string();
    let mut text = format!(
        "ServerRoot {place}\nServerName localhost\nListen {door}\nPidFile {place}/pid\n\
         DefaultRuntimeDir {place}\nErrorLog {place}/error\nLogLevel crit\n"
    );
    for module in [
        "mpm_event",
        "authz_core",
        "slotmem_shm",
        "proxy",
        "proxy_http",
        "proxy_balancer",
        "proxy_hcheck",
        "heartmonitor",
        "lbmethod_heartbeat",
    ] {
        let _ = writeln!(text, "LoadModule {module}_module {folder}/mod_{module}.so");
    }
    if let Some(user) = ["www-data", "apache", "nobody"].into_iter().find(|user| {
        fs::read_to_string("/etc/passwd").is_ok_and(|all| all.contains(&format!("\n{user}:")))
    }) {
        let _ = writeln!(text, "User {user}");
    }
    let _ = write!(
        text,
        "ThreadLimit 512\nThreadsPerChild 512\nMaxRequestWorkers 512\n\
         HeartbeatListen {BEATS}\nHeartbeatMaxServers 64\n<Proxy \"balancer://web\">\n"
    );
    for provider in scene.addresses() {
        let _ = writeln!(
            text,
            "BalancerMember \"http://{provider}\" retry=1 connectiontimeout=1 disablereuse=on \
             hcmethod=GET hcuri=/health hcinterval=1 hcpasses=2 hcfails=1"
        );
    }
    text += "ProxySet lbmethod=heartbeat failonstatus=503\n</Proxy>\n\
             ProxyPass \"/\" \"balancer://web/\"\n";
    let conf = scene.directory.write(&format!("apache-{}.conf", door.port()), &text);
    let mut process = Process::start("apache2", Command::new(program).args(["-X", "-f", &conf]));
    serves("apache2", &mut process, door)?;
    contestant.processes.push(process);
    until("Apache leads to a provider", || {
        crate::support::http::get(door, "/health").is_ok_and(|visit| visit.body.is_ok())
    });
    Ok(contestant)
}

/// How inetd starts a redirector for a queue.
type Starts = fn(SocketAddr, &[&str]) -> Inetd;

fn by_inetd(scene: &Scene, start: Starts) -> Result<Contestant, Skipped> {
    find("inetd")?;
    let queue = Queue::start(&[]);
    let inetd = start(queue.address, &["log_level=error"]);
    let mut contestant = Contestant::at(Door::At(inetd.address)).watched(scene, queue.address);
    contestant.inetds.push(inetd);
    contestant.queues.push(queue);
    Ok(contestant)
}

/// A redirector of its own process, which writes no log.
fn redirector(door: SocketAddr, settings: &[&str]) -> Result<Process, Skipped> {
    let listen = format!("service_{SERVICE}_listen={door}");
    let settings = [settings, &["log=none", &listen]].concat();
    let mut process = Process::start("redirect", &mut command("redirect", &settings));
    serves("pegasus redirect", &mut process, door)?;
    Ok(process)
}

fn two_daemons(scene: &Scene) -> Result<Contestant, Skipped> {
    let (queue, door) = (Queue::start(&[]), local());
    let mut contestant = Contestant::at(Door::At(door)).watched(scene, queue.address);
    let asked = format!("redirect_queue={}", queue.address);
    contestant.processes.push(redirector(door, &[&asked])?);
    contestant.queues.push(queue);
    Ok(contestant)
}

fn standalone(scene: &Scene) -> Result<Contestant, Skipped> {
    let (queue, door) = (local(), local());
    let listen = format!("queue_listen={queue}");
    let process = redirector(door, &["redirect_queue=embedded", &listen])?;
    let mut contestant = Contestant::at(Door::At(door)).watched(scene, queue);
    contestant.processes.push(process);
    Ok(contestant)
}

/// The versions of the programs that report one.
pub fn versions() -> String {
    let first = |program: &str, word: &str| {
        let (_, out, errors) = run(Command::new(installed(program)?).arg(word), b"");
        Some((out + &errors).lines().next()?.trim().to_string())
    };
    let ours = pegasus(&["--version"]).1;
    let ours = ours.lines().next().unwrap_or("").to_string();
    let others = [("haproxy", "-v"), ("apache2", "-v"), ("nft", "--version"), ("dnsmasq", "-v")];
    let others = others.iter().filter_map(|(program, word)| first(program, word));
    std::iter::once(ours).chain(others).collect::<Vec<_>>().join("; ")
}
