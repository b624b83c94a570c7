//! Ways to lead clients, of which relaying is one: new connections a second, and the processor
//! time of the whole system for each.
//!
//! ```text
//! cargo test --release --test main bench_ways -- --ignored --nocapture
//! ```
//! Owns the rows and the order of a run. Every row has a network of its own, with providers of
//! its own: the kernel's rules cost all connections of their network. All rows are there all
//! the time and take turns in random order, once a round. The queue holds tickets for all.
//! `pegasus` is one daemon that relays; `pegasus-daemon` asks a queue in another process. `nft` and
//! `haproxy` are fed by `pegasus export --follow`. With `dns` each client asks for the name, as
//! behind a resolver that keeps nothing; with `http` each is redirected. The processor time
//! of the whole system is that of clients, balancer and providers; only it can be compared with
//! the kernel's, whose work is done in the name of the others.
//!
//! The environment is that of `bench_relay`, without a choice of scenarios.

use super::balancers::{
    answering, direct, embedded, find, listens, local, queue, with_daemon, Balancer, Row, Scene,
    Skipped, ONE_THREAD,
};
use super::load::fresh::Way;
use super::providers::Providers;
use super::report::{self, Results};
use super::scenarios::{Metric, WAYS};
use super::{balancers, Effort, Run, CONNECTIONS};
use crate::bench::follow::{self, exporter};
use crate::bench::host::{chosen, describe, parameter};
use crate::support::namespace::{self, Network};
use crate::support::pegasus::{command, SERVICE};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::socket::raise_descriptors;
use crate::support::{free_port, Directory};
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

const ROWS: [Row; 7] = [
    Row { name: "direct", start: direct },
    Row { name: "pegasus", start: |scene| embedded(scene, command) },
    Row { name: "pegasus-daemon", start: |scene| with_daemon(scene, ONE_THREAD, "0") },
    Row { name: "nft", start: nft },
    Row { name: "haproxy", start: haproxy },
    Row { name: "dns", start: dns },
    Row { name: "http", start: http },
];

fn nft(scene: &Scene) -> Result<Balancer, Skipped> {
    let program = find("nft")?;
    let mut balancer = queue(SERVICE, scene.providers)?;
    let (address, door) = (balancer.doors[0], local(free_port()));
    let (nft, write) = follow::nft(program.as_ref());
    let words = ["--listen", &door.to_string()];
    balancer.processes.extend([nft, exporter("nft", address, &[], &words, write)]);
    balancer.doors = vec![door];
    balancer.serves("nft", || listens(door))
}

fn haproxy(scene: &Scene) -> Result<Balancer, Skipped> {
    let program = find("haproxy")?;
    let (directory, door) = (Directory::new(), local(free_port()));
    let socket = directory.file("api");
    let most = scene.connections;
    let text = format!(
        "global\n nbthread 1\n maxconn {most}\n stats socket {socket} level admin\n\
         defaults\n mode tcp\n maxconn {most}\n\
         \x20timeout connect 5s\n timeout client 10m\n timeout server 10m\n\
         frontend {SERVICE}\n bind {door}\n default_backend pegasus_{SERVICE}\n\
         backend pegasus_{SERVICE}\n balance roundrobin\n"
    );
    let conf = directory.write("haproxy.cfg", &text);
    let haproxy = Process::start("haproxy", Command::new(program).args(["-db", "-f", &conf]));
    let haproxy = Balancer::of(door, haproxy, Some(directory)).serves("haproxy", || listens(door));
    let (mut balancer, mut queue) = (haproxy?, queue(SERVICE, scene.providers)?);
    let api = follow::haproxy(&socket)?;
    balancer.processes.push(exporter("haproxy", queue.doors[0], &[], &[], api));
    balancer.processes.append(&mut queue.processes);
    let servers = || {
        let mut state = String::new();
        let mut stream = UnixStream::connect(&socket)?;
        std::io::Write::write_all(&mut stream, b"show servers state\n")?;
        std::io::Read::read_to_string(&mut stream, &mut state)?;
        std::io::Result::Ok(state.matches(" pegasus_web_").count())
    };
    let count = scene.providers.len();
    balancer.serves("haproxy", || servers().is_ok_and(|known| known == count))
}

fn dns(scene: &Scene) -> Result<Balancer, Skipped> {
    let place = local(free_port());
    let settings = [format!("redirect_dns={place}"), format!("service_{SERVICE}_dns=web.example")];
    let mut balancer = answering(scene, command, ONE_THREAD, &settings)?;
    balancer.doors = vec![place];
    balancer.way = Way::Named(scene.providers.to_vec());
    balancer.serves("pegasus redirect", || listens(place))
}

fn http(scene: &Scene) -> Result<Balancer, Skipped> {
    let settings = [format!("service_{SERVICE}_http=redirect")];
    let mut balancer = answering(scene, command, ONE_THREAD, &settings)?;
    balancer.way = Way::Redirected;
    Ok(balancer)
}

/// A row with its network and its providers.
struct Place {
    row: &'static Row,
    network: Network,
    providers: Providers,
    balancer: Balancer,
}

/// Measures all that can be started, so many rounds; how much of the machine others used.
fn measure(rows: &[&'static Row], rounds: usize, lasting: Duration) -> (Results, f64) {
    let connections = (raise_descriptors().saturating_sub(256) / 2).min(CONNECTIONS);
    let mut random = Random::told();
    let mut places = Vec::new();
    for row in rows {
        let network = Network::enter_new();
        // Clients come from one address: as many ports as there are, but those of listeners.
        let _ = fs::write("/proc/sys/net/ipv4/ip_local_port_range", "11000 65535");
        let providers = Providers::start();
        let at = providers.at(WAYS.trade).to_vec();
        match (row.start)(&Scene { providers: &at, datagrams: false, connections }) {
            Ok(balancer) => places.push(Place { row, network, providers, balancer }),
            Err(why) => println!("SKIPPED {}: {why}\n", row.name),
        }
    }
    let mut results: Results = places.iter().map(|place| (place.row.name, Vec::new())).collect();
    let mut effort = Effort::default();
    // The first round warms up.
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..places.len()).collect();
        while !order.is_empty() {
            let number = order.swap_remove(random.below(order.len() as u64) as usize);
            let Place { row, network, providers, balancer } = &mut places[number];
            network.enter();
            let mut run = Run { scenario: &WAYS, providers, connections, effort };
            let figures = run.measure(balancer, row, lasting);
            effort = run.effort;
            if round > 0 {
                results[number].1.push(figures);
            } else {
                effort = Effort::default();
            }
        }
    }
    (results, effort.others())
}

/// Runs where networks of its own are allowed; the closure is told why not.
fn allowed(run: impl FnOnce() + Send) -> Result<(), String> {
    thread::scope(|scope| {
        let ran = scope.spawn(|| {
            namespace::enter().map_err(|error| format!("no network namespace: {error}"))?;
            run();
            Ok(())
        });
        ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
#[ignore = "a bench"]
fn bench_ways() {
    let names = chosen("PEGASUS_BENCH_BALANCERS", &ROWS.each_ref().map(|row| row.name));
    let rows: Vec<&'static Row> = ROWS.iter().filter(|row| names.contains(&row.name)).collect();
    let lasting = Duration::from_secs_f64(parameter("PEGASUS_BENCH_SECONDS", 1.0));
    let rounds = parameter("PEGASUS_BENCH_ROUNDS", 7).max(1);
    println!("{rounds} rounds of {} s in random order on {}", lasting.as_secs_f64(), describe());
    println!("beside {}", balancers::versions());
    let ran = allowed(|| {
        let (results, others) = measure(&rows, rounds, lasting);
        println!("\n### {}: {}\n", WAYS.name, WAYS.what);
        println!("Others used {:.0} % of the machine.\n", 100.0 * others);
        println!("{}", report::table(&WAYS, &results));
        report::write(&report::json(&WAYS, &results, others));
    });
    ran.unwrap_or_else(|why| println!("SKIPPED all: {why}"));
}

/// Everything runs, so that the bench does not rot, and every way leads to an answer.
#[test]
fn the_ways_in_brief() {
    let ran = allowed(|| {
        let rows: Vec<&'static Row> = ROWS.iter().collect();
        let (results, _) = measure(&rows, 1, Duration::from_millis(200));
        for (name, rounds) in &results {
            assert!(rounds.iter().all(|figures| figures.get(Metric::Rate) > 0.0), "{name}");
        }
    });
    ran.unwrap_or_else(|why| crate::support::skip(&why));
}
