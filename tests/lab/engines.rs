//! The law of providers whose clients an engine leads.
//!
//! Owns a small world of its own: real monitors, a real queue, the exporter's follower,
//! and an engine that leads each request by the weights alone, as the kernel does.

use super::host::Host;
use super::setting::exponential;
use super::{seed, Replay};
use pegasus_core::base::random::Random;
use pegasus_core::base::sample::Sample;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::export::follower::Follower;
use pegasus_core::export::plan::Plan;
use pegasus_core::monitor::engine::Tasks;
use pegasus_core::monitor::monitor::{self, Monitor, MonitorOptions, ServiceOptions};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use pegasus_core::queue::ticket_queue::{self, QueueOptions, TicketQueue};
use std::net::{IpAddr, Ipv4Addr};

const INTERVAL: Span = Span::from_secs(1);
/// Mean work of a request, in seconds of a CPU of speed 1.
const WORK: f64 = 0.002;

/// Where a host is.
fn host(number: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, number as u8 + 1])
}

struct World {
    now: Moment,
    random: Random,
    hosts: Vec<Host>,
    hogs: Vec<f64>,
    /// What these add up to since the last look of a monitor, and when that was.
    hog_seconds: Vec<f64>,
    looked: Vec<Moment>,
    monitors: Vec<Monitor>,
    queue: TicketQueue,
    connections: Vec<Key>,
    reader: Key,
    follower: Follower,
    plan: Plan,
    next_request: usize,
    /// Which of them answer errors at once.
    fails: Vec<bool>,
    /// Whether monitors know which tasks are of others.
    tells: bool,
}

impl World {
    /// Hosts of these speeds and CPUs.
    fn new(hosts: &[(f64, f64)], tells: bool, seed: u64) -> World {
        let options = MonitorOptions {
            interval: INTERVAL,
            balancers: 1,
            services: vec![ServiceOptions {
                service: ServiceName::DEFAULT,
                provider: ":80".parse().unwrap(),
                capacity: None,
                check: Some(INTERVAL),
                rise: 1,
                fall: 1,
            }],
            drain_timeout: Span::ZERO,
        };
        let mut random = Random::new(seed);
        let mut keys = Slab::default();
        let mut queue = TicketQueue::new(
            QueueOptions {
                allow_ticket: vec!["0.0.0.0/0".parse().unwrap()],
                ..QueueOptions::default()
            },
            random.bits(),
        );
        let mut connect = |peer: IpAddr, queue: &mut TicketQueue| {
            let connection = keys.insert(());
            let input = ticket_queue::Input::Connected { connection, peer };
            queue.handle_input(input, Moment::ZERO);
            connection
        };
        let reader = connect(Ipv4Addr::LOCALHOST.into(), &mut queue);
        let connections = (0..hosts.len()).map(|number| connect(host(number), &mut queue));
        let connections = connections.collect();
        let mut monitors: Vec<Monitor> = hosts
            .iter()
            .map(|(_, cpus)| Monitor::new(options.clone(), *cpus, random.bits()))
            .collect();
        for monitor in &mut monitors {
            monitor.handle_input(monitor::Input::Up { balancer: 0 }, Moment::ZERO);
        }
        World {
            now: Moment::ZERO,
            random,
            hosts: hosts.iter().map(|(speed, cpus)| Host::new(*cpus, *speed)).collect(),
            hogs: vec![0.0; hosts.len()],
            hog_seconds: vec![0.0; hosts.len()],
            looked: vec![Moment::ZERO; hosts.len()],
            monitors,
            queue,
            connections,
            reader,
            follower: Follower::new(INTERVAL),
            plan: Plan::default(),
            next_request: 0,
            fails: vec![false; hosts.len()],
            tells,
        }
    }

    /// Lets a second pass at so many requests a second; the parts of the weights that
    /// the providers have at its end, 0..=1.
    fn second(&mut self, rate: f64) -> Vec<f64> {
        let end = self.now + Span::from_secs(1);
        let mut arrival = self.now + Span::from_secs_f64(exponential(&mut self.random, 1.0 / rate));
        loop {
            let completions = self.hosts.iter().filter_map(Host::next_completion);
            let timers = self.monitors.iter().filter_map(Monitor::next_timeout);
            let next = completions.chain(timers).min().unwrap_or(end).min(arrival).min(end);
            let passed = next.max(self.now).since(self.now).as_secs_f64();
            for (seconds, hogs) in self.hog_seconds.iter_mut().zip(&self.hogs) {
                *seconds += hogs * passed;
            }
            self.now = next.max(self.now);
            for host in &mut self.hosts {
                host.completed(self.now);
            }
            (0..self.monitors.len()).for_each(|number| self.wake(number));
            if self.now >= end {
                break;
            }
            if self.now >= arrival {
                self.lead();
                arrival = self.now + Span::from_secs_f64(exponential(&mut self.random, 1.0 / rate));
            }
        }
        self.export();
        let weights = self.weights(1_000_000);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        weights.into_iter().map(|weight| f64::from(weight) / sum).collect()
    }

    /// By host: its weight in the plan. One that is not there has none.
    fn weights(&self, most: u32) -> Vec<u32> {
        let mut weights = vec![0; self.hosts.len()];
        for (backend, weight) in self.plan.backends().iter().zip(self.plan.weights(most)) {
            let place = (0..weights.len()).find(|number| backend.provider.ip == host(*number));
            weights[place.expect("a host")] = weight;
        }
        weights
    }

    fn lead(&mut self) {
        let weights = self.weights(1000);
        let mut number = self.random.below(weights.iter().sum::<u32>() as usize) as u32;
        let place = weights.iter().position(|weight| {
            let here = number < *weight;
            number = number.wrapping_sub(if here { 0 } else { *weight });
            here
        });
        let Some(place) = place.filter(|place| !self.fails[*place]) else { return };
        let work = exponential(&mut self.random, WORK);
        self.hosts[place].run(self.next_request, work, self.now);
        self.next_request += 1;
    }

    fn wake(&mut self, number: usize) {
        let now = self.now;
        let monitor = &mut self.monitors[number];
        if monitor.next_timeout().is_some_and(|at| at <= now) {
            monitor.handle_timeout(now);
        }
        while let Some(output) = monitor.poll_output() {
            match output {
                monitor::Output::Check { service } => {
                    let good = !self.fails[number];
                    monitor.handle_input(monitor::Input::Checked { service, good }, now);
                }
                monitor::Output::TakeSample => {
                    let host = &mut self.hosts[number];
                    let seen = host.look(now);
                    let sample = Sample {
                        cpus: host.cpus,
                        utilisation: Some(seen.utilisation),
                        queued: Some(seen.queued),
                        load: None,
                        full: None,
                    };
                    if self.tells {
                        let since = now.since(self.looked[number]).as_secs_f64().max(1e-9);
                        let foreign = self.hog_seconds[number] / since;
                        let runnable = seen.utilisation * host.cpus + seen.queued;
                        let tasks = Tasks { own: (runnable - foreign).max(0.0), foreign };
                        monitor.handle_input(monitor::Input::Tasks(tasks), now);
                    }
                    (self.hog_seconds[number], self.looked[number]) = (0.0, now);
                    monitor.handle_input(monitor::Input::Sampled(sample), now);
                }
                monitor::Output::SendToQueue { request, .. } => {
                    let connection = self.connections[number];
                    let reply = ask(&mut self.queue, connection, request, now);
                    let input = monitor::Input::QueueReply { balancer: 0, service: 0, reply };
                    monitor.handle_input(input, now);
                }
                _ => {}
            }
        }
    }

    fn export(&mut self) {
        let export = Some(self.follower.lease());
        let request = Request::Status { service: None, export };
        let Reply::Status(status) = ask(&mut self.queue, self.reader, request, self.now) else {
            panic!("no status")
        };
        let told = Plan::read(&status, ServiceName::DEFAULT);
        if let Some(change) = self.follower.told(told, self.now) {
            self.plan = change.after;
        }
    }

    /// Its operator drains the provider, or resumes it.
    fn drain(&mut self, number: usize, drained: bool) {
        let (word, time) = if drained { ("drain", "&for=1h") } else { ("resume", "") };
        let line = format!("pegasus://b/{word}?provider={}:80{time}", host(number));
        let request = Request::parse(line.as_bytes()).unwrap();
        ask(&mut self.queue, self.reader, request, self.now);
    }

    fn set_hogs(&mut self, number: usize, hogs: f64) {
        self.hosts[number].set_hogs(hogs, self.now);
        self.hogs[number] = hogs;
    }
}

fn ask(queue: &mut TicketQueue, connection: Key, request: Request, now: Moment) -> Reply {
    queue.handle_timeout(now);
    queue.handle_input(ticket_queue::Input::Request { connection, slot: None, request }, now);
    let mut answer = None;
    while let Some(output) = queue.poll_output() {
        if let ticket_queue::Output::Reply { reply, .. } = output {
            answer = Some(reply);
        }
    }
    answer.expect("an answer")
}

/// Shares are fair within this part of them.
const CLOSE: f64 = 0.15;

/// Parts of what is fair, second by second.
fn watch(world: &mut World, fair: &[f64], rate: f64, seconds: usize) -> Vec<Vec<f64>> {
    let sum: f64 = fair.iter().sum();
    let second = |world: &mut World| -> Vec<f64> {
        let shares = world.second(rate);
        shares.iter().zip(fair).map(|(share, fair)| share / (fair / sum)).collect()
    };
    (0..seconds).map(|_| second(world)).collect()
}

/// Over any five seconds; what single ones bring is noise.
#[track_caller]
fn all_close(what: &str, seconds: &[Vec<f64>]) {
    for five in seconds.windows(5) {
        for provider in 0..five[0].len() {
            let mean = five.iter().map(|parts| parts[provider]).sum::<f64>() / 5.0;
            let close = (mean - 1.0).abs() <= CLOSE;
            assert!(close, "{what}: parts of what is fair, second by second: {seconds:.2?}");
        }
    }
}

#[test]
fn shares_follow_the_speeds_within_ten_intervals_and_do_not_swing() {
    let _replay = Replay(seed(), "lab::engines");
    for hosts in [[(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)], [(1.0, 1.0), (1.0, 2.0), (1.0, 4.0)]] {
        for tells in [true, false] {
            let fair: Vec<f64> = hosts.iter().map(|(speed, cpus)| speed * cpus).collect();
            let mut world = World::new(&hosts, tells, seed());
            // The first one registers all providers, and the clients find them.
            world.second(1.0);
            let rate = fair.iter().sum::<f64>() * 0.5 / WORK;
            watch(&mut world, &fair, rate, 9);
            let seconds = watch(&mut world, &fair, rate, 60);
            all_close(&format!("speeds and CPUs {hosts:?}"), &seconds);
        }
    }
}

#[test]
fn somebody_elses_work_costs_a_share_in_seconds_and_its_end_brings_it_back() {
    let _replay = Replay(seed(), "lab::engines");
    for tells in [true, false] {
        let hosts = [(1.0, 1.0); 3];
        let fair = [1.0; 3];
        let rate = 3.0 * 0.5 / WORK;
        let mut world = World::new(&hosts, tells, seed());
        world.second(1.0);
        watch(&mut world, &fair, rate, 30);
        world.set_hogs(1, 1.0);
        let hurt = watch(&mut world, &fair, rate, 15);
        assert!(hurt[4][1] < 0.85 && hurt[14][1] < 0.7, "it keeps its share: {hurt:.2?}");
        // It has the CPU half of the time and more, and is not given up.
        let least = if tells { 0.3 } else { 0.05 };
        assert!(hurt.iter().all(|parts| parts[1] > least), "nothing is left: {hurt:.2?}");
        world.set_hogs(1, 0.0);
        watch(&mut world, &fair, rate, 20);
        all_close("the work of others is over", &watch(&mut world, &fair, rate, 10));
    }
}

#[test]
fn a_provider_that_joins_begins_as_an_average_one() {
    let _replay = Replay(seed(), "lab::engines");
    let hosts = [(1.0, 16.0); 4];
    let mut world = World::new(&hosts, true, seed());
    let rate = 3.0 * 16.0 * 0.4 / WORK;
    // The last one is not there yet.
    let late = world.monitors.pop().expect("four");
    world.second(1.0);
    (0..20).for_each(|_| drop(world.second(rate)));
    world.monitors.push(late);
    let shares: Vec<f64> = (0..20).map(|_| world.second(rate)[3] / 0.25).collect();
    assert!(shares.iter().all(|part| (0.4..1.3).contains(part)), "{shares:.2?}");
    assert!(shares[9..].iter().all(|part| (part - 1.0).abs() < CLOSE), "{shares:.2?}");
}

#[test]
fn a_provider_that_was_out_comes_back_with_the_share_that_it_had() {
    let _replay = Replay(seed(), "lab::engines");
    for drains in [true, false] {
        let fair = [1.0, 2.0, 4.0];
        let hosts = fair.map(|speed| (speed, 2.0));
        let rate = 14.0 * 0.5 / WORK;
        let mut world = World::new(&hosts, true, seed());
        world.second(1.0);
        watch(&mut world, &fair, rate, 20);
        let out = |world: &mut World, out: bool| match drains {
            true => world.drain(1, out),
            false => world.fails[1] = out,
        };
        out(&mut world, true);
        let gone = watch(&mut world, &fair, rate, 30);
        assert!(gone[3..].iter().all(|parts| parts[1] == 0.0), "it gets clients: {gone:.2?}");
        out(&mut world, false);
        let back = watch(&mut world, &fair, rate, 20);
        // A service that fails at once looks idle until its next check.
        let most = if drains { 1.5 } else { 1.8 };
        assert!(back.iter().all(|parts| parts[1] < most), "it gets them all: {back:.2?}");
        all_close("it is back", &back[10..]);
    }
}
