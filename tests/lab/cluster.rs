//! The product under test: real queues and real monitors, no sockets.
//!
//! Owns the hand of each host: it carries inputs in and outputs out, over a
//! network with delay and loss. Changes nothing of what they say.

use super::agenda::{Event, Ground};
use super::ledger::Ledger;
use crate::reference_model::Ask;
use pegasus_core::base::provider::{Provider, ProviderSpec};
use pegasus_core::base::sample::Sample;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::{Key, Slab};
use pegasus_core::base::state_machine::StateMachine as _;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::monitor::monitor::{self, Monitor, MonitorOptions, ServiceOptions};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::{Next, Request, RequestResult};
use pegasus_core::queue::ticket_queue::{self, QueueOptions, TicketQueue};
use std::net::{IpAddr, Ipv4Addr};

/// Between comparisons of the queues' books with ours.
pub const AUDIT: Span = Span::from_secs(1);
pub const PORT: u16 = 80;
/// Where the redirectors are.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn address(provider: usize) -> IpAddr {
    IpAddr::from([10, 1, (provider >> 8) as u8, provider as u8])
}

fn number_of(ip: IpAddr) -> usize {
    let IpAddr::V4(ip) = ip else { panic!("{ip}") };
    let octets = Ipv4Addr::octets(&ip);
    usize::from(octets[2]) << 8 | usize::from(octets[3])
}

struct Queue {
    host: TicketQueue,
    /// The redirector's connection, then one for each monitor.
    connections: Vec<Key>,
    /// When it will be told the time next.
    wakes: Moment,
}

/// Real queues and monitors, joined by a network with delay and loss.
pub struct Cluster {
    services: Vec<ServiceName>,
    queues: Vec<Queue>,
    monitors: Vec<Monitor>,
    monitor_wakes: Vec<Moment>,
    pub ledger: Ledger,
    /// Answers to requests since they were last asked for.
    pub answers: Vec<(usize, Option<usize>)>,
    /// Ticket messages sent.
    pub messages: u64,
}

impl Cluster {
    pub fn new(scheduler: &str, ground: &mut Ground) -> Cluster {
        let setting = ground.setting;
        let name = |number| format!("service-{number}").parse().expect("a service");
        let services: Vec<ServiceName> = (0..setting.services).map(name).collect();
        let providers = setting.hosts.len();
        let open = vec!["0.0.0.0/0".parse().expect("a network")];
        let options = QueueOptions {
            scheduler: scheduler.parse().expect("a scheduler"),
            allow_ticket: open.clone(),
            allow_next: open.clone(),
            allow_status: open,
            providers_max: QueueOptions::default().providers_max.max(providers),
            ..QueueOptions::default()
        };
        let queue = |balancer: usize| {
            let mut keys = Slab::default();
            let connections: Vec<Key> = (0..=providers).map(|_| keys.insert(())).collect();
            let mut host = TicketQueue::new(options.clone(), balancer as u64);
            for (place, connection) in connections.iter().enumerate() {
                let peer = if place == 0 { PEER } else { address(place - 1) };
                host.handle_input(
                    ticket_queue::Input::Connected { connection: *connection, peer },
                    Moment::ZERO,
                );
            }
            Queue { host, connections, wakes: Moment::NEVER }
        };
        let offered = |service: &ServiceName| ServiceOptions {
            service: *service,
            provider: ProviderSpec { ip: None, port: Some(PORT) },
            capacity: None,
            check: Some(setting.interval),
            rise: 2,
            fall: 1,
        };
        let balancers = setting.balancers;
        let options = MonitorOptions {
            interval: setting.interval,
            balancers,
            services: services.iter().map(offered).collect(),
            drain_timeout: Span::from_secs(10),
        };
        let mut monitors = Vec::new();
        for (provider, build) in setting.hosts.iter().enumerate() {
            let mut options = options.clone();
            if setting.strict {
                let most = Some(build.cpus as u32);
                options.services.iter_mut().for_each(|service| service.capacity = most);
            }
            let mut monitor = Monitor::new(options, build.cpus, ground.random.bits());
            (0..balancers).for_each(|balancer| {
                monitor.handle_input(monitor::Input::Up { balancer }, Moment::ZERO)
            });
            monitors.push(monitor);
            // They do not all start at once, but each offers as soon as it does.
            let start = setting.interval.as_secs_f64().min(1.0);
            let start = Span::from_secs_f64(start * ground.random.unit());
            ground.after(start, Event::MonitorWakes(provider));
        }
        ground.after(AUDIT, Event::Audit);
        Cluster {
            queues: (0..balancers).map(queue).collect(),
            monitor_wakes: vec![Moment::NEVER; providers],
            monitors,
            ledger: Ledger::new(services.clone(), balancers, providers, setting.paper),
            services,
            answers: Vec::new(),
            messages: 0,
        }
    }

    fn ask(
        &mut self,
        balancer: usize,
        connection: usize,
        order: Option<u64>,
        request: Request,
        ground: &mut Ground,
    ) {
        let connection = self.queues[balancer].connections[connection];
        let input = ticket_queue::Input::Request { connection, slot: order, request };
        self.queues[balancer].host.handle_input(input, ground.now);
        self.heed_queue(balancer, ground);
    }

    /// A request wants a provider.
    pub fn next(
        &mut self,
        (balancer, service): (usize, usize),
        request: usize,
        client: IpAddr,
        avoid: &[usize],
        ground: &mut Ground,
    ) {
        let provider = |number: &usize| Provider { ip: address(*number), port: Some(PORT) };
        let avoid: Vec<Provider> = avoid.iter().map(provider).collect();
        let ask = Ask {
            service: self.services[service],
            asker: PEER,
            counted: !ground.setting.paper,
            avoid: avoid.clone(),
            since: ground.now,
            wait: ground.setting.wait,
        };
        self.ledger.asked(request, ask);
        let next = Request::Next(Next {
            service: self.services[service],
            wait: ground.setting.wait,
            id: (!ground.setting.paper).then_some(request as u32 + 1),
            client: Some(client),
            avoid,
        });
        self.ask(balancer, 0, ground.setting.paper.then_some(request as u64), next, ground);
    }

    /// A request ended.
    pub fn done(
        &mut self,
        (balancer, service): (usize, usize),
        request: usize,
        provider: usize,
        result: RequestResult,
        ground: &mut Ground,
    ) {
        if !ground.setting.paper {
            let connection = self.queues[balancer].connections[0];
            let at = (connection, provider, service);
            self.ledger.ended(balancer, at, request, result, ground.now);
            self.ask(
                balancer,
                0,
                Some(0),
                Request::Done { id: request as u32 + 1, result },
                ground,
            );
        }
    }

    /// A request's provider cannot be reached.
    pub fn failed(
        &mut self,
        (balancer, service): (usize, usize),
        request: usize,
        provider: usize,
        ground: &mut Ground,
    ) {
        let id = (!ground.setting.paper).then_some(request as u32 + 1);
        let at = (self.queues[balancer].connections[0], provider, service);
        self.ledger.failed(balancer, at, PEER, request, ground.now);
        let provider = ProviderSpec { ip: Some(address(provider)), port: Some(PORT) };
        self.ask(
            balancer,
            0,
            Some(0),
            Request::Failure { provider, service: self.services[service], id },
            ground,
        );
    }

    /// A monitor's words reach a queue.
    pub fn said(
        &mut self,
        balancer: usize,
        provider: usize,
        request: Request,
        ground: &mut Ground,
    ) {
        let connection = self.queues[balancer].connections[provider + 1];
        self.ledger.offered(balancer, connection, provider, &request, ground.now);
        let Request::Ticket { service, .. } = &request else { return };
        let service = self.services.iter().position(|known| known == service);
        // Its place in the order of answers tells what an answer is about.
        let order = service.map(|number| number as u64);
        self.ask(balancer, provider + 1, order, request, ground);
    }

    /// A queue's answer reaches a monitor.
    pub fn told(
        &mut self,
        balancer: usize,
        (provider, service): (usize, usize),
        reply: Reply,
        ground: &mut Ground,
    ) {
        self.monitors[provider]
            .handle_input(monitor::Input::QueueReply { balancer, service, reply }, ground.now);
        self.heed_monitor(provider, ground);
    }

    /// The time it is, for a queue.
    pub fn wake_queue(&mut self, balancer: usize, ground: &mut Ground) {
        let queue = &mut self.queues[balancer];
        if ground.now < queue.wakes {
            return;
        }
        queue.wakes = Moment::NEVER;
        queue.host.handle_timeout(ground.now);
        self.ledger.passed(balancer, ground.now);
        self.heed_queue(balancer, ground);
    }

    /// The time it is, for a monitor.
    pub fn wake_monitor(&mut self, provider: usize, ground: &mut Ground) {
        if self.monitors[provider].next_timeout().is_some_and(|deadline| deadline <= ground.now) {
            self.monitors[provider].handle_timeout(ground.now);
        }
        self.heed_monitor(provider, ground);
    }

    fn heed_queue(&mut self, balancer: usize, ground: &mut Ground) {
        let connections = &self.queues[balancer].connections;
        let first = connections[0];
        let mut answers = Vec::new();
        while let Some(output) = self.queues[balancer].host.poll_output() {
            let ticket_queue::Output::Reply { connection, slot: order, reply } = output else {
                continue;
            };
            match reply {
                Reply::Provider { provider, id } if connection == first => {
                    let request =
                        id.map_or_else(|| order.expect("an order") as usize, |id| id as usize - 1);
                    answers.push((request, Some(number_of(provider.ip))));
                }
                Reply::Error { error: refusal, id } => {
                    assert_eq!(connection, first, "a monitor was refused: {refusal:?}");
                    let request =
                        id.map_or_else(|| order.expect("an order") as usize, |id| id as usize - 1);
                    answers.push((request, None));
                }
                Reply::Feedback(_) => {
                    let provider = connection.index() - 1;
                    let service = order.expect("an order") as usize;
                    self.send(provider, Event::Told(balancer, provider, service, reply), ground);
                }
                _ => {}
            }
        }
        for (request, provider) in &answers {
            match provider {
                Some(provider) => {
                    self.ledger.granted(balancer, first, *request, *provider, ground.now);
                }
                None => self.ledger.refused(*request, ground.now),
            }
        }
        self.answers.extend(answers);
        let queue = &mut self.queues[balancer];
        if let Some(deadline) = queue.host.next_timeout().filter(|deadline| *deadline < queue.wakes)
        {
            queue.wakes = deadline;
            ground.at(deadline.max(ground.now), Event::QueueWakes(balancer));
        }
    }

    /// Between a monitor and a queue messages may be lost.
    fn send(&self, provider: usize, message: Event, ground: &mut Ground) {
        let lost = ground.random.unit() < ground.setting.loss;
        if !lost && !ground.unheard[provider] && !ground.hosts[provider].silent {
            ground.after(ground.setting.delay, message);
        }
    }

    fn heed_monitor(&mut self, provider: usize, ground: &mut Ground) {
        let now = ground.now;
        let mut said = Vec::new();
        while let Some(output) = self.monitors[provider].poll_output() {
            let input = match output {
                monitor::Output::TakeSample => {
                    monitor::Input::Sampled(self.sample(provider, ground))
                }
                monitor::Output::Check { service } => {
                    let host = &ground.hosts[provider];
                    monitor::Input::Checked { service, good: host.up && !host.unfit }
                }
                monitor::Output::SendToQueue { balancer, request, .. } => {
                    said.push((balancer, request));
                    continue;
                }
                monitor::Output::Log(_) | monitor::Output::Finished => continue,
            };
            self.monitors[provider].handle_input(input, now);
        }
        for service in 0..self.services.len() {
            let name = self.services[service];
            let about = |request: &&Request| {
                matches!(request,
                    Request::Ticket { service, .. } if *service == name)
            };
            let messages: Vec<&Request> =
                said.iter().map(|(_, request)| request).filter(about).collect();
            if messages.len() == self.queues.len() {
                self.ledger.bid(provider, service, &messages, now);
            }
        }
        for (balancer, request) in said {
            self.messages += 1;
            self.send(provider, Event::Said(balancer, provider, request), ground);
        }
        if let Some(deadline) =
            self.monitors[provider].next_timeout().filter(|at| *at != self.monitor_wakes[provider])
        {
            self.monitor_wakes[provider] = deadline;
            ground.at(deadline.max(now), Event::MonitorWakes(provider));
        }
    }

    /// A look at the host, as wrong as the setting wants it.
    fn sample(&self, provider: usize, ground: &mut Ground) -> Sample {
        let (seen, cpus) = (ground.hosts[provider].look(ground.now), ground.hosts[provider].cpus);
        if ground.setting.load_average {
            return Sample {
                cpus,
                utilisation: None,
                queued: None,
                load: Some(seen.load),
                full: None,
            };
        }
        let noise = ground.setting.noise;
        let mut wrong = |value: f64| value * (1.0 + noise * (2.0 * ground.random.unit() - 1.0));
        let (utilisation, queued) = (wrong(seen.utilisation).min(1.0), wrong(seen.queued));
        Sample {
            cpus,
            utilisation: Some(utilisation),
            queued: Some(queued),
            load: None,
            full: None,
        }
    }

    /// Compares the books of all queues with ours.
    pub fn audit(&mut self, ground: &mut Ground) {
        for (balancer, queue) in self.queues.iter_mut().enumerate() {
            let request = Request::Status { service: None, export: None };
            let input = ticket_queue::Input::Request {
                connection: queue.connections[0],
                slot: Some(0),
                request,
            };
            queue.host.handle_input(input, ground.now);
            match queue.host.poll_output() {
                Some(ticket_queue::Output::Reply { reply: Reply::Status(status), .. }) => {
                    self.ledger.audit(balancer, &status, ground.now);
                }
                other => panic!("{other:?}"),
            }
        }
        ground.after(AUDIT, Event::Audit);
    }
}
