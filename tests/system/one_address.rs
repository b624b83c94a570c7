//! Several balancers that all announce one address, by BGP: the recipe in `conf/ecmp`.

use crate::support::control_connection::ControlConnection;
use crate::support::namespace::{self, ip, Host, Switch};
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
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

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

/// A balancer of one provider.
struct Balancer {
    host: Host,
    own: Ipv4Addr,
    provider: SocketAddr,
    redirect: Option<Process>,
    /// What brings clients to it.
    others: Vec<Process>,
}

impl Balancer {
    fn start(switch: &Switch, last: u8, provider: SocketAddr) -> Balancer {
        let own = Ipv4Addr::new(10, 0, 0, last);
        let host = switch.host(&format!("lb{last}"), &format!("{own}/24"));
        let mut balancer = Balancer { host, own, provider, redirect: None, others: Vec::new() };
        balancer.serve();
        balancer
    }

    fn announce(&mut self, directory: &Directory) {
        // A file of its own: a shell reads its script while it runs.
        let script = directory.write(&format!("{}.sh", self.own), &sample("announce.sh"));
        let place = control(directory, self.own);
        let birdc = format!("{} -s {place}", installed("birdc").unwrap().display());
        let words = [&script, "http://127.0.0.1:7348/health", &birdc];
        self.others = self.host.at(|| {
            ip(&format!("address add {ANNOUNCED}/32 dev lo"));
            let bird = bird(directory, "balancer.conf", self.own);
            until("bird answers", || fs::exists(&place).unwrap());
            vec![bird, Process::start("announce.sh", tool("sh").args(words))]
        });
    }

    fn serve(&mut self) {
        let settings = [
            "redirect_queue=embedded",
            "queue_listen=127.0.0.1:7347",
            "redirect_admin=127.0.0.1:7348",
            "service_web_listen=*:80",
        ];
        let provider = self.provider;
        let offer =
            format!("ticket?service=web&provider={provider}&tickets=100&capacity=100&lease=10m");
        self.redirect = Some(self.host.at(|| {
            let mut redirect = Process::start("redirect", &mut command("redirect", &settings));
            redirect.says(&["[redirect] ready "]);
            let answer = ControlConnection::to((Ipv4Addr::LOCALHOST, 7347).into()).ask(&offer);
            assert!(answer.starts_with("ok "), "{answer}");
            redirect
        }));
    }
}

/// The name of what serves a client; empty where it finds no balancer.
fn visit() -> String {
    let mut name = String::new();
    let door = SocketAddr::from((ANNOUNCED, 80));
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
        let visits = (0..32).map(|_| visit());
        let seen: Vec<String> = visits.take_while(|name| names.contains(&name.as_str())).collect();
        seen.len() == 32 && names.iter().all(|name| seen.iter().any(|known| known == name))
    });
    println!("{what}: after {} ms", start.elapsed().as_millis());
}

#[test]
fn a_router_spreads_clients_over_the_balancers_that_serve() {
    if let Some(missing) = ["bird", "curl"].iter().find(|program| installed(program).is_none()) {
        return skip(&format!("{missing} is not installed"));
    }
    // Clients and providers are at the router.
    namespace::alone(|| {
        if fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1").is_err() {
            return skip("no equal-cost paths in this kernel");
        }
        let Some(switch) = Switch::new() else { return };
        switch.set_address(&format!("{ROUTER}/24"));
        let providers = ["one", "two", "three"].map(|name| Provider::named_at(ROUTER.into(), name));
        let balancers = (11..).zip(&providers);
        let mut balancers: Vec<Balancer> =
            balancers.map(|(last, one)| Balancer::start(&switch, last, one.address)).collect();
        let directory = Directory::new();
        let _bird = bird(&directory, "router.conf", ROUTER);
        balancers.iter_mut().for_each(|balancer| balancer.announce(&directory));
        served_by("all balancers share the clients", &["one", "two", "three"]);
        // Its health is gone, and announce.sh tells bird.
        balancers[0].redirect = None;
        served_by("a redirector is killed", &["two", "three"]);
        balancers[0].serve();
        served_by("it is back", &["one", "two", "three"]);
        // Only BFD can tell the router.
        balancers[1].host.unplug();
        served_by("the cable of a balancer is pulled", &["one", "three"]);
        balancers[1].host.plug();
        served_by("it is back in", &["one", "two", "three"]);
    });
}
