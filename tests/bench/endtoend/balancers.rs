//! The balancers under test: PEGASUS, PEGASUS as in the paper, and HAProxy.
//!
//! Owns their processes, which end with it, and what they say about retries.
//! Knows of the providers only address and load file.

use super::paper::Paper;
use crate::bench::provider::Provider;
use crate::support::pegasus::{command, Queue, Redirect, SERVICE};
use crate::support::process::Process;
use crate::support::{free_port, tool, until, Directory};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The balancers that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Pegasus,
    /// Without ids, so that the queue counts nothing.
    Paper,
    RoundRobin,
    LeastConn,
    /// `leastconn` with the true weights of its servers.
    Weighted,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pegasus => "pegasus",
            Kind::Paper => "pegasus paper mode",
            Kind::RoundRobin => "haproxy roundrobin",
            Kind::LeastConn => "haproxy leastconn",
            Kind::Weighted => "haproxy weighted",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Kind::Pegasus | Kind::Paper)
    }
}

/// One balancer, or two beside each other.
pub struct Balancer {
    /// The addresses for clients.
    pub doors: Vec<SocketAddr>,
    redirects: Vec<Redirect>,
    papers: Vec<Paper>,
    /// By provider.
    monitors: Vec<Process>,
    queues: Vec<Queue>,
    haproxies: Vec<(Process, Directory)>,
}

impl Balancer {
    /// `weights` are the true weights of the providers, for balancers that use them.
    pub fn start(kind: Kind, providers: &[Provider], count: usize, weights: &[u32]) -> Balancer {
        let mut balancer = Balancer {
            doors: Vec::new(),
            redirects: Vec::new(),
            papers: Vec::new(),
            monitors: Vec::new(),
            queues: Vec::new(),
            haproxies: Vec::new(),
        };
        for _ in 0..count {
            match kind {
                Kind::Pegasus | Kind::Paper => balancer.queues.push(Queue::start(&[])),
                Kind::RoundRobin => balancer.haproxy("roundrobin", providers, None),
                Kind::LeastConn => balancer.haproxy("leastconn", providers, None),
                Kind::Weighted => balancer.haproxy("leastconn", providers, Some(weights)),
            }
        }
        let places: Vec<SocketAddr> = balancer.queues.iter().map(|queue| queue.address).collect();
        match kind {
            Kind::Pegasus => {
                let settings = ["redirect_threads=1", "redirect_connect_timeout=1s"];
                balancer.redirects =
                    places.iter().map(|queue| Redirect::start(*queue, &settings)).collect();
                balancer.doors =
                    balancer.redirects.iter().map(|redirect| redirect.address).collect();
            }
            Kind::Paper => {
                balancer.papers = places.iter().map(|queue| Paper::start(*queue)).collect();
                balancer.doors = balancer.papers.iter().map(|paper| paper.address).collect();
            }
            _ => {}
        }
        if kind.is_ours() {
            balancer.monitors =
                providers.iter().map(|provider| monitor(provider, &places)).collect();
            let addresses: Vec<SocketAddr> =
                providers.iter().map(|provider| provider.address).collect();
            balancer.queues.iter().for_each(|queue| queue.has(&addresses));
        }
        balancer
    }

    fn haproxy(&mut self, balance: &str, providers: &[Provider], weights: Option<&[u32]>) {
        let directory = Directory::new();
        let port = free_port();
        let mut text = format!(
            "global\n maxconn 8000\n nbthread 1\n stats socket {}\n\
             defaults\n mode tcp\n timeout connect 1s\n timeout client 60s\n\
             \x20timeout server 60s\n option redispatch\n\
             listen {SERVICE}\n bind 127.0.0.1:{port}\n balance {balance}\n",
            directory.file("stats"),
        );
        for (number, provider) in providers.iter().enumerate() {
            let _ = write!(text, " server s{number} {} check inter 2s fall 3", provider.address);
            if let Some(weights) = weights {
                let _ = write!(text, " weight {}", weights[number]);
            }
            text.push('\n');
        }
        let conf = directory.write("haproxy.cfg", &text);
        let mut process = Process::start("haproxy", tool("haproxy").args(["-db", "-f", &conf]));
        let door: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        until("haproxy listens", || {
            assert!(process.runs(), "haproxy ended: {:#?}", process.log());
            TcpStream::connect(door).is_ok()
        });
        self.doors.push(door);
        self.haproxies.push((process, directory));
    }

    /// The monitor of a silent host is silent too, and receives nothing.
    pub fn silence_monitor(&self, provider: usize, silent: bool) {
        if let Some(monitor) = self.monitors.get(provider) {
            monitor.signal(if silent { libc::SIGSTOP } else { libc::SIGCONT });
        }
    }

    /// Processor time of its processes.
    pub fn used(&self) -> Duration {
        let haproxies = self.haproxies.iter().map(|(process, _)| process);
        let redirects = self.redirects.iter().map(|redirect| &**redirect);
        let queues = self.queues.iter().map(|queue| &**queue);
        haproxies.chain(redirects).chain(queues).chain(&self.monitors).map(Process::used).sum()
    }

    /// Connects to providers that failed and were retried.
    pub fn retries(&self) -> u64 {
        let redirects = self
            .redirects
            .iter()
            .map(|redirect| redirect.log_with(&["failure service="]).len() as u64);
        let papers = self.papers.iter().map(|paper| paper.failures.load(Ordering::SeqCst));
        let haproxies =
            self.haproxies.iter().map(|(_, directory)| haproxy_retries(&directory.file("stats")));
        redirects.chain(papers).chain(haproxies).sum()
    }
}

fn monitor(provider: &Provider, queues: &[SocketAddr]) -> Process {
    let queues: Vec<String> = queues.iter().map(ToString::to_string).collect();
    let settings = [
        format!("monitor_balancers={}", queues.join(" ")),
        format!("monitor_load=file:{}", provider.load.display()),
        format!("service_{SERVICE}_provider={}", provider.address),
    ];
    let mut process = Process::start(
        "monitor",
        &mut command("monitor", &settings.each_ref().map(String::as_str)),
    );
    process.says(&["[monitor] ready "]);
    process
}

/// Retries and redispatches, as HAProxy counts them.
fn haproxy_retries(socket: &str) -> u64 {
    let mut text = String::new();
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.write_all(b"show stat\n")?;
        stream.read_to_string(&mut text)
    });
    asked.unwrap_or_else(|error| panic!("{socket}: {error}"));
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split(',').collect();
    let all: Vec<&str> =
        lines.find(|line| line.contains(",BACKEND,")).unwrap_or("").split(',').collect();
    let number = |name: &str| {
        let place = names.iter().position(|known| *known == name)?;
        all.get(place)?.parse::<u64>().ok()
    };
    number("wretr").unwrap_or(0) + number("wredis").unwrap_or(0)
}
