//! Several balancers, one address: all announce it by BGP (conf/ecmp), or one has it at a time
//! by VRRP (conf/keepalived).

use crate::support::control_connection::ControlConnection;
use crate::support::namespace::{self, ip, Network};
use crate::support::pegasus::command;
use crate::support::process::Process;
use crate::support::provider::Provider;
use crate::support::{installed, skip, tool, until, Directory};
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What balancers announce.
const ANNOUNCED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// What moves from one to another.
const MOVING: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn sample(name: &str) -> String {
    let path = format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A sample of bird's configuration, where only the own address and the log are replaced.
fn bird(directory: &Directory, file: &str, own: Ipv4Addr) -> Process {
    let text = sample(&format!("ecmp/{file}"))
        .replace("router id 10.0.0.11;", &format!("router id {own};"))
        .replace("log syslog all;", "log stderr all;");
    let conf = directory.write(&format!("{own}.conf"), &text);
    let (socket, pid) = (control(directory, own), directory.file(&format!("{own}.pid")));
    let words = ["-f", "-c", &conf, "-s", &socket, "-P", &pid];
    Process::start("bird", tool("bird").args(words))
}

/// bird's control socket.
fn control(directory: &Directory, own: Ipv4Addr) -> String {
    directory.file(&format!("{own}.ctl"))
}

/// A balancer of one provider, in a network of its own behind a wire `eth0`.
struct Balancer {
    network: Network,
    own: Ipv4Addr,
    provider: SocketAddr,
    redirect: Option<Process>,
    /// What brings clients to it.
    others: Vec<Process>,
}

impl Balancer {
    /// Must be called in the router's network; leaves it.
    fn start(last: u8, provider: SocketAddr) -> Balancer {
        let (router, own) = (Network::current(), Ipv4Addr::new(10, 0, 0, last));
        let network = Network::enter_new();
        ip(&format!("link add eth0 type veth peer name to{last} netns {}", router.path()));
        ip(&format!("address add {own}/24 dev eth0"));
        ip("link set eth0 up");
        router.enter();
        ip(&format!("link set to{last} master bridge up"));
        network.enter();
        let mut balancer = Balancer { network, own, provider, redirect: None, others: Vec::new() };
        balancer.serve();
        balancer
    }

    fn announces(&mut self, directory: &Directory) {
        self.network.enter();
        ip(&format!("address add {ANNOUNCED}/32 dev lo"));
        self.others.push(bird(directory, "balancer.conf", self.own));
        let place = control(directory, self.own);
        until("bird answers", || fs::exists(&place).unwrap());
        let script = directory.write("announce.sh", &sample("ecmp/announce.sh"));
        let birdc = format!("{} -s {place}", installed("birdc").unwrap().display());
        let words = [&script, "http://127.0.0.1:7348/health", &birdc];
        self.others.push(Process::start("announce.sh", tool("sh").args(words)));
    }

    fn takes_turns(&mut self, directory: &Directory) {
        self.network.enter();
        let own = self.own;
        let conf = directory.write(&format!("{own}.conf"), &sample("keepalived/keepalived.conf"));
        let (pid, vrrp) =
            (directory.file(&format!("{own}.pid")), directory.file(&format!("{own}.vrrp")));
        let words = ["-n", "-l", "-P", "-f", &conf, "-p", &pid, "-r", &vrrp];
        self.others.push(Process::start("keepalived", tool("keepalived").args(words)));
    }

    fn cut(&self, how: &str) {
        let before = Network::current();
        self.network.enter();
        ip(&format!("link set eth0 {how}"));
        before.enter();
    }

    fn serve(&mut self) {
        let before = Network::current();
        self.network.enter();
        let settings = [
            "redirect_queue=embedded",
            "queue_listen=127.0.0.1:7347",
            "redirect_admin=127.0.0.1:7348",
            "service_web_listen=*:80",
        ];
        let mut redirect = Process::start("redirect", &mut command("redirect", &settings));
        redirect.says(&["[redirect] ready "]);
        self.redirect = Some(redirect);
        let provider = self.provider;
        let offer =
            format!("ticket?service=web&provider={provider}&tickets=100&capacity=100&lease=10m");
        let answer = ControlConnection::to((Ipv4Addr::LOCALHOST, 7347).into()).ask(&offer);
        assert!(answer.starts_with("ok "), "{answer}");
        before.enter();
    }
}

/// The name of what serves a client; empty where it finds no balancer.
fn visit(door: Ipv4Addr) -> String {
    let mut name = String::new();
    let door = SocketAddr::from((door, 80));
    if let Ok(mut stream) = TcpStream::connect_timeout(&door, Duration::from_millis(500)) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.read_to_string(&mut name);
    }
    name
}

/// Waits until each of so many clients in a row is served by one of these, and each of these
/// serves some.
#[track_caller]
fn served_by(door: Ipv4Addr, what: &str, names: &[&str]) {
    let start = Instant::now();
    until(what, || {
        let visits = (0..32).map(|_| visit(door));
        let seen: Vec<String> = visits.take_while(|name| names.contains(&name.as_str())).collect();
        seen.len() == 32 && names.iter().all(|name| seen.iter().any(|known| known == name))
    });
    println!("{what}: after {} ms", start.elapsed().as_millis());
}

/// A router's network, in which clients and providers are, and its balancers.
fn site(names: &[&'static str]) -> Option<(Vec<Provider>, Vec<Balancer>)> {
    let router = Network::current();
    let bridge = tool("ip").args(["link", "add", "bridge", "type", "bridge"]).status();
    if !bridge.is_ok_and(|status| status.success()) {
        skip("no bridge in this kernel");
        return None;
    }
    ip(&format!("address add {ROUTER}/24 dev bridge"));
    ip("link set bridge up");
    let providers: Vec<Provider> =
        names.iter().map(|name| Provider::named_at(ROUTER.into(), name)).collect();
    let balancers = (11..).zip(&providers).map(|(last, provider)| {
        router.enter();
        Balancer::start(last, provider.address)
    });
    let balancers = balancers.collect();
    router.enter();
    Some((providers, balancers))
}

fn lacks(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| installed(program).is_none());
    if let Some(missing) = missing {
        skip(&format!("{missing} is not installed"));
    }
    missing.is_some()
}

#[test]
fn a_router_spreads_clients_over_the_balancers_that_serve() {
    if lacks(&["bird", "curl"]) {
        return;
    }
    namespace::alone(|| {
        let (directory, router) = (Directory::new(), Network::current());
        if fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1").is_err() {
            return skip("no equal-cost paths in this kernel");
        }
        let Some((_providers, mut balancers)) = site(&["one", "two", "three"]) else { return };
        let _bird = bird(&directory, "router.conf", ROUTER);
        balancers.iter_mut().for_each(|balancer| balancer.announces(&directory));
        router.enter();
        served_by(ANNOUNCED, "all balancers share the clients", &["one", "two", "three"]);
        // Its health is gone, and announce.sh tells bird.
        balancers[0].redirect = None;
        served_by(ANNOUNCED, "a redirector is killed", &["two", "three"]);
        balancers[0].serve();
        served_by(ANNOUNCED, "it is back", &["one", "two", "three"]);
        // Only BFD can tell the router.
        balancers[1].cut("down");
        served_by(ANNOUNCED, "the wire of a balancer is cut", &["one", "three"]);
        balancers[1].cut("up");
        served_by(ANNOUNCED, "it is mended", &["one", "two", "three"]);
    });
}

#[test]
fn an_address_moves_to_a_balancer_that_serves() {
    if lacks(&["keepalived", "curl"]) {
        return;
    }
    namespace::alone(|| {
        const NAMES: [&str; 2] = ["one", "two"];
        let (directory, router) = (Directory::new(), Network::current());
        let Some((_providers, mut balancers)) = site(&NAMES) else { return };
        balancers.iter_mut().for_each(|balancer| balancer.takes_turns(&directory));
        router.enter();
        // Who has it first is a matter of the start.
        let mut first = 0;
        until("one of them has the address", || {
            let found = NAMES.iter().position(|name| *name == visit(MOVING));
            first = found.unwrap_or(first);
            found.is_some()
        });
        let second = 1 - first;
        balancers[first].redirect = None;
        served_by(MOVING, "the redirector of one is killed", &[NAMES[second]]);
        balancers[first].serve();
        balancers[second].cut("down");
        served_by(MOVING, "the wire of the other is cut", &[NAMES[first]]);
    });
}
