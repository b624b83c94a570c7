//! One run: a setting, its arrivals, and who balances.
//!
//! Owns the way of a request from its client to a provider and back, the same
//! for everybody. Chooses no provider.

use super::agenda::{Event, Ground};
use super::baselines::{Baseline, Central, Chance, LeastConn, Turns, TwoChoices};
use super::cluster::Cluster;
use super::figures::Figures;
use super::peers::{MaxConn, Prequal, Reported, Target};
use super::setting::{exponential, Arrival, Checks, Misfortune, Setting};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::request::RequestResult;
use pegasus_core::scheduler::SCHEDULERS;
use std::collections::VecDeque;

/// How often a request is led to a provider at the most.
const TRIES: usize = 3;
const CONNECT_TIMEOUT: Span = Span::from_secs(1);
/// How long the tasks of others last, and then their absence, on average.
const HOG_SECONDS: f64 = 10.0;
/// A client that gets no answer leaves after so long.
const PATIENCE: Span = Span::from_secs(5);
/// Nothing goes on for longer than this after the last arrival.
const END: Span = Span::from_secs(100_000);

/// Who balances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// By the name of its scheduler.
    Pegasus(&'static str),
    Random,
    RoundRobin,
    LeastConn,
    /// The same for each unit of the true weight.
    WeightedLeast,
    TwoChoices,
    /// Smooth turns by the true weights.
    Weighted,
    /// Fewest requests in progress, and a line where the part of the capacity is full.
    MaxConn,
    /// An exact cap at each provider; else refused at once.
    Target,
    /// Turns by what hosts report of their requests and utilisation.
    Reported,
    /// Few in flight and quick, among hosts probed lately.
    Prequal,
    /// A central queue that knows everything.
    Ideal,
}

/// What an operator gets who chooses nothing.
pub const DEFAULT: Policy = Policy::Pegasus(SCHEDULERS[0].names[0]);

enum Side {
    /// One for each service, except for the ideal, which is one for all.
    Baseline(Vec<Box<dyn Baseline>>),
    Cluster(Box<Cluster>),
}

/// A request under way.
#[derive(Clone, Default)]
struct Way {
    provider: usize,
    inside: bool,
    avoid: Vec<usize>,
}

/// A provider in the eyes of health checks.
#[derive(Clone, Copy)]
struct Checked {
    well: bool,
    row: u32,
}

struct World<'a> {
    ground: Ground<'a>,
    arrivals: &'a [Arrival],
    came: usize,
    ways: Vec<Way>,
    side: Side,
    /// Requests that wait until there is a place: by balancer, or those of the ideal.
    lines: Vec<VecDeque<usize>>,
    checked: Vec<Checked>,
    /// Between any two hosts. The ideal knows no delay; requests pay it at the end.
    delay: Span,
    unpaid: Span,
    figures: Figures,
    settled: usize,
}

/// Runs a setting with these arrivals.
pub fn run(setting: &Setting, arrivals: &[Arrival], policy: Policy, seed: u64) -> Figures {
    let mut ground = Ground::new(setting, seed);
    let mut hogs = pegasus_core::base::random::Random::new(seed ^ 0x0606);
    for (provider, _) in setting.hosts.iter().enumerate().filter(|(_, build)| build.hogs > 0.0) {
        // All at once, so that they are the same whatever else happens.
        let mut at = Moment::ZERO;
        let mut on = hogs.below(2) == 0;
        if setting.always_hogs {
            ground.at(at, Event::Hogs(provider, true));
            continue;
        }
        while at < Moment::after_start(setting.length.times(2)) {
            ground.at(at, Event::Hogs(provider, on));
            at = at + Span::from_secs_f64(exponential(&mut hogs, HOG_SECONDS));
            on = !on;
        }
    }
    for (number, (at, ..)) in setting.misfortunes.iter().enumerate() {
        ground.at(*at, Event::Strikes(number));
    }
    let baseline = || -> Option<Box<dyn Baseline>> {
        Some(match policy {
            Policy::Pegasus(_) => return None,
            Policy::Random => Box::new(Chance::new(setting, seed)),
            Policy::RoundRobin => Box::new(Turns::plain(setting, seed)),
            Policy::LeastConn => Box::new(LeastConn::new(setting, seed)),
            Policy::WeightedLeast => Box::new(LeastConn::weighted(setting, seed)),
            Policy::TwoChoices => Box::new(TwoChoices::new(setting, seed)),
            Policy::Weighted => Box::new(Turns::weighted(setting, seed)),
            Policy::MaxConn => Box::new(MaxConn::new(setting, seed)),
            Policy::Target => Box::new(Target::new(setting, seed)),
            Policy::Reported => Box::new(Reported::new(setting, seed)),
            Policy::Prequal => Box::new(Prequal::new(setting, seed)),
            Policy::Ideal => Box::new(Central::new(setting)),
        })
    };
    let side = match policy {
        Policy::Pegasus(scheduler) => Side::Cluster(Box::new(Cluster::new(scheduler, &mut ground))),
        _ => {
            ground.after(setting.checks.every, Event::Checks);
            let count = if policy == Policy::Ideal { 1 } else { setting.services };
            Side::Baseline((0..count).filter_map(|_| baseline()).collect())
        }
    };
    if let Some(first) = arrivals.first() {
        ground.at(first.at, Event::Arrives);
    }
    let ideal = policy == Policy::Ideal;
    let mut world = World {
        ground,
        arrivals,
        came: 0,
        ways: vec![Way::default(); arrivals.len()],
        side,
        lines: vec![VecDeque::new(); if ideal { 1 } else { setting.balancers }],
        checked: vec![Checked { well: true, row: 0 }; setting.hosts.len()],
        delay: if ideal { Span::ZERO } else { setting.delay },
        unpaid: if ideal { setting.delay.times(2) } else { Span::ZERO },
        figures: Figures::new(setting),
        settled: 0,
    };
    while world.settled < arrivals.len() {
        let event = world.ground.next().expect("something to happen");
        assert!(world.ground.now < Moment::after_start(END), "requests that never end");
        world.happen(event);
    }
    if let Side::Cluster(cluster) = &mut world.side {
        cluster.audit(&mut world.ground);
        if setting.stays.is_none() {
            cluster.ledger.settle();
        }
        world.figures.observe(cluster);
    }
    world.figures.finish();
    world.figures
}

/// The baseline of a service.
fn of(baselines: &mut [Box<dyn Baseline>], service: usize) -> &mut dyn Baseline {
    let last = baselines.len() - 1;
    &mut *baselines[service.min(last)]
}

impl World<'_> {
    fn happen(&mut self, event: Event) {
        let now = self.ground.now;
        match event {
            Event::Arrives => {
                let request = self.came;
                self.came += 1;
                if let Some(next) = self.arrivals.get(self.came) {
                    self.ground.at(next.at, Event::Arrives);
                }
                self.figures.came(self.measured(request));
                self.lead(request);
            }
            Event::Reaches(request) => self.reach(request),
            Event::Runs(request, life) => {
                let provider = self.ways[request].provider;
                if self.ground.hosts[provider].life == life {
                    self.ground.run(provider, request, self.arrivals[request].work);
                }
            }
            Event::Completes(provider, number) => {
                if self.ground.hosts[provider].announced == number {
                    for request in self.ground.hosts[provider].completed(now) {
                        self.ways[request].inside = false;
                        self.ground.after(self.delay, Event::Returns(request));
                    }
                    self.ground.announce(provider);
                }
            }
            Event::Returns(request) => {
                let stays = self.arrivals[request].stays;
                if stays.is_zero() {
                    self.ended(request, RequestResult::Good);
                } else {
                    self.settled += 1;
                    self.ground.after(stays, Event::Leaves(request));
                }
                let took = now.since(self.arrivals[request].at) + self.unpaid;
                if self.measured(request) {
                    self.figures.answered(took, self.arrivals[request].work);
                }
            }
            Event::Errs(request, answered) => {
                self.ways[request].inside = false;
                if self.ground.setting.repeats && matches!(self.side, Side::Baseline(_)) {
                    return self.failed(request);
                }
                self.figures.failed += u64::from(self.measured(request));
                self.ended(
                    request,
                    if answered { RequestResult::Good } else { RequestResult::Empty },
                );
            }
            Event::Leaves(request) => self.ended(request, RequestResult::Good),
            Event::Fails(request) => self.failed(request),
            Event::Breaks(request) => {
                self.ended(request, RequestResult::Reset);
                self.figures.lost += u64::from(self.measured(request));
            }
            Event::Hogs(provider, on) => {
                let hogs = if on { self.ground.setting.hosts[provider].hogs } else { 0.0 };
                self.ground.hosts[provider].set_hogs(hogs, now);
                self.ground.announce(provider);
            }
            Event::Strikes(number) => self.strike(number),
            Event::Checks => self.check(),
            event => self.tell(event),
        }
    }

    /// Something between monitors and queues.
    fn tell(&mut self, event: Event) {
        let Side::Cluster(cluster) = &mut self.side else { return };
        let ground = &mut self.ground;
        match event {
            Event::QueueWakes(balancer) => cluster.wake_queue(balancer, ground),
            Event::MonitorWakes(provider) => cluster.wake_monitor(provider, ground),
            Event::Said(balancer, provider, request) => {
                cluster.said(balancer, provider, request, ground)
            }
            Event::Told(balancer, provider, service, reply) => {
                cluster.told(balancer, (provider, service), reply, ground)
            }
            Event::Audit => cluster.audit(ground),
            other => unreachable!("{other:?}"),
        }
        self.heed();
    }

    fn measured(&self, request: usize) -> bool {
        self.ground.setting.measures(self.arrivals[request].at)
    }

    /// Wants a provider for a request.
    fn lead(&mut self, request: usize) {
        let Arrival { balancer, client, service, .. } = self.arrivals[request];
        let avoid = &self.ways[request].avoid;
        match &mut self.side {
            Side::Cluster(cluster) => {
                let asked = (balancer, service);
                cluster.next(asked, request, client, avoid, &mut self.ground)
            }
            Side::Baseline(baselines) => {
                let baseline = of(baselines, service);
                baseline.looks(&mut self.ground.hosts, balancer, self.ground.now);
                let checked = &self.checked;
                let usable = |provider: usize| checked[provider].well && !avoid.contains(&provider);
                match baseline.choose(balancer, &usable) {
                    Some(provider) => self.depart(request, provider),
                    None if baseline.refuses() => self.refuse(request),
                    None => {
                        let line = balancer.min(self.lines.len() - 1);
                        self.lines[line].push_back(request);
                    }
                }
            }
        }
        self.heed();
    }

    /// Does what the queues answered.
    fn heed(&mut self) {
        let Side::Cluster(cluster) = &mut self.side else { return };
        let answers = std::mem::take(&mut cluster.answers);
        for (request, provider) in answers {
            let Some(provider) = provider else {
                self.refuse(request);
                continue;
            };
            self.depart(request, provider);
        }
    }

    fn refuse(&mut self, request: usize) {
        self.settled += 1;
        self.figures.refused += u64::from(self.measured(request));
    }

    /// A place is free: the first in line who has not left gets it.
    fn call(&mut self, balancer: usize) {
        let line = balancer.min(self.lines.len() - 1);
        while let Some(first) = self.lines[line].pop_front() {
            let waited = self.ground.now.since(self.arrivals[first].at);
            if !self.ground.setting.strict || waited <= self.ground.setting.wait {
                return self.lead(first);
            }
            self.refuse(first);
        }
    }

    fn depart(&mut self, request: usize, provider: usize) {
        self.ways[request].provider = provider;
        self.ground.after(self.delay, Event::Reaches(request));
    }

    fn reach(&mut self, request: usize) {
        let provider = self.ways[request].provider;
        let host = &self.ground.hosts[provider];
        if host.silent {
            let at = self.ground.now + CONNECT_TIMEOUT - self.delay;
            return self.ground.at(at, Event::Fails(request));
        }
        if !host.up {
            return self.ground.after(self.delay, Event::Fails(request));
        }
        self.ways[request].inside = true;
        let full = host.running() as f64 >= host.cpus;
        self.figures.over += u64::from(full && self.measured(request));
        let (life, work) = (host.life, self.arrivals[request].work);
        if host.errs || host.ends {
            let event = Event::Errs(request, host.errs);
            return self.ground.after(Span::from_millis(1) + self.delay, event);
        }
        if host.hangs > 0.0 && self.ground.random.unit() < host.hangs {
            // Its client gives up.
            return self.ground.after(PATIENCE, Event::Errs(request, true));
        }
        let waits = self.ground.setting.io + host.drags - 1.0;
        if waits > 0.0 {
            let waits = Span::from_secs_f64(work * waits);
            self.ground.after(waits, Event::Runs(request, life));
        } else {
            self.ground.run(provider, request, work);
        }
    }

    /// A request is over, well or not.
    fn ended(&mut self, request: usize, result: RequestResult) {
        self.settled += usize::from(self.arrivals[request].stays.is_zero());
        let Arrival { balancer, service, .. } = self.arrivals[request];
        let provider = self.ways[request].provider;
        match &mut self.side {
            Side::Cluster(cluster) => {
                cluster.done((balancer, service), request, provider, result, &mut self.ground)
            }
            Side::Baseline(baselines) => {
                of(baselines, service).ended(balancer, provider);
                self.call(balancer);
            }
        }
        self.heed();
    }

    /// The provider could not be reached: it is reported, and another tried.
    fn failed(&mut self, request: usize) {
        let Arrival { balancer, service, .. } = self.arrivals[request];
        let provider = self.ways[request].provider;
        self.ways[request].avoid.push(provider);
        match &mut self.side {
            Side::Cluster(cluster) => {
                let asked = (balancer, service);
                cluster.failed(asked, request, provider, &mut self.ground)
            }
            Side::Baseline(baselines) => of(baselines, service).ended(balancer, provider),
        }
        self.heed();
        self.figures.retried += u64::from(self.measured(request));
        if self.ways[request].avoid.len() < TRIES {
            self.lead(request);
        } else {
            self.settled += 1;
            self.figures.unserved += u64::from(self.measured(request));
        }
    }

    fn strike(&mut self, number: usize) {
        let now = self.ground.now;
        let (_, provider, what) = self.ground.setting.misfortunes[number];
        let host = &mut self.ground.hosts[provider];
        match what {
            Misfortune::TicketsStop => self.ground.unheard[provider] = true,
            Misfortune::Recovers => {
                (host.up, host.silent, host.errs, host.ends) = (true, false, false, false);
                (host.drags, host.hangs, host.unfit) = (1.0, 0.0, false);
            }
            Misfortune::AnswersErrors => host.errs = true,
            Misfortune::EndsAtOnce => host.ends = true,
            Misfortune::FailsItsCheck => host.unfit = true,
            Misfortune::Hogs(tasks) => {
                host.set_hogs(f64::from(tasks), now);
                self.ground.announce(provider);
            }
            Misfortune::Drags(times) => host.drags = f64::from(times),
            Misfortune::Hangs(percent) => host.hangs = f64::from(percent) / 100.0,
            Misfortune::Cold(times) => {
                host.set_speed(self.ground.setting.hosts[provider].speed / f64::from(times), now);
                self.ground.announce(provider);
            }
            Misfortune::Warm => {
                host.set_speed(self.ground.setting.hosts[provider].speed, now);
                self.ground.announce(provider);
            }
            Misfortune::Dies => host.up = false,
            Misfortune::FallsSilent => host.silent = true,
        }
        if matches!(what, Misfortune::Dies | Misfortune::FallsSilent) {
            self.ground.hosts[provider].lose(now);
            self.ground.announce(provider);
            for request in 0..self.came {
                if self.ways[request].provider == provider
                    && std::mem::take(&mut self.ways[request].inside)
                {
                    self.ground.after(self.delay, Event::Breaks(request));
                }
            }
        }
    }

    fn check(&mut self) {
        let Checks { every, fall, rise } = self.ground.setting.checks;
        for (host, checked) in self.ground.hosts.iter().zip(&mut self.checked) {
            let good = host.up && !host.silent && !host.unfit;
            checked.row = if good == checked.well { 0 } else { checked.row + 1 };
            if checked.row >= if good { rise } else { fall } {
                *checked = Checked { well: good, row: 0 };
            }
        }
        self.ground.after(every, Event::Checks);
    }
}
