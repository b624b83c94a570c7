//! The recipe in `conf/keepalived`, and names with two addresses: two balancers and three
//! providers, each a host of its own. Only the names of the balancers are replaced.

use crate::support::control_connection::ControlConnection;
use crate::support::http::get;
use crate::support::namespace::{self, Host, Switch};
use crate::support::pegasus::program;
use crate::support::process::{run, Process};
use crate::support::provider::Provider;
use crate::support::{installed, output, skip, tool, until, Directory};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Instant;

const SHARED: &str = "10.0.0.100";
const BALANCERS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
const PROVIDERS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
/// Where a test asks the monitors.
const ADMIN: &str = "127.0.0.1:7349";

fn sample(name: &str) -> String {
    format!("{}/conf/keepalived/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The program with a sample.
fn command(name: &str, conf: &str, settings: &[&str]) -> Command {
    let mut command = program();
    command.args([name, "-c", &sample(conf)]);
    settings.iter().for_each(|setting| _ = command.args(["-o", setting]));
    command
}

/// A balancer, perhaps with keepalived.
struct Balancer {
    host: Host,
    address: &'static str,
    settings: &'static [&'static str],
    program: Option<Process>,
    keepalived: Option<Process>,
}

impl Balancer {
    fn start_program(&mut self) {
        let mut command = command("redirect", "balancer.conf", self.settings);
        let mut process = self.host.at(|| Process::start(self.address, &mut command));
        process.says(&["[redirect] ready "]);
        self.program = Some(process);
    }

    fn start_keepalived(&mut self, directory: &Directory) {
        let conf = sample("keepalived.conf");
        let mut command = tool("keepalived");
        command.args(["--vrrp", "--dont-fork", "--log-console", "--no-syslog", "-f", &conf]);
        for (option, file) in [("-p", "pid"), ("-r", "vrrp.pid")] {
            command.args([option, &directory.file(&format!("{}.{file}", self.address))]);
        }
        let mut process = self.host.at(|| Process::start("keepalived", &mut command));
        process.says(&["Startup complete"]);
        for mark in ["SECURITY", "Unknown", "unknown", "rror", "nvalid"] {
            assert_eq!(process.log_with(&[mark]), Vec::<String>::new());
        }
        self.keepalived = Some(process);
    }

    /// All of it is gone at once, and sends nothing more.
    fn lose_power(&mut self) {
        self.host.unplug();
        self.program = None;
        self.keepalived = None;
        // What a restart takes away, too.
        self.host.forget(&format!("{SHARED}/24"));
    }

    fn has_address(&self) -> bool {
        self.host.has(&format!("{SHARED}/24"))
    }

    /// The tickets of each provider at this balancer.
    fn tickets(&self) -> Vec<f64> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7347));
        let status = self.host.at(|| ControlConnection::to(address).status());
        PROVIDERS.map(|name| status.tickets(format!("{name}:8080")) as f64).to_vec()
    }

    /// Clients that it has served.
    fn served(&self) -> usize {
        let lines = self.program.as_ref().map(|program| program.log_with(&["closed service=web"]));
        lines.map_or(0, |lines| lines.len())
    }
}

/// A provider with its monitor.
struct Site {
    host: Host,
    provider: Option<Provider>,
    monitor: Process,
}

impl Drop for Site {
    fn drop(&mut self) {
        // It ends at the next connection.
        self.host.at(|| drop(self.provider.take()));
    }
}

/// The hosts, with everything but keepalived started.
struct Sites {
    balancers: [Balancer; 2],
    sites: Vec<Site>,
    client: Host,
}

impl Sites {
    fn start(switch: &Switch, settings: &'static [&'static str]) -> Sites {
        let mut balancers = BALANCERS.map(|address| {
            let host = switch.host(&format!("lb{}", &address[7..]), &format!("{address}/24"));
            Balancer { host, address, settings, program: None, keepalived: None }
        });
        balancers.iter_mut().for_each(Balancer::start_program);
        let names = BALANCERS.join(" ");
        let sites = PROVIDERS.iter().map(|address| {
            let host = switch.host(&format!("web{}", &address[7..]), &format!("{address}/24"));
            let place = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080));
            let settings = [format!("monitor_balancers={names}"), format!("monitor_admin={ADMIN}")];
            let mut command =
                command("monitor", "provider.conf", &settings.each_ref().map(String::as_str));
            let (provider, monitor) = host.at(|| {
                let provider = Provider::at(place, move |mut stream| {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    if lines.any(|line| line.is_empty()) {
                        let body = format!("{address}\n");
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        let _ = stream.write_all((head + &body).as_bytes());
                    }
                });
                (Some(provider), Process::start(address, &mut command))
            });
            Site { host, provider, monitor }
        });
        let sites: Vec<Site> = sites.collect();
        let client = switch.host("client", "10.0.0.200/24");
        let sites = Sites { balancers, sites, client };
        sites.share();
        sites
    }

    /// What each provider can run at once, as its monitor says.
    fn slots(&self) -> Vec<f64> {
        let metrics = |site: &Site| site.host.at(|| get(ADMIN.parse().unwrap(), "/metrics"));
        let of = |site: &Site| {
            let text = metrics(site).and_then(|visit| visit.body).unwrap();
            let mut lines = text.lines().filter(|line| line.starts_with("pegasus_monitor_slots{"));
            let slots = lines.next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
            slots.unwrap_or(f64::NAN)
        };
        self.sites.iter().map(of).collect()
    }

    /// Waits until both balancers have half of each provider, to a ticket.
    fn share(&self) {
        until("both balancers have a share of the tickets", || {
            let [one, two] = [0, 1].map(|number| self.balancers[number].tickets());
            let near = |tickets: f64, slots: f64| (tickets - slots).abs() < 1.0;
            let both = one.iter().zip(two).zip(self.slots());
            both.into_iter().all(|((one, two), slots)| {
                near(*one, slots / 2.0) && near(two, slots / 2.0) && near(one + two, slots)
            })
        });
    }

    /// Waits until this balancer has each provider as a whole.
    fn has_all(&self, number: usize) {
        until("one balancer has all tickets", || {
            let tickets = self.balancers[number].tickets();
            tickets.iter().zip(self.slots()).all(|(tickets, slots)| (tickets - slots).abs() < 1.0)
        });
    }

    /// A client with these options of curl; returns which provider answered.
    fn visit(&self, options: &[&str]) -> Option<String> {
        let mut curl = tool("curl");
        curl.args(["--silent", "--noproxy", "*"]).args(options);
        let (status, body, _) = self.client.at(|| run(&mut curl, b""));
        (status == 0).then(|| body.trim().to_string())
    }

    /// A client of the shared address, which does not wait long.
    fn visit_shared(&self) -> Option<String> {
        self.visit(&["--max-time", "0.5", &format!("http://{SHARED}/")])
    }

    /// Waits until this balancer alone has the address and serves a client there. Returns how
    /// long it took, for those who read what a test prints.
    fn moves_to(&self, number: usize, what: &str) {
        let start = Instant::now();
        let served = self.balancers[number].served();
        until(&format!("{what}: a client is served"), || {
            self.visit_shared().is_some_and(|who| PROVIDERS.contains(&who.as_str()))
        });
        println!("{what}: a client was served after {:?}", start.elapsed());
        until(&format!("{what}: by that one"), || {
            self.visit_shared();
            self.balancers[number].served() > served
        });
        assert!(self.balancers[number].has_address(), "{what}");
    }
}

#[test]
fn an_address_moves_to_the_balancer_that_lives() {
    if installed("keepalived").is_none() {
        return skip("keepalived is not installed");
    }
    namespace::alone(|| {
        let Some(switch) = Switch::new() else { return };
        let mut all = Sites::start(&switch, &[]);
        let directory = Directory::new();
        all.balancers.iter_mut().for_each(|balancer| balancer.start_keepalived(&directory));
        until("one of them has the address", || {
            all.balancers.iter().filter(|balancer| balancer.has_address()).count() == 1
                && all.visit_shared().is_some()
        });
        let first = usize::from(all.balancers[1].has_address());
        let other = 1 - first;

        all.balancers[first].lose_power();
        all.moves_to(other, "one loses power");
        all.has_all(other);

        all.balancers[first].host.plug();
        all.balancers[first].start_program();
        all.balancers[first].start_keepalived(&directory);
        all.share();
        let log = all.balancers[first].keepalived.as_mut().unwrap();
        log.says(&["VRRP_Script(pegasus) succeeded"]);
        log.says(&["Entering BACKUP STATE"]);
        assert!(all.balancers[other].has_address() && !all.balancers[first].has_address());

        all.balancers[other].program = None;
        all.moves_to(first, "the program alone is killed");
        until("the other one gives it up", || !all.balancers[other].has_address());

        // The program runs on, but nothing reaches it.
        all.balancers[other].start_program();
        all.share();
        all.balancers[first].host.unplug();
        all.moves_to(other, "the cable of one is pulled");
        all.balancers[first].host.plug();

        // With no provider at all, neither is better than the other one, and one keeps it.
        all.share();
        all.sites.iter().for_each(|site| site.monitor.signal(libc::SIGTERM));
        until("both fail their check, and one has the address", || {
            let fails = |balancer: &Balancer| {
                let log = balancer.keepalived.as_ref().unwrap();
                let changes = log.log_with(&["Changing effective priority"]);
                changes.last().is_some_and(|change| change.contains("from 100 to 80"))
            };
            all.balancers.iter().all(fails)
                && all.balancers.iter().filter(|one| one.has_address()).count() == 1
        });
    });
}

/// Two addresses of one name, as real clients take them.
#[test]
fn clients_of_a_name_find_the_balancer_that_lives() {
    namespace::alone(|| {
        let Some(switch) = Switch::new() else { return };
        let settings = &["redirect_dns=*:53", "service_web_dns=www.example"];
        let mut all = Sites::start(&switch, settings);
        let directory = Directory::new();
        // A resolver that knows both, as from two NS records.
        let mut unbound = all.client.at(|| unbound(&directory));
        unbound.says(&["start of service"]);
        let mut dig = tool("dig");
        dig.args("@127.0.0.1 +short +tries=1 +time=5 www.example A".split(' '));
        let mut resolves = |all: &Sites, what: &str| {
            until(&format!("{what}: the name is resolved"), || {
                let answer = all.client.at(|| output(&mut dig));
                answer.lines().next().is_some_and(|first| PROVIDERS.contains(&first))
            });
        };
        let both = format!("www.example:80:{}", BALANCERS.join(","));
        let visits = |all: &Sites| {
            let options = ["--connect-timeout", "4", "--resolve", &both, "http://www.example/"];
            all.visit(&options).is_some_and(|who| PROVIDERS.contains(&who.as_str()))
        };
        assert!(visits(&all));
        resolves(&all, "both live");
        // Its host refuses: the client asks the other one at once.
        all.balancers[0].program = None;
        assert!(visits(&all));
        resolves(&all, "one program is gone");
        // Nothing answers: the client asks the other one when it has waited enough.
        all.balancers[0].lose_power();
        assert!(visits(&all));
        resolves(&all, "one host is gone");
    });
}

/// A resolver at 127.0.0.1 that asks the balancers for `example`.
fn unbound(directory: &Directory) -> Process {
    let stubs = BALANCERS.map(|address| format!(" stub-addr: {address}\n")).concat();
    let config = directory.write(
        "unbound.conf",
        &format!(
            "server:\n do-daemonize: no\n use-syslog: no\n username: \"\"\n chroot: \"\"\n \
             directory: \"{}\"\n pidfile: \"\"\n interface: 127.0.0.1\n num-threads: 1\n \
             module-config: \"iterator\"\n verbosity: 1\nremote-control:\n control-enable: no\n\
             stub-zone:\n name: \"www.example\"\n{stubs}",
            directory.path().display()
        ),
    );
    Process::start("unbound", tool("unbound").args(["-d", "-c", &config]))
}
