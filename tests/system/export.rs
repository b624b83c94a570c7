//! Engines that lead the clients: the kernel by nft, HAProxy and nginx, all real.

use crate::support::haproxy::Haproxy;
use crate::support::keyed::Keys;
use crate::support::namespace::{self, Network};
use crate::support::pegasus::{command, monitor, Queue};
use crate::support::process::{bind_to_parent, pipe, run, Process};
use crate::support::provider::Provider;
use crate::support::socket::{connect, connect_from};
use crate::support::{free_port, installed, output, tool, until, Directory, PATIENCE};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The command for a service of a queue.
fn export(engine: &str, queue: SocketAddr, settings: &[&str], options: &[&str]) -> Command {
    let mut command = command("export", settings);
    command.args([engine, "-s", "web", &queue.to_string()]).args(options);
    command
}

/// What it prints.
#[track_caller]
fn exported(engine: &str, queue: SocketAddr, settings: &[&str], options: &[&str]) -> String {
    output(&mut export(engine, queue, settings, options))
}

/// Lets a provider offer.
#[track_caller]
fn offer(queue: &Queue, provider: SocketAddr, tickets: u32) {
    let message =
        format!("ticket?service=web&provider={provider}&tickets={tickets}&capacity=100&lease=5m");
    let answer = queue.ask(&message);
    assert!(answer.starts_with("ok "), "{answer}");
}

/// A command of which standard output goes to the other end.
#[track_caller]
fn follower(engine: &str, queue: SocketAddr, settings: &[&str], stdout: OwnedFd) -> Process {
    let settings = [settings, &["monitor_interval=100ms"]].concat();
    let mut command = export(engine, queue, &settings, &["--follow"]);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    Process::start_as_is("export", &mut command)
}

/// The name that a provider at this address sends.
fn who(address: SocketAddr) -> String {
    let mut name = String::new();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut name).unwrap();
    name
}

fn count(address: SocketAddr, clients: usize, name: &str) -> usize {
    (0..clients).filter(|_| who(address) == name).count()
}

#[test]
fn the_kernel_leads_clients_by_the_weights() {
    namespace::alone(|| {
        let queue = Queue::start(&[]);
        let (one, two) = (Provider::named("one"), Provider::named("two"));
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listen = format!("service_web_listen={place} {place}/udp");
        offer(&queue, one.address, 1);
        offer(&queue, two.address, 3);
        let datagrams = UdpSocket::bind(two.address).unwrap();
        let rules = exported("nft", queue.address, &[&listen], &[]);
        let (status, _, errors) = run(tool("nft").args(["-c", "-f", "-"]), rules.as_bytes());
        assert_eq!((status, errors.as_str()), (0, ""), "{rules}");
        // Twice, for the table replaces itself.
        for _ in 0..2 {
            let (status, _, errors) = run(tool("nft").args(["-f", "-"]), rules.as_bytes());
            assert_eq!((status, errors.as_str()), (0, ""), "{rules}");
        }
        // 200 of 800 are expected; seven standard deviations are 86.
        let first = count(place, 800, "one");
        assert!((114..=286).contains(&first), "{first} of 800 instead of a quarter");
        // The other one takes no datagrams, so all that arrive are for the second.
        datagrams.set_nonblocking(true).unwrap();
        until("a datagram arrives", || {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.send_to(b"hello", place).unwrap();
            datagrams.recv(&mut [0; 16]).is_ok()
        });
    });
}

#[test]
fn a_client_address_keeps_its_provider_in_the_kernel() {
    namespace::alone(|| {
        let queue = Queue::start(&[]);
        let (one, two) = (Provider::named("one"), Provider::named("two"));
        let port = free_port();
        let place = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let listen = format!("service_web_listen=*:{port}");
        let settings = [listen.as_str(), "service_web_affinity=source"];
        offer(&queue, one.address, 1);
        offer(&queue, two.address, 1);
        // Sockets that are bound to one of the many addresses of loopback.
        let from = |last: u8| {
            let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, last), place);
            let mut name = String::new();
            socket.read_to_string(&mut name).unwrap();
            name
        };
        let mut before: Vec<String> = Vec::new();
        for round in 0..3 {
            let rules = exported("nft", queue.address, &settings, &[]);
            let (status, _, errors) = run(tool("nft").args(["-f", "-"]), rules.as_bytes());
            assert_eq!((status, errors.as_str()), (0, ""), "{rules}");
            let names: Vec<String> = (2..34).map(from).collect();
            let (ones, twos) = (
                names.iter().filter(|name| *name == "one").count(),
                names.iter().filter(|name| *name == "two").count(),
            );
            assert!(ones > 3 && twos > 3 && ones + twos == 32, "{names:?}");
            assert!(round == 0 || names == before, "{before:?} became {names:?}");
            before = names;
        }
    });
}

#[test]
fn the_kernel_hears_of_providers_that_join_drain_and_leave() {
    namespace::alone(|| {
        let queue = Queue::start(&[]);
        let (one, two) = (Provider::echo(), Provider::named("two"));
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listen = format!("service_web_listen={place}");
        offer(&queue, one.address, 1);
        let (read, write) = pipe();
        let mut nft = tool("nft");
        nft.arg("-i").stdin(read).stdout(Stdio::null()).stderr(Stdio::piped());
        let nft = Process::start_as_is("nft", &mut nft);
        let mut follower = follower("nft", queue.address, &[&listen], write);
        let leads_to = |provider: SocketAddr| {
            let table =
                tool("nft").args(["list", "table", "inet", "pegasus_web"]).output().unwrap();
            String::from_utf8_lossy(&table.stdout).contains(&format!("dnat ip to {provider}"))
        };
        until("the first one is there", || leads_to(one.address));
        let mut old = connect(place);
        old.write_all(b"before").unwrap();
        old.read_exact(&mut [0; 6]).unwrap();

        offer(&queue, two.address, 1);
        until("the second one joins", || leads_to(two.address));
        let drained = queue.ask(&format!("drain?service=web&provider={}", one.address));
        assert!(drained.starts_with("ok "), "{drained}");
        until("the first one is drained", || !leads_to(one.address));
        assert_eq!(count(place, 50, "two"), 50);
        // Who is there stays.
        old.write_all(b"after!").unwrap();
        let mut echo = [0; 6];
        old.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"after!");

        queue.ask(&format!("resume?service=web&provider={}", one.address));
        until("the first one is back", || leads_to(one.address));
        queue.ask(&format!("withdraw?service=web&provider={}", two.address));
        until("the second one leaves", || !leads_to(two.address));
        assert!(leads_to(one.address) && follower.runs());
        assert_eq!(nft.log(), Vec::<String>::new());
    });
}

/// A relay to a queue. What its clients ask waits until it is allowed.
struct Gate {
    address: SocketAddr,
    /// Questions that may pass.
    allowed: Arc<AtomicUsize>,
}

impl Gate {
    fn before(queue: SocketAddr) -> Gate {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gate = Gate { address: listener.local_addr().unwrap(), allowed: Arc::default() };
        let allowed = gate.allowed.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let allowed = allowed.clone();
                thread::spawn(move || Gate::pass(&client, queue, &allowed));
            }
        });
        gate
    }

    fn pass(client: &TcpStream, queue: SocketAddr, allowed: &AtomicUsize) -> Option<()> {
        let queue = TcpStream::connect(queue).ok()?;
        let (mut answers, mut to) = (queue.try_clone().ok()?, client.try_clone().ok()?);
        thread::spawn(move || std::io::copy(&mut answers, &mut to));
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            let take = |count: usize| count.checked_sub(1);
            while allowed.fetch_update(SeqCst, SeqCst, take).is_err() {
                // A client that gave up waiting uses up no permission.
                client.set_nonblocking(true).ok()?;
                let gone = matches!(client.peek(&mut [0]), Ok(0));
                client.set_nonblocking(false).ok()?;
                if gone {
                    return None;
                }
                thread::sleep(Duration::from_millis(1));
            }
            writeln!(&queue, "{line}").ok()?;
        }
        None
    }

    fn allow_one(&self) {
        self.allowed.fetch_add(1, SeqCst);
    }
}

/// The exporter asks once an interval, and each time the kernel has what the queue knows: no
/// change waits for a second look.
#[test]
fn one_look_at_the_queue_brings_the_kernel_what_has_changed() {
    namespace::alone(|| {
        let queue = Queue::start(&[]);
        let gate = Gate::before(queue.address);
        let (one, two) = (Provider::named("one"), Provider::named("two"));
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (read, write) = pipe();
        let mut nft = tool("nft");
        nft.arg("-i").stdin(read).stdout(Stdio::null()).stderr(Stdio::piped());
        let _nft = Process::start_as_is("nft", &mut nft);
        let listen = format!("service_web_listen={place}");
        let _follower = follower("nft", gate.address, &[&listen], write);
        let leads_to = |provider: SocketAddr| {
            let table =
                tool("nft").args(["list", "table", "inet", "pegasus_web"]).output().unwrap();
            String::from_utf8_lossy(&table.stdout).contains(&format!("dnat ip to {provider}"))
        };
        let look = |what: &str, provider: SocketAddr, there: bool| {
            gate.allow_one();
            until(what, || leads_to(provider) == there);
        };
        let (first, second) = (one.address, two.address);
        let _monitor = monitor(queue.address, first, &[]);
        queue.has(&[first]);
        look("one is there", first, true);
        let _other = monitor(queue.address, second, &[]);
        queue.has(&[second]);
        look("two joins", second, true);
        queue.ask(&format!("drain?service=web&provider={second}"));
        look("two is drained", second, false);
        queue.ask(&format!("resume?service=web&provider={second}"));
        look("two is back", second, true);
        drop(one);
        until("the queue knows that one died", || queue.status().tickets(first) == 0);
        look("one has died", first, false);
        assert_eq!(count(place, 20, "two"), 20);
    });
}

/// A client's host and one that leads it by IPv6, with a wire between them.
#[test]
fn the_kernel_leads_clients_of_ipv6_from_another_host() {
    namespace::alone(|| {
        let balancer = Network::current();
        // An address is used at once, without asking whether another host has it.
        for address in ["fd00:1::1", "fd00:2::1", "fd00:2::2"] {
            namespace::ip(&format!("address add {address}/128 dev lo nodad"));
        }
        let clients = Network::enter_new();
        let wire = "link add wire type veth peer name wire netns";
        namespace::ip(&format!("{wire} {}", balancer.path()));
        namespace::ip("link set wire up");
        for host in 2..34 {
            namespace::ip(&format!("address add fd00:3::{host:x}/64 dev wire nodad"));
        }
        balancer.enter();
        namespace::ip("link set wire up");
        namespace::ip("address add fd00:3::1/64 dev wire nodad");
        clients.enter();
        namespace::ip("route add default via fd00:3::1");
        balancer.enter();

        let at = |ip: &str, name| Provider::named_at(ip.parse().unwrap(), name);
        let (one, two) = (at("fd00:2::1", "one"), at("fd00:2::2", "two"));
        let datagrams = [&one, &two].map(|provider| UdpSocket::bind(provider.address).unwrap());
        datagrams.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let other = Provider::named("of IPv4");
        let queue = Queue::start(&[]);
        offer(&queue, one.address, 1);
        offer(&queue, two.address, 3);
        offer(&queue, other.address, 10);
        let place = SocketAddr::new("fd00:1::1".parse().unwrap(), free_port());
        let listen = format!("service_web_listen={place} {place}/udp");
        let load = |settings: &[&str]| {
            let rules = exported("nft", queue.address, settings, &[]);
            let (status, _, errors) = run(tool("nft").args(["-f", "-"]), rules.as_bytes());
            assert_eq!((status, errors.as_str()), (0, ""), "{rules}");
        };
        load(&[&listen]);
        clients.enter();
        until("the hosts reach each other", || TcpStream::connect(place).is_ok());
        let names: Vec<String> = (0..800).map(|_| who(place)).collect();
        let of = |name: &str| names.iter().filter(|known| *known == name).count();
        // 200 of 800 are expected; seven standard deviations are 86.
        assert!((114..=286).contains(&of("one")), "{} of 800 instead of a quarter", of("one"));
        assert_eq!(of("one") + of("two"), 800);

        // With affinity all that one address sends goes to one provider.
        balancer.enter();
        load(&[&listen, "service_web_affinity=source"]);
        clients.enter();
        for host in 2..34u8 {
            for _ in 0..3 {
                let source = SocketAddr::new(format!("fd00:3::{host:x}").parse().unwrap(), 0);
                UdpSocket::bind(source).unwrap().send_to(&[host], place).unwrap();
            }
        }
        let mut came: [Vec<u8>; 2] = Default::default();
        until("all datagrams have arrived", || {
            for (socket, came) in datagrams.iter().zip(&mut came) {
                let mut host = [0];
                while socket.recv(&mut host).is_ok() {
                    came.push(host[0]);
                }
            }
            came[0].len() + came[1].len() == 96
        });
        let both = came[0].iter().any(|host| came[1].contains(host));
        assert!(!both && !came[0].is_empty() && !came[1].is_empty(), "{came:?}");
        balancer.enter();
    });
}

/// Sets a flag when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Providers that do not know each other find their weights from their own load alone.
#[test]
fn weights_follow_what_providers_can_do() {
    namespace::alone(|| {
        let (queue, directory) = (Queue::start(&[]), Directory::new());
        let workers = [8, 4, 2].map(|millis| Worker::start(&directory, millis));
        let _monitors: Vec<Process> = workers
            .iter()
            .map(|worker| {
                let settings = [
                    format!("monitor_balancers={}", queue.address),
                    format!("monitor_load=file:{}", worker.load),
                    format!("service_web_provider={}", worker.address),
                ];
                let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
                settings.extend(["monitor_interval=500ms", "service_web_check=off"]);
                Process::start("monitor", &mut command("monitor", &settings))
            })
            .collect();
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listen = format!("service_web_listen={place}");
        let (read, write) = pipe();
        let mut nft = tool("nft");
        nft.arg("-i").stdin(read).stdout(Stdio::null()).stderr(Stdio::piped());
        let _nft = Process::start_as_is("nft", &mut nft);
        let settings = [listen.as_str(), "monitor_interval=500ms"];
        let mut exporter = export("nft", queue.address, &settings, &["--follow"]);
        exporter.stdin(Stdio::null()).stdout(write).stderr(Stdio::piped());
        let _exporter = Process::start_as_is("export", &mut exporter);
        until("all are in the kernel's map", || {
            let table =
                tool("nft").args(["list", "table", "inet", "pegasus_web"]).output().unwrap();
            let table = String::from_utf8_lossy(&table.stdout).into_owned();
            workers.iter().all(|worker| table.contains(&format!("dnat ip to {}", worker.address)))
        });
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Also after a failure.
            let ends = Ends(&over);
            scope.spawn(|| {
                // About half of what the three can serve at first.
                while !over.load(SeqCst) {
                    thread::sleep(Duration::from_micros(2300));
                    thread::spawn(move || {
                        let Ok(mut stream) = TcpStream::connect(place) else { return };
                        let _ = stream.set_read_timeout(Some(PATIENCE));
                        let _ = stream.read_to_end(&mut Vec::new());
                    });
                }
            });
            let close = || {
                let status = queue.status();
                let weights = workers.each_ref().map(|worker| {
                    let row = status.provider(worker.address);
                    row.map_or(0.0, |row| row.text("weight").parse::<f64>().unwrap())
                });
                let speeds = workers.each_ref().map(Worker::speed);
                let sums = (weights.iter().sum::<f64>(), speeds.iter().sum::<f64>());
                let part = |(weight, speed): (f64, f64)| (weight / sums.0) / (speed / sums.1);
                weights.into_iter().zip(speeds).map(part).all(|part| (part - 1.0).abs() < 0.15)
            };
            until("shares are as 1 to 2 to 4", close);
            // The quickest one becomes as slow as the slowest.
            workers[2].millis.store(8, SeqCst);
            until("shares are as 1 to 2 to 1", close);
            drop(ends);
        });
    });
}

#[test]
fn what_was_printed_stands_while_the_queue_is_away() {
    let port = free_port();
    let mut queue = Queue::at(port, &[]);
    let address = queue.address;
    let one = SocketAddr::from(([10, 0, 0, 1], 80));
    let two = SocketAddr::from(([10, 0, 0, 2], 80));
    offer(&queue, one, 1);
    let (read, write) = pipe();
    let mut lines = BufReader::new(File::from(read)).lines().map(Result::unwrap);
    let mut follower = follower("nft", address, &["service_web_listen=*:80"], write);
    assert!(lines.next().unwrap().contains("dnat ip to 10.0.0.1:80"));
    queue.kill();
    follower.says(&["what was printed last stands"]);
    queue = Queue::at(port, &[]);
    // The queue was started anew and knows one provider, which is another one.
    offer(&queue, two, 1);
    let both = lines.next().unwrap();
    assert!(both.contains("10.0.0.1:80") && both.contains("10.0.0.2:80"), "{both}");
    // The first one never comes back.
    let last = lines.next().unwrap();
    assert!(!last.contains("10.0.0.1:80") && last.contains("10.0.0.2:80"), "{last}");
    assert_eq!(follower.log_with(&["stands"]).len(), 1, "{:?}", follower.log());
}

#[test]
fn a_reader_that_leaves_ends_the_follower() {
    let queue = Queue::start(&[]);
    let (read, write) = pipe();
    let mut follower = follower("nginx", queue.address, &[], write);
    let mut reader = BufReader::new(File::from(read));
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "upstream pegasus_web {\n");
    // Nothing changes, so that nothing is written: it leaves all the same.
    drop(reader);
    assert_eq!(follower.ends(), 74);
}

/// A provider with one worker, which takes so many milliseconds for a client, and the
/// readings of its load in a file.
struct Worker {
    address: SocketAddr,
    load: String,
    millis: Arc<AtomicU64>,
    /// How long it has worked, in nanoseconds.
    worked: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Worker {
    fn start(directory: &Directory, millis: u64) -> Worker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let load = directory.file(&format!("load-{}", address.port()));
        let worker = Worker {
            address,
            load: load.clone(),
            millis: Arc::new(AtomicU64::new(millis)),
            worked: Arc::default(),
            over: Arc::default(),
        };
        let waiting: Arc<AtomicUsize> = Arc::default();
        let (clients, work) = channel::<TcpStream>();
        let (count, over) = (waiting.clone(), worker.over.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(SeqCst) {
                    return;
                }
                count.fetch_add(1, SeqCst);
                let _ = clients.send(client);
            }
        });
        let (count, worked, millis) =
            (waiting.clone(), worker.worked.clone(), worker.millis.clone());
        thread::spawn(move || {
            for mut client in work {
                let start = Instant::now();
                thread::sleep(Duration::from_millis(millis.load(SeqCst)));
                count.fetch_sub(1, SeqCst);
                let _ = client.write_all(b"served");
                worked.fetch_add(start.elapsed().as_nanos() as u64, SeqCst);
            }
        });
        let (worked, over) = (worker.worked.clone(), worker.over.clone());
        let part = format!("{load}.part");
        thread::spawn(move || {
            let mut history = VecDeque::from([(Instant::now(), 0)]);
            while !over.load(SeqCst) {
                thread::sleep(Duration::from_millis(50));
                history.push_back((Instant::now(), worked.load(SeqCst)));
                if history.len() > 10 {
                    history.pop_front();
                }
                let (first, last) = (history[0], history[history.len() - 1]);
                let busy = (last.1 - first.1) as f64 / (last.0 - first.0).as_nanos() as f64;
                let queued = waiting.load(SeqCst).saturating_sub(1);
                let _ = fs::write(&part, format!("u={:.4} q={queued} c=1", busy.min(1.0)));
                let _ = fs::rename(&part, &load);
            }
        });
        until("the worker tells its load", || fs::exists(&worker.load).unwrap());
        worker
    }

    /// Clients a second that it can serve.
    fn speed(&self) -> f64 {
        1000.0 / self.millis.load(SeqCst) as f64
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// The row of [`Haproxy::servers`] for a provider.
fn row(provider: &Provider, state: &str, weight: &str) -> [String; 4] {
    let port = provider.address.port();
    let name = format!("pegasus_web_127.0.0.1_{port}");
    [name, port.to_string(), state.to_string(), weight.to_string()]
}

#[test]
fn haproxy_gets_the_servers_that_it_lacks_and_loses_the_others() {
    let queue = Queue::start(&[]);
    let (one, two) = (Provider::named("one"), Provider::named("two"));
    let haproxy =
        Haproxy::start(&format!(" server old 127.0.0.1:9\n server kept {}\n", two.address));
    offer(&queue, one.address, 1);
    offer(&queue, two.address, 3);
    let socket = haproxy.directory.file("api");
    let commands = exported("haproxy", queue.address, &[], &["--socket", &socket]);
    let answer = haproxy.ask(&commands);
    let mut wanted = vec![row(&one, "0", "1"), row(&two, "0", "3")];
    wanted[1][0] = "kept".to_string();
    let mut servers = haproxy.servers();
    servers.sort();
    wanted.sort();
    assert_eq!(servers, wanted, "{commands}\n{answer}");
    // Turns in proportion to the weights; where in them each of its threads is, is not told.
    let first = count(haproxy.address, 40, "one");
    assert!((6..=14).contains(&first), "{first} of 40 instead of a quarter");
    // What is as it should be is told again, and changes nothing.
    haproxy.ask(&exported("haproxy", queue.address, &[], &["--socket", &socket]));
    assert_eq!(haproxy.servers().len(), 2);
}

#[test]
fn haproxy_is_followed_through_its_runtime_api() {
    let queue = Queue::start(&[]);
    let (one, two) = (Provider::named("one"), Provider::named("two"));
    let haproxy = Haproxy::start("");
    offer(&queue, one.address, 2);
    offer(&queue, two.address, 2);
    let stream = haproxy.connect().unwrap();
    let mut answers = stream.try_clone().unwrap();
    thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let follower = follower("haproxy", queue.address, &[], stream.into());
    let is = |what: &str, mut wanted: Vec<[String; 4]>| {
        wanted.sort();
        until(what, || {
            let mut servers = haproxy.servers();
            servers.sort();
            servers == wanted
        });
    };
    is("both serve", vec![row(&one, "0", "2"), row(&two, "0", "2")]);
    offer(&queue, one.address, 6);
    is("one has another weight", vec![row(&one, "0", "6"), row(&two, "0", "2")]);
    queue.ask(&format!("drain?service=web&provider={}", one.address));
    is("one is drained", vec![row(&one, "8", "6"), row(&two, "0", "2")]);
    assert_eq!(count(haproxy.address, 10, "two"), 10);
    queue.ask(&format!("resume?service=web&provider={}", one.address));
    is("one is back", vec![row(&one, "0", "6"), row(&two, "0", "2")]);
    queue.ask(&format!("withdraw?service=web&provider={}", two.address));
    is("two has left", vec![row(&one, "0", "6")]);
    offer(&queue, two.address, 1);
    is("two is back", vec![row(&one, "0", "6"), row(&two, "0", "1")]);
    drop(follower);
}

#[test]
fn nginx_finds_nothing_wrong_with_the_block() {
    let queue = Queue::start(&[]);
    let directory = Directory::new();
    let check = |block: &str| {
        let text = format!(
            "pid {};\nerror_log stderr;\nevents {{}}\nhttp {{\n{block}\nserver {{ listen \
             127.0.0.1:{}; access_log off; location / {{ proxy_pass http://pegasus_web; }} }} }}\n",
            directory.file("pid"),
            free_port()
        );
        let file = directory.write("nginx.conf", &text);
        let (status, _, errors) = run(tool("nginx").args(["-t", "-c", &file]), b"");
        assert_eq!(status, 0, "{text}\n{errors}");
    };
    check(&exported("nginx", queue.address, &[], &[]));
    offer(&queue, SocketAddr::from(([127, 0, 0, 1], 8001)), 2);
    offer(&queue, "[::1]:8002".parse().unwrap(), 3);
    queue.ask("drain?service=web&provider=[::1]:8002");
    let block = exported("nginx", queue.address, &["service_web_affinity=source"], &[]);
    assert!(block.contains("server 127.0.0.1:8001 weight=2;"), "{block}");
    assert!(block.contains("server [::1]:8002 down;") && block.contains("hash "), "{block}");
    check(&block);
}

/// ipvsadm does not even read its input where the kernel has no IPVS.
#[test]
fn ipvsadm_restores_what_it_is_given() {
    let queue = Queue::start(&["service_web_scheduler=shortest-delay"]);
    offer(&queue, SocketAddr::from(([10, 0, 0, 1], 80)), 2);
    offer(&queue, "[fd00::1]:80".parse().unwrap(), 3);
    offer(&queue, SocketAddr::from(([10, 0, 0, 2], 81)), 1);
    queue.ask("drain?service=web&provider=10.0.0.2:81");
    let settings = ["service_web_listen=*:80 192.0.2.1:80 [2001:db8::1]:80 192.0.2.1:53/udp"];
    let lines = exported("ipvsadm", queue.address, &settings, &[]);
    let wanted = "-A -t 192.0.2.1:80 -s sed\n\
        -a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 2\n\
        -a -t 192.0.2.1:80 -r 10.0.0.2:81 -m -w 0\n\
        -A -t [2001:db8::1]:80 -s sed\n\
        -a -t [2001:db8::1]:80 -r [fd00::1]:80 -m -w 3\n\
        -A -u 192.0.2.1:53 -s sed\n\
        -a -u 192.0.2.1:53 -r 10.0.0.1:80 -m -w 2\n\
        -a -u 192.0.2.1:53 -r 10.0.0.2:81 -m -w 0\n";
    assert_eq!(lines, wanted);
    if installed("ipvsadm").is_none() {
        return crate::support::skip("ipvsadm is not installed");
    }
    namespace::alone(|| {
        let ready =
            bind_to_parent(tool("ipvsadm").arg("-Ln").stdout(Stdio::null()).stderr(Stdio::null()))
                .status();
        if !ready.unwrap().success() {
            return crate::support::skip("no IPVS in this kernel");
        }
        let (status, _, errors) = run(tool("ipvsadm").arg("--restore"), lines.as_bytes());
        assert_eq!((status, errors.as_str()), (0, ""));
    });
}

#[test]
fn an_observer_with_a_key_may_export() {
    let keys = Keys::of(&[&["observer", "ops"]]);
    let queue = Queue::start(&[&keys.setting("keys"), "queue_allow_status="]);
    offer(&queue, SocketAddr::from(([10, 0, 0, 1], 80)), 2);
    let block = exported("nginx", queue.address, &[&keys.client("observer", "ops")], &[]);
    assert!(block.contains("server 10.0.0.1:80 weight=2;"), "{block}");
    let (status, out, errors) = run(&mut export("nginx", queue.address, &[], &[]), b"");
    assert_eq!((status, out.as_str()), (1, ""), "{errors}");
    assert!(errors.contains("denied"), "{errors}");
}

#[test]
fn wrong_usage_is_told() {
    let queue = Queue::start(&[]);
    let fails = |arguments: &[&str], status: i32, word: &str| {
        let (code, out, errors) = run(command("export", &[]).args(arguments), b"");
        assert_eq!((code, out.as_str()), (status, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(word), "{arguments:?}: {errors}");
    };
    let address = queue.address.to_string();
    fails(&[], 64, "which engine");
    fails(&["pf", "-s", "web", &address], 64, "nft");
    fails(&["nft", &address], 64, "which service");
    fails(&["nft", "-s", "web", &address], 78, "service_web_listen");
    fails(&["ipvsadm", "-s", "web", "--listen", "*:80", &address], 78, "not *");
    fails(&["nft", "-s", "web", "--listen", "lb1:80", &address], 64, "not a name");
    let nobody = format!("127.0.0.1:{}", free_port());
    fails(&["nginx", "-s", "web", &nobody], 69, &nobody);
}
