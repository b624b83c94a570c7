//! `pegasus monitor`: the hands of the monitor.
//!
//! Owns the connections to the balancers, the load sources and the checks.
//! What is bid is the machine's business.

use super::daemon::{Daemon, Source, Wish};
use super::settings::{Check, ServiceSettings, Settings};
use super::terminal::say;
use super::{exit, seed};
use crate::net::drive::{Desk, Hands, Loop};
use crate::net::gauge::Gauge;
use crate::net::helper::{self, Helper};
use crate::net::peer::{News, Peer};
use crate::net::probe::{Probes, Verdict};
use crate::os::service;
use crate::os::signal::Signal;
use log::{debug, error, info, warn};
use mio::event::Event;
use mio::{Token, Waker};
use pegasus_core::base::decimal::Thousandths;
use pegasus_core::base::machine::Machine;
use pegasus_core::base::roster::Roster;
use pegasus_core::base::sample::Sample;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::monitor::{Input, Monitor, Note, Output};
use pegasus_core::wire::channel::Answer;
use pegasus_core::wire::message::Request;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The first wait before a balancer is tried again; the longest is half an interval.
const RETRY: Span = Span::from_millis(100);
/// A balancer that owes an answer for so many intervals, and so long, is away.
/// That is well before the lease of what it was told ends, five intervals and at
/// least 5 s, so that another connection can be opened in time.
const SILENCE_INTERVALS: u64 = 2;
const SILENCE_MIN: Span = Span::from_secs(2);

/// What may be wanted of a running monitor.
pub enum Order {
    /// Withdraw and end in good order; the second time at once.
    Terminate,
    /// Another configuration from now on.
    Reconfigure(Box<Settings>),
}

struct Bidding {
    settings: Settings,
    peers: Vec<Peer<usize>>,
    gauge: Gauge,
    /// The machine wants a look, but a command has not said anything yet.
    look: bool,
    probes: Probes,
    /// Checks by command, with the number of the service.
    helpers: Vec<(usize, Helper)>,
    /// Why services failed their last bad check.
    reasons: Roster<usize, String>,
    draining: bool,
    over: bool,
}

impl Hands for Bidding {
    type Machine = Monitor;
    type Order = Order;

    fn ready(&mut self, event: &Event, machine: &mut Monitor, desk: &mut Desk) {
        let Token(token) = event.token();
        let number = token / 2;
        if token % 2 == 0 {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.ready(event, desk);
                self.hear(machine, desk);
            }
        } else if let Some(verdict) = self.probes.ready(number) {
            self.checked(number, verdict, machine, desk);
        }
    }

    fn act(&mut self, output: Output, machine: &mut Monitor, desk: &mut Desk) {
        match output {
            Output::Look => {
                self.look = true;
                self.look_if_ready(machine, desk);
            }
            Output::Check { service } => {
                if let Some(verdict) = self.begin_check(service, desk) {
                    self.checked(service, verdict, machine, desk);
                }
            }
            Output::Say { balancer, service, request } => {
                if let Some(peer) = self.peers.get_mut(balancer) {
                    peer.ask(&request, service, desk.now);
                }
            }
            Output::Note(note) => self.tell(&note),
            Output::Finished => self.over = true,
        }
    }

    fn order(&mut self, order: Order, machine: &mut Monitor, desk: &mut Desk) {
        match order {
            Order::Terminate if self.draining => self.over = true,
            Order::Terminate => {
                info!(target: "monitor", "draining");
                self.draining = true;
                machine.handle(Input::Drain, desk.now);
            }
            Order::Reconfigure(settings) => self.reconfigure(*settings, machine, desk),
        }
    }

    fn expire(&mut self, machine: &mut Monitor, desk: &mut Desk) {
        self.gauge.expire(desk.now);
        self.look_if_ready(machine, desk);
        let mut checked = Vec::new();
        self.helpers.retain(|(service, helper)| match helper.done() {
            Some(output) => {
                checked.push((*service, output.map(drop)));
                false
            }
            None => true,
        });
        for (service, verdict) in checked {
            self.checked(service, verdict, machine, desk);
        }
        self.peers.iter_mut().for_each(|peer| peer.expire(desk));
        self.hear(machine, desk);
        while let Some(service) = self.probes.expired(desk.now) {
            self.checked(service, Err("no answer in time".into()), machine, desk);
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let peers = self.peers.iter().filter_map(Peer::deadline);
        peers.chain(self.gauge.deadline()).chain(self.probes.deadline()).min()
    }

    fn settle(&mut self, machine: &mut Monitor, desk: &mut Desk) -> bool {
        self.peers.iter_mut().for_each(|peer| peer.flush(desk));
        self.hear(machine, desk);
        self.over
    }
}

impl Bidding {
    fn new(settings: Settings, waker: Arc<Waker>) -> Bidding {
        Bidding {
            peers: peers(&settings),
            gauge: Gauge::new(&settings.monitor_load, settings.monitor_interval, waker),
            look: false,
            probes: Probes::default(),
            helpers: Vec::new(),
            reasons: Roster::default(),
            draining: false,
            over: false,
            settings,
        }
    }

    fn machine(&self) -> Monitor {
        Monitor::new(self.settings.monitor_options(), self.gauge.cpus(), seed())
    }

    fn checked(&mut self, service: usize, verdict: Verdict, machine: &mut Monitor, desk: &Desk) {
        let good = verdict.is_ok();
        if let Err(why) = verdict {
            debug!(target: "monitor", "check of service {service}: {why}");
            self.reasons.put(service, why);
        }
        machine.handle(Input::Checked { service, good }, desk.now);
    }

    fn look_if_ready(&mut self, machine: &mut Monitor, desk: &Desk) {
        if self.look && self.gauge.ready() {
            self.look = false;
            let sample = self.gauge.look(desk.now);
            self.gauge.news().into_iter().for_each(|news| warn!(target: "monitor", "{news}"));
            machine.handle(Input::Looked(sample), desk.now);
        }
    }

    /// Begins to check a service: at its provider's address, or at the one by
    /// which the balancers see this machine. Answers at once where it can.
    fn begin_check(&mut self, service: usize, desk: &mut Desk) -> Option<Verdict> {
        let timeout = check_timeout(&self.settings);
        let Some(settings) = self.settings.offered().get(service).copied().cloned() else { return Some(Ok(())) };
        match settings.checked() {
            Some(Check::Exec(command)) => {
                self.helpers.push((service, Helper::start(&command, timeout.into(), desk.waker())));
                None
            }
            Some(Check::Tcp(Some(port))) => {
                let seen = || self.peers.iter().find_map(Peer::local_ip).unwrap_or(Ipv4Addr::LOCALHOST.into());
                let ip = settings.provider.and_then(|provider| provider.ip).unwrap_or_else(seen);
                self.probes.begin(service, SocketAddr::new(ip, port), timeout, Token(service * 2 + 1), desk)
            }
            _ => Some(Ok(())),
        }
    }

    fn hear(&mut self, machine: &mut Monitor, desk: &mut Desk) {
        for (balancer, peer) in self.peers.iter_mut().enumerate() {
            while let Some(news) = peer.poll() {
                match news {
                    News::Up => {
                        if let Some(ip) = peer.local_ip() {
                            machine.handle(Input::Seen { balancer, ip }, desk.now);
                        }
                        machine.handle(Input::Up { balancer }, desk.now);
                    }
                    News::Down => machine.handle(Input::Down { balancer }, desk.now),
                    News::Answer(Answer::InOrder(service, reply)) => {
                        debug!(target: "monitor", "balancer {}: {reply}", peer.target());
                        machine.handle(Input::Told { balancer, service, reply }, desk.now);
                    }
                    News::Answer(Answer::Numbered(..)) => {}
                }
            }
        }
    }

    /// Goes on with other settings; what is no longer offered is withdrawn first.
    fn reconfigure(&mut self, settings: Settings, machine: &mut Monitor, desk: &mut Desk) {
        if self.draining {
            return;
        }
        let same_balancers = settings.monitor_balancers == self.settings.monitor_balancers;
        for old in self.settings.offered() {
            let kept = settings.offered().iter().any(|new| new.name == old.name && new.provider == old.provider);
            if !(kept && same_balancers) {
                let request = Request::Withdraw { provider: old.provider.unwrap_or_default(), service: old.name };
                self.peers.iter_mut().for_each(|peer| peer.ask(&request, 0, desk.now));
            }
        }
        self.peers.iter_mut().for_each(|peer| peer.flush(desk));
        let mut fresh = Bidding::new(settings, desk.waker());
        if same_balancers {
            fresh.peers = std::mem::take(&mut self.peers);
            let silence_max = silence_max(&fresh.settings);
            fresh.peers.iter_mut().for_each(|peer| peer.set_silence_max(silence_max));
        }
        let same_gauge = fresh.settings.monitor_load == self.settings.monitor_load
            && fresh.settings.monitor_interval == self.settings.monitor_interval;
        if same_gauge {
            std::mem::swap(&mut fresh.gauge, &mut self.gauge);
        }
        machine.reconfigure(fresh.settings.monitor_options(), same_balancers, desk.now);
        *self = fresh;
    }

    fn tell(&self, note: &Note) {
        match note {
            Note::Well(service) => info!(target: "monitor", "service {service} is well"),
            Note::Unwell(service) => {
                let number = self.settings.offered().iter().position(|offered| offered.name == *service);
                let why = number.and_then(|number| self.reasons.get(number)).map_or("", String::as_str);
                warn!(target: "monitor", "service {service} fails its check, no tickets: {why}");
            }
            Note::Refused { balancer, service, answer } => {
                let target = &self.settings.monitor_balancers[*balancer];
                warn!(target: "monitor", "balancer {target} takes no tickets for {service}: {answer}");
            }
            Note::Contested { balancer, service } => {
                let target = &self.settings.monitor_balancers[*balancer];
                warn!(target: "monitor", "another monitor offers this provider of {service} too, at balancer {target}");
            }
        }
    }
}

fn peers(settings: &Settings) -> Vec<Peer<usize>> {
    let most = settings.monitor_interval.part(2);
    let retry = (RETRY.min(most), most);
    let peer = |(number, target): (usize, &pegasus_core::base::address::Target)| {
        Peer::new("monitor", target.clone(), Token(number * 2), retry, silence_max(settings), seed())
    };
    settings.monitor_balancers.iter().enumerate().map(peer).collect()
}

fn silence_max(settings: &Settings) -> Span {
    settings.monitor_interval.times(SILENCE_INTERVALS).max(SILENCE_MIN)
}

fn check_timeout(settings: &Settings) -> Span {
    settings.monitor_interval.max(Span::from_millis(500)).min(Span::from_secs(2))
}

/// A monitor that is ready to run.
pub struct Ready {
    turn: Loop<Order>,
    bidding: Bidding,
}

impl Ready {
    /// Sets it up; it connects when it runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(settings: Settings) -> io::Result<Ready> {
        let mut turn = Loop::new()?;
        let bidding = Bidding::new(settings, turn.desk().waker());
        Ok(Ready { turn, bidding })
    }

    /// Runs it; the result is an exit status.
    pub fn serve(mut self) -> i32 {
        let mut machine = self.bidding.machine();
        exit::after("monitor", self.turn.run(&mut machine, &mut self.bidding))
    }
}

/// Runs the command; the result is its exit status.
pub fn run(daemon: Daemon) -> i32 {
    let Daemon { settings, source, once, .. } = daemon;
    if settings.offered().is_empty() {
        error!(target: "config", "nothing to offer: set service_NAME_provider");
        return exit::CONFIG;
    }
    if once {
        return look_once(&settings);
    }
    let offers: Vec<String> = settings.offered().iter().map(|service| offered(service)).collect();
    let balancers: Vec<String> = settings.monitor_balancers.iter().map(ToString::to_string).collect();
    let started = settings.become_user().and_then(|()| Ready::new(settings)).and_then(|mut ready| {
        ready.turn.catch_signals(move |signal| on_signal(signal, &source))?;
        Ok(ready)
    });
    match started {
        Err(error) => {
            error!(target: "monitor", "{error}");
            exit::of(&error)
        }
        Ok(ready) => {
            info!(target: "monitor", "ready {} for {}", offers.join(" "), balancers.join(" "));
            service::ready();
            ready.serve()
        }
    }
}

fn offered(service: &ServiceSettings) -> String {
    let provider = service.provider.map_or("own-address".to_string(), |provider| provider.to_string());
    format!("{}={provider}", service.name)
}

fn on_signal(signal: Signal, source: &Source) -> Option<Order> {
    match Wish::of(signal, "monitor")? {
        Wish::End => Some(Order::Terminate),
        Wish::Reload => {
            let settings = source.reload()?;
            if settings.offered().is_empty() {
                error!(target: "config", "nothing to offer: set service_NAME_provider; the old configuration stays");
                return None;
            }
            Some(Order::Reconfigure(Box::new(settings)))
        }
    }
}

/// `--once`: one look, one check, and the messages that would be sent.
fn look_once(settings: &Settings) -> i32 {
    let waker = match Loop::<Order>::new() {
        Ok(mut turn) => turn.desk().waker(),
        Err(error) => {
            error!(target: "monitor", "{error}");
            return exit::SYSTEM;
        }
    };
    let mut gauge = Gauge::new(&settings.monitor_load, settings.monitor_interval, waker);
    let mut machine = Monitor::new(settings.monitor_options(), gauge.cpus(), seed());
    let (interval, pieces) = (settings.monitor_interval.min(Span::from_secs(1)), 10);
    for piece in 0..pieces {
        gauge.expire(Moment::after_start(interval.times(piece + 1).part(pieces)));
        thread::sleep(interval.part(pieces).into());
    }
    let now = Moment::after_start(interval);
    machine.expire(now);
    while let Some(output) = machine.poll() {
        match output {
            Output::Look => {
                let sample = gauge.look(now);
                gauge.news().into_iter().for_each(|news| say(format_args!("# {news}")));
                say(format_args!("{}", describe(&sample)));
                machine.handle(Input::Looked(sample), now);
            }
            Output::Check { service } => {
                let verdict = check_once(settings.offered()[service], check_timeout(settings).into());
                let name = settings.offered()[service].name;
                match &verdict {
                    Ok(()) => say(format_args!("check service={name} well=yes")),
                    Err(why) => say(format_args!("check service={name} well=no why=\"{why}\"")),
                }
                let good = verdict.is_ok();
                machine.handle(Input::Checked { service, good }, now);
            }
            Output::Say { .. } | Output::Note(_) | Output::Finished => {}
        }
    }
    for (balancer, _, request) in machine.offers(now) {
        let mut line = Vec::new();
        let target = &settings.monitor_balancers[balancer];
        request.write(target, &mut line);
        say(String::from_utf8_lossy(&line).trim_end());
    }
    exit::OK
}

fn check_once(service: &ServiceSettings, timeout: Duration) -> Verdict {
    match service.checked() {
        Some(Check::Exec(command)) => helper::run(&command, timeout).map(drop),
        Some(Check::Tcp(Some(port))) => {
            let ip = service.provider.and_then(|provider| provider.ip).unwrap_or(Ipv4Addr::LOCALHOST.into());
            let to = SocketAddr::new(ip, port);
            TcpStream::connect_timeout(&to, timeout).map(drop).map_err(|error| format!("{to}: {error}"))
        }
        _ => Ok(()),
    }
}

fn describe(sample: &Sample) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| Thousandths(value).to_string());
    // A share of CPUs has digits after the point, and whole ones have none.
    let cpus = Thousandths(sample.cpus).to_string();
    format!(
        "sample cpus={} utilisation={} queued={} load={} full={}",
        cpus.trim_end_matches('0').trim_end_matches('.'),
        number(sample.utilisation),
        number(sample.queued),
        number(sample.load),
        number(sample.full)
    )
}
