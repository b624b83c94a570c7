//! A world of hosts under virtual time: what happens, when, and to whom.
//!
//! Owns the clock, the agenda and the misfortunes. Checks the laws after every
//! step. Everything random comes from one seed.

mod connections;
mod monitors;
mod plain;
mod queues;
mod redirectors;

use super::hosts::{Health, MonitorHost, PlainHost, QueueHost, RedirectHost};
use super::network::{Arrival, Asker, End, Network};
use pegasus_core::base::outcome::Outcome;
use pegasus_core::base::random::Random;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::capacity::Sample;
use pegasus_core::monitor::monitor;
use pegasus_core::protocol::requester::Requester;
use pegasus_core::queue::ticket_queue::{self, QueueOptions};
use pegasus_core::redirect::redirector::{self, Failure, RedirectOptions, Redirector};
use pegasus_core::scheduler::SCHEDULERS;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

const SERVICES: [(&str, u16); 2] = [("web", 80), ("mail", 25)];
const WAIT_MAX: Span = Span::from_secs(5);
/// How many of the last events a failure shows.
const SHOWN: usize = 40;

/// What is to happen.
#[derive(Debug)]
enum Event {
    Arrives(Key, End, Arrival),
    Dial(Asker),
    ClientComes(usize),
    Called { redirector: usize, life: u32, client: Key, call: u32, result: Result<usize, Failure> },
    Served { redirector: usize, life: u32, client: Key, provider: usize },
    ClientLeaves { redirector: usize, life: u32, client: Key },
    Looked(usize, u32),
    Checked(usize, u32, usize),
    PlainAsks(usize),
    Misfortune,
    QueueBegins(usize),
    QueueEnds(usize),
    MonitorBegins(usize),
    Heals(usize),
}

/// The hosts of a simulation, under virtual time.
pub struct World {
    now: Moment,
    random: Random,
    network: Network,
    agenda: BTreeMap<(Moment, u64), Event>,
    events: u64,
    queues: Vec<QueueHost>,
    redirectors: Vec<RedirectHost>,
    monitors: Vec<MonitorHost>,
    plains: Vec<PlainHost>,
    clients: u32,
    /// No more clients and misfortunes: all comes to its end.
    quiet: bool,
    past: VecDeque<String>,
    /// A digest of all that happened.
    pub history: u64,
    /// How many clients ended, complete and otherwise.
    pub ended: [u32; 2],
    /// Grants and errors by queues.
    pub answers: [u64; 2],
    /// How mean the network and the machines are: 0 is kind.
    meanness: u64,
}

fn service(number: usize) -> ServiceName {
    SERVICES[number].0.parse().expect("a service")
}

fn address(monitor: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, monitor as u8 + 1])
}

fn peer(asker: Asker) -> IpAddr {
    match asker {
        Asker::Monitor(monitor, _) => address(monitor),
        Asker::Redirector(redirector) => IpAddr::from([10, 1, 0, redirector as u8]),
        Asker::Plain(plain) => IpAddr::from([10, 2, 0, plain as u8]),
    }
}

fn everybody(random: &mut Random) -> QueueOptions {
    let open = vec!["0.0.0.0/0".parse().expect("a network")];
    QueueOptions {
        scheduler: SCHEDULERS[random.below(SCHEDULERS.len())].names[0]
            .parse()
            .expect("a scheduler"),
        wait_max: WAIT_MAX,
        allow_ticket: open.clone(),
        allow_next: open.clone(),
        allow_status: open,
        ..QueueOptions::default()
    }
}

impl World {
    /// A world that this seed gives.
    pub fn new(seed: u64) -> World {
        let mut world = World {
            now: Moment::ZERO,
            random: Random::new(seed),
            network: Network::default(),
            agenda: BTreeMap::new(),
            events: 0,
            queues: Vec::new(),
            redirectors: Vec::new(),
            monitors: Vec::new(),
            plains: Vec::new(),
            clients: 0,
            quiet: false,
            past: VecDeque::new(),
            history: 0,
            ended: [0; 2],
            answers: [0; 2],
            meanness: 0,
        };
        world.meanness = world.random.below(4) as u64;
        for queue in 0..1 + world.random.below(3) {
            world.queues.push(QueueHost {
                running: None,
                callers: Slab::default(),
                observer: no_key(),
            });
            world.queue_begins(queue);
        }
        for redirector in 0..1 + world.random.below(3) {
            let queue = world.random.below(world.queues.len());
            let machine = Redirector::new(world.redirect_options());
            let (asking, visitors) = (Requester::default(), Slab::default());
            world.redirectors.push(RedirectHost {
                machine,
                life: 0,
                queue,
                link: None,
                asking,
                visitors,
            });
            world.soon(Event::Dial(Asker::Redirector(redirector)));
            world.soon(Event::ClientComes(redirector));
        }
        for monitor in 0..1 + world.random.below(5) {
            let queues = world.queues.len();
            let asking = (0..queues).map(|_| Requester::default()).collect();
            let links = vec![None; queues];
            world.monitors.push(MonitorHost {
                machine: None,
                life: 0,
                links,
                asking,
                running: 0,
                health: Health::Well,
            });
            world.soon(Event::MonitorBegins(monitor));
        }
        for plain in 0..world.random.below(3) {
            world.plains.push(PlainHost::default());
            world.soon(Event::Dial(Asker::Plain(plain)));
        }
        if world.meanness > 0 {
            world.soon(Event::Misfortune);
        }
        world
    }

    /// Lets a busy time pass, then lets everything come to its end.
    pub fn run(&mut self, busy: Span) {
        self.until(Moment::ZERO + busy);
        self.quiet = true;
        for plain in 0..self.plains.len() {
            if let Some(link) = self.plains[plain].link {
                self.cut(link);
            }
        }
        (0..self.monitors.len()).for_each(|monitor| self.soon(Event::Heals(monitor)));
        self.until(self.now + Span::from_secs(20));
        for redirector in &self.redirectors {
            assert_eq!(
                (redirector.machine.count(), redirector.visitors.len()),
                (0, 0),
                "clients that never left"
            );
        }
        for queue in 0..self.queues.len() {
            let status = self.status(queue);
            assert!(!active(&status), "a place that nobody has:\n{status}");
        }
        for monitor in 0..self.monitors.len() {
            self.tell_monitor(monitor, monitor::Input::Drain);
        }
        self.until(self.now + Span::from_secs(40));
        assert!(
            self.monitors.iter().all(|monitor| monitor.machine.is_none()),
            "a monitor that does not end"
        );
        for queue in 0..self.queues.len() {
            let first = self.status(queue).lines().next().unwrap_or_default().to_string();
            assert!(first.contains(" waiting=0 "), "{first}");
            if let Some((_, ledger)) = &self.queues[queue].running {
                (0..2).for_each(|kind| self.answers[kind] += ledger.answers[kind]);
            }
        }
        assert!(
            self.redirectors.iter().all(|redirector| redirector.machine.next_timeout().is_none()),
            "a timer left"
        );
    }

    fn until(&mut self, end: Moment) {
        loop {
            let timers = self.timers();
            let timer = timers.iter().min().copied();
            let event = self.agenda.keys().next().copied();
            let next =
                [timer.map(|(at, _)| at), event.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            match timer.filter(|(at, _)| *at <= self.now) {
                Some((_, host)) => self.expire(host),
                None => {
                    let (_, event) =
                        event.and_then(|at| self.agenda.remove_entry(&at)).expect("an event");
                    let line = format!("{:?} {event:?}", self.now.since(Moment::ZERO));
                    let digest =
                        |sum: u64, c: u8| (sum ^ u64::from(c)).wrapping_mul(0x0100_0000_01b3);
                    self.history = line.bytes().fold(self.history, digest);
                    self.past.push_back(line);
                    if self.past.len() > SHOWN {
                        self.past.pop_front();
                    }
                    self.happens(event);
                }
            }
        }
        self.now = end;
    }

    /// When which machine wants to be woken: queues, redirectors, monitors.
    fn timers(&self) -> Vec<(Moment, (u8, usize))> {
        let queues = self
            .queues
            .iter()
            .map(|host| host.running.as_ref().and_then(|(machine, _)| machine.next_timeout()));
        let redirectors = self.redirectors.iter().map(|host| host.machine.next_timeout());
        let monitors = self
            .monitors
            .iter()
            .map(|host| host.machine.as_ref().and_then(StateMachine::next_timeout));
        let queues = queues.enumerate().map(|(number, at)| (at, (0, number)));
        let redirectors = redirectors.enumerate().map(|(number, at)| (at, (1, number)));
        let monitors = monitors.enumerate().map(|(number, at)| (at, (2, number)));
        queues
            .chain(redirectors)
            .chain(monitors)
            .filter_map(|(at, host)| Some((at?, host)))
            .collect()
    }

    fn expire(&mut self, (kind, host): (u8, usize)) {
        let now = self.now;
        match kind {
            0 => {
                if let Some((machine, ledger)) = &mut self.queues[host].running {
                    machine.handle_timeout(now);
                    ledger.expired(now);
                }
                self.act_queue(host);
            }
            1 => {
                self.redirectors[host].machine.handle_timeout(now);
                self.act_redirector(host);
            }
            _ => {
                if let Some(machine) = &mut self.monitors[host].machine {
                    machine.handle_timeout(now);
                }
                self.act_monitor(host);
            }
        }
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.events += 1;
        self.agenda.insert((at, self.events), event);
    }

    fn within(&mut self, millis: u64, event: Event) {
        let after = Span::from_nanos(self.random.below(millis as usize * 1_000_000) as u64);
        self.at(self.now + after, event);
    }

    fn soon(&mut self, event: Event) {
        self.within(20, event);
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.random.below(many) == 0
    }

    fn redirect_options(&mut self) -> RedirectOptions {
        let wait = [0, 300, 1000, 2000][self.random.below(4)];
        RedirectOptions {
            wait: Span::from_millis(wait).into(),
            tries: 1 + self.random.below(4) as u32,
            ..Default::default()
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(link, end, arrival) => self.arrives(link, end, arrival),
            Event::Dial(asker) => self.dial(asker),
            Event::ClientComes(redirector) => self.client_comes(redirector),
            Event::Called { redirector, life, client, call, result } => {
                self.called(redirector, life, client, call, result);
            }
            Event::Served { redirector, life, client, provider } => {
                self.monitors[provider].running -= 1;
                let outcome =
                    if self.one_in(50) { Outcome::ProviderReset } else { Outcome::Complete };
                if let Some(visitor) = self.visitor(redirector, life, client) {
                    visitor.closed = true;
                    let input = redirector::Input::Closed {
                        client,
                        outcome,
                        result: pegasus_core::protocol::request::RequestResult::Good,
                        local: None,
                        sent: 1,
                        received: 1,
                    };
                    self.tell_redirector(redirector, input);
                }
            }
            Event::ClientLeaves { redirector, life, client } => {
                if self.visitor(redirector, life, client).is_some_and(|visitor| !visitor.relaying) {
                    self.tell_redirector(redirector, redirector::Input::ClientLeft { client });
                }
            }
            Event::Looked(monitor, life) if self.monitors[monitor].life == life => {
                let running = f64::from(self.monitors[monitor].running);
                let sample = Sample {
                    cpus: 4.0,
                    utilisation: Some((running / 8.0).min(1.0)),
                    queued: Some((running - 8.0).max(0.0)),
                    load: None,
                    full: None,
                };
                self.tell_monitor(monitor, monitor::Input::Sampled(sample));
            }
            Event::Checked(monitor, life, service) if self.monitors[monitor].life == life => {
                let good = self.monitors[monitor].health == Health::Well;
                self.tell_monitor(monitor, monitor::Input::Checked { service, good });
            }
            Event::Looked(..) | Event::Checked(..) => {}
            Event::PlainAsks(plain) => self.plain_asks(plain),
            Event::Misfortune => self.misfortune(),
            Event::QueueBegins(queue) => self.queue_begins(queue),
            Event::QueueEnds(queue) => self.queue_ends(queue),
            Event::MonitorBegins(monitor) => self.monitor_begins(monitor),
            Event::Heals(monitor) => self.monitors[monitor].health = Health::Well,
        }
    }

    // What goes wrong.

    fn misfortune(&mut self) {
        if self.quiet {
            return;
        }
        self.within(4000 / self.meanness.max(1), Event::Misfortune);
        let queue = self.random.below(self.queues.len());
        let monitor = self.random.below(self.monitors.len());
        match self.random.below(10) {
            0..=2 => {
                if let Some(link) = self.network.any(&mut self.random) {
                    self.cut(link);
                }
            }
            3 => self.queue_ends(queue),
            4 => {
                if let Some((machine, ledger)) = &mut self.queues[queue].running {
                    ledger.draining = true;
                    machine.handle_input(ticket_queue::Input::Drain, self.now);
                    self.act_queue(queue);
                    self.within(1000, Event::QueueEnds(queue));
                }
            }
            5 => self.monitor_ends(monitor),
            6 => self.tell_monitor(monitor, monitor::Input::Drain),
            7 => self.redirector_ends(),
            _ => {
                self.monitors[monitor].health =
                    if self.one_in(2) { Health::Dead } else { Health::Silent };
                self.within(6000, Event::Heals(monitor));
            }
        }
    }

    fn redirector_ends(&mut self) {
        let redirector = self.random.below(self.redirectors.len());
        let machine = Redirector::new(self.redirect_options());
        let host = &mut self.redirectors[redirector];
        (host.machine, host.visitors) = (machine, Slab::default());
        host.life += 1;
        if let Some(link) = host.link.take() {
            self.cut(link);
            self.network.close(link, End::Asker);
            self.within(800, Event::Dial(Asker::Redirector(redirector)));
        }
    }
}

/// Whether anything is in progress, by this status.
fn active(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("provider ") && !line.contains(" active=0 "))
}

/// A key of nothing.
fn no_key() -> Key {
    let mut slab = Slab::default();
    let key = slab.insert(());
    slab.remove(key);
    key
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for event in &self.past {
                println!("{event}");
            }
            println!("and then, at {:?}", self.now.since(Moment::ZERO));
        }
    }
}
