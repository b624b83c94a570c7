//! Several balancers announce one address by BGP, as in conf/ecmp: a router spreads clients
//! over those that can serve.

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

const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn sample(name: &str) -> String {
    let path = format!("{}/conf/ecmp/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A sample of bird's configuration, where only the own address and the log are replaced.
fn bird(directory: &Directory, file: &str, own: Ipv4Addr) -> Process {
    let text = sample(file)
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

/// A balancer of one provider, in a network of its own.
struct Balancer {
    network: Network,
    provider: SocketAddr,
    redirect: Option<Process>,
    _bird: Process,
    _announce: Process,
}

impl Balancer {
    /// Must be called in the router's network; leaves it.
    fn start(directory: &Directory, last: u8, provider: SocketAddr) -> Balancer {
        let (router, own) = (Network::current(), Ipv4Addr::new(10, 0, 0, last));
        let network = Network::enter_new();
        ip(&format!("link add up{last} type veth peer name down{last} netns {}", router.path()));
        ip(&format!("address add {own}/24 dev up{last}"));
        ip(&format!("link set up{last} up"));
        ip(&format!("address add {SERVICE}/32 dev lo"));
        router.enter();
        ip(&format!("link set down{last} master bridge up"));
        network.enter();
        let bird = bird(directory, "balancer.conf", own);
        let place = control(directory, own);
        until("bird answers", || fs::exists(&place).unwrap());
        let script = directory.write("announce.sh", &sample("announce.sh"));
        let health = "http://127.0.0.1:7348/health";
        let birdc = format!("{} -s {place}", installed("birdc").unwrap().display());
        let announce = Process::start("announce.sh", tool("sh").args([&script, health, &birdc]));
        let mut balancer =
            Balancer { network, provider, redirect: None, _bird: bird, _announce: announce };
        balancer.serve();
        balancer
    }

    fn serve(&mut self) {
        self.network.enter();
        let settings = [
            "log=none",
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
    }
}

/// Who serves this client; nobody where it finds no balancer.
fn visit() -> String {
    let mut name = String::new();
    let door = SocketAddr::from((SERVICE, 80));
    if let Ok(mut stream) = TcpStream::connect_timeout(&door, Duration::from_millis(500)) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.read_to_string(&mut name);
    }
    name
}

/// Waits until each of so many clients in a row is served by one of these, and each of these
/// serves some.
#[track_caller]
fn served_by(what: &str, names: &[&str]) {
    let start = Instant::now();
    until(what, || {
        let seen: Vec<String> =
            (0..32).map(|_| visit()).take_while(|name| names.contains(&name.as_str())).collect();
        seen.len() == 32 && names.iter().all(|name| seen.iter().any(|known| known == name))
    });
    println!("{what}: after {} ms", start.elapsed().as_millis());
}

#[test]
fn a_router_spreads_clients_over_the_balancers_that_serve() {
    if installed("bird").is_none() || installed("curl").is_none() {
        return skip("bird (package bird2) or curl is not installed");
    }
    namespace::alone(|| {
        let directory = Directory::new();
        let router = Network::current();
        let bridge = tool("ip").args(["link", "add", "bridge", "type", "bridge"]).status();
        if !bridge.is_ok_and(|status| status.success()) {
            return skip("no bridge in this kernel");
        }
        ip("address add 10.0.0.1/24 dev bridge");
        ip("link set bridge up");
        if fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1").is_err() {
            return skip("no equal-cost paths in this kernel");
        }
        let own = Ipv4Addr::new(10, 0, 0, 1);
        let _bird = bird(&directory, "router.conf", own);
        let providers = ["one", "two", "three"].map(|name| Provider::named_at(own.into(), name));
        let mut balancers: Vec<Balancer> = Vec::new();
        for (last, provider) in (11..).zip(&providers) {
            router.enter();
            balancers.push(Balancer::start(&directory, last, provider.address));
        }
        router.enter();
        served_by("all balancers share the clients", &["one", "two", "three"]);

        // Its health is gone, and announce.sh tells bird.
        balancers[0].redirect = None;
        served_by("a redirector is killed", &["two", "three"]);
        balancers[0].serve();
        router.enter();
        served_by("it is back", &["one", "two", "three"]);

        // Nobody can tell the router but BFD.
        balancers[1].network.enter();
        ip("link set up12 down");
        router.enter();
        served_by("the wire of a balancer is cut", &["one", "three"]);
        balancers[1].network.enter();
        ip("link set up12 up");
        router.enter();
        served_by("it is mended", &["one", "two", "three"]);
    });
}
