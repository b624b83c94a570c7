//! The monitor of a provider, as a state machine: every interval it samples the load,
//! checks the services and sends offers.
//!
//! Owns the schedule of sampling and checking, what each queue last said, and
//! the tickets that follow from it. Knows no socket and reads no load.

use super::agent::Standing;
use super::apportion;
use super::capacity::{self, CapacityEstimator, Sample};
use super::engine::{EngineWeight, HostLoad, Tasks};
use super::health::Health;
use super::overload::{Overload, Requests};
use super::strict::Strict;
use crate::base::key_value;
use crate::base::provider::ProviderSpec;
use crate::base::random::Random;
use crate::base::service_name::ServiceName;
use crate::base::state_machine::StateMachine;
use crate::base::ticket::{Weight, TICKETS_MAX};
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{ErrorCode, Feedback, Mode, Progress, Reply};
use crate::protocol::request::Request;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Leases are this many intervals: three proved too short on lossy networks.
const LEASE_INTERVALS: u64 = 5;
/// No lease is shorter.
const LEASE_MIN: Span = Span::from_secs(5);
/// How far each interval is moved at random, so that monitors do not march in step.
const JITTER: f64 = 0.05;
/// How fast old demand is forgotten.
const DEMAND_MEMORY: Span = Span::from_secs(5);
/// How often it asks, while it drains, whether something is in progress still.
const DRAIN_INTERVAL: Span = Span::from_millis(200);
/// Rounds of a strict capacity in an interval, while places may have to move, and while
/// requests wait for them.
const STRICT_ROUNDS: u64 = 10;
const STRICT_ROUNDS_WAITING: u64 = 50;
/// No two rounds are closer.
const STRICT_ROUND_MIN: Span = Span::from_millis(20);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct MonitorOptions {
    /// Between offers.
    pub interval: Span,
    /// How many balancers there are; they are known by number.
    pub balancers: usize,
    /// What is offered.
    pub services: Vec<ServiceOptions>,
    /// How long requests in progress are waited for at the end.
    pub drain_timeout: Span,
}

/// One service on this host.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceOptions {
    /// Its name.
    pub service: ServiceName,
    /// Where it is; what is not given, the queue sees by itself.
    pub provider: ProviderSpec,
    /// The most requests at once, over all balancers together; none: no ceiling
    /// while there is no evidence of overload.
    pub capacity: Option<u32>,
    /// How often it is checked; none: never, it counts as well.
    pub check: Option<Span>,
    /// Good checks to come back.
    pub rise: u32,
    /// Bad checks to leave.
    pub fall: u32,
}

/// What can happen to a monitor. Balancers and services go by their number in
/// the options.
#[derive(Debug)]
pub enum Input {
    /// A queue can be talked to.
    Up {
        /// Which.
        balancer: usize,
    },
    /// A queue is away.
    Down {
        /// Which.
        balancer: usize,
    },
    /// A queue sees this host at this address.
    Seen {
        /// Which.
        balancer: usize,
        /// At which address.
        ip: IpAddr,
    },
    /// A queue answered a message about this service.
    QueueReply {
        /// Which.
        balancer: usize,
        /// About what.
        service: usize,
        /// What.
        reply: Reply,
    },
    /// The load of the host was sampled, as [`Output::TakeSample`] requested.
    Sampled(Sample),
    /// Where an engine leads clients: whose the tasks since the last sample were. Before
    /// [`Input::Sampled`], where that is known.
    Tasks(Tasks),
    /// A service was checked, as [`Output::Check`] wanted.
    Checked {
        /// Which.
        service: usize,
        /// Whether it is well.
        good: bool,
    },
    /// The end: withdraw everywhere, leave when nothing is in progress.
    Drain,
}

/// What a monitor wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Look at the host.
    TakeSample,
    /// Check a service.
    Check {
        /// Which.
        service: usize,
    },
    /// Tell a queue.
    SendToQueue {
        /// Which.
        balancer: usize,
        /// The service that it is about, for the answer.
        service: usize,
        /// What.
        request: Request,
    },
    /// Tell the operator.
    Log(MonitorLog),
    /// All is withdrawn, nothing is in progress or the time is over.
    Finished,
}

/// What an operator may want to read.
#[derive(Clone, PartialEq, Debug)]
pub enum MonitorLog {
    /// A service passed its check, and did not before.
    Healthy(ServiceName),
    /// A service failed its check.
    Unhealthy(ServiceName),
    /// A queue does not take our tickets.
    Refused {
        /// Which.
        balancer: usize,
        /// For this service.
        service: ServiceName,
        /// What it said.
        answer: String,
    },
    /// Another monitor that is alive offers the same provider.
    Contested {
        /// At which queue.
        balancer: usize,
        /// For this service.
        service: ServiceName,
    },
}

/// What one queue said about one service.
#[derive(Clone, Debug, Default)]
struct BalancerState {
    active: f64,
    granted: u64,
    mode: Mode,
    demand: f64,
    replied_at: Moment,
    refused: bool,
    contested: bool,
    /// Where an engine leads the clients.
    engine: EngineWeight,
    /// The weight of the last offer, and whether one was ever answered.
    sent: f64,
    known: bool,
    /// Since the last look: for so long, the sums over it.
    seconds: f64,
    requests: Requests,
    /// Of the look before, for one in which nothing was heard.
    before: Requests,
}

impl BalancerState {
    /// The queue answered a ticket message.
    fn on_queue_reply(&mut self, standing: &Feedback, now: Moment) {
        let over = now.since(self.replied_at).as_secs_f64();
        let (granted, waiting) = (standing.granted as f64, standing.waiting as f64);
        self.demand = self.demand * (-over / DEMAND_MEMORY.as_secs_f64()).exp() + granted + waiting;
        // A queue of the first version does not tell what ended: about what was granted.
        let time = if granted > 0.0 { standing.active * over / granted } else { 0.0 };
        let Progress { now: active, ended, held, usual, .. } =
            standing.progress.unwrap_or(Progress {
                now: standing.active.ceil() as u32,
                ended: standing.granted,
                held: time,
                usual: time,
                queued: 0,
            });
        let (sums, ended) = (&mut self.requests, ended as f64);
        sums.active += standing.active * over;
        sums.now = f64::from(active);
        sums.ended += ended;
        sums.seconds += ended * held;
        sums.logarithms += ended * usual.max(1e-6).ln();
        sums.waiting += waiting;
        self.seconds += over;
        (self.active, self.granted, self.mode, self.replied_at) =
            (standing.active, standing.granted, standing.mode, now);
    }

    /// What was told since the last look, which is now.
    fn take(&mut self) -> Requests {
        if self.seconds > 0.0 {
            let sums = std::mem::take(&mut self.requests);
            self.before = Requests { active: sums.active / self.seconds, ..sums };
            self.seconds = 0.0;
        }
        self.before
    }

    fn away(&mut self) {
        (self.active, self.seconds) = (0.0, 0.0);
        (self.requests, self.before) = (Requests::default(), Requests::default());
    }
}

struct ServiceOffer {
    options: ServiceOptions,
    health: Health,
    next_check: Moment,
    checking: bool,
    /// By balancer.
    balancers: Vec<BalancerState>,
    overload: Overload,
    /// Where the capacity is strict.
    strict: Option<Strict>,
}

impl ServiceOffer {
    /// What its traffic needs of the host, in any unit.
    fn demand(&self) -> f64 {
        self.balancers.iter().map(|state| state.demand + state.active).sum()
    }
}

/// The monitor of a provider, as a state machine.
pub struct Monitor {
    options: MonitorOptions,
    offers: Vec<ServiceOffer>,
    up: Vec<bool>,
    estimator: CapacityEstimator,
    sample: Option<Sample>,
    /// Whose tasks ran since the sample before, where that is known.
    tasks: Option<Tasks>,
    load: HostLoad,
    /// When that was, and how long a time it is about.
    sampled_at: Moment,
    sampled_over: Span,
    next_sample: Moment,
    /// Whether the replies to the last offer were learned from.
    learned: bool,
    /// Replies to the last offer that are still to come.
    owed: usize,
    /// An offer is due as soon as the sample and the checks are in.
    offers_due: bool,
    /// The sample is still to come.
    sampling: bool,
    /// When strict capacities are divided anew, before the next offer.
    next_round: Moment,
    /// At which address each balancer sees this host.
    seen: Vec<Option<IpAddr>>,
    draining: Option<Drain>,
    random: Random,
    outputs: VecDeque<Output>,
}

struct Drain {
    until: Moment,
    next_question: Moment,
    asked: bool,
    /// By balancer: it does not tell its status.
    denied: Vec<bool>,
}

impl StateMachine for Monitor {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Up { balancer } => {
                self.set_up(balancer, true);
                self.stricts().for_each(|strict| strict.up(balancer));
                if self.draining.is_none() && self.sample.is_some() {
                    self.send_offers(Some(balancer), now);
                }
            }
            Input::Down { balancer } => {
                self.set_up(balancer, false);
                let lease = self.lease();
                self.stricts().for_each(|strict| strict.down(balancer, lease, now));
                for offer in &mut self.offers {
                    if let Some(state) = offer.balancers.get_mut(balancer) {
                        state.away();
                    }
                }
            }
            Input::Seen { balancer, ip } => {
                if let Some(seen) = self.seen.get_mut(balancer) {
                    *seen = Some(ip);
                }
            }
            Input::QueueReply { balancer, service, reply } => {
                self.on_reply(balancer, service, reply, now)
            }
            Input::Sampled(sample) => {
                self.sampled(sample, now);
                self.sampling = false;
                self.offer_when_ready(now);
            }
            Input::Tasks(tasks) => self.tasks = Some(tasks),
            Input::Checked { service, good } => self.checked(service, good, now),
            Input::Drain => self.drain(now),
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        if let Some(drain) = &mut self.draining {
            let over = now >= drain.until;
            let ask = now >= drain.next_question;
            if ask {
                drain.next_question = now + DRAIN_INTERVAL;
            }
            let mut accounts = self.offers.iter().flat_map(|offer| &offer.balancers);
            let idle = drain.asked && accounts.all(|state| state.active == 0.0);
            if over || idle || !self.up.contains(&true) {
                self.outputs.push_back(Output::Finished);
            } else if ask {
                let denied = drain.denied.clone();
                self.send_to_all(|balancer, offer| match denied[balancer] {
                    false => Request::Status { service: Some(offer.service), export: None },
                    // From one that has withdrawn it is a question only.
                    true => Request::Ticket {
                        provider: offer.provider,
                        service: offer.service,
                        tickets: 0,
                        capacity: 0,
                        weight: None,
                        lease: None,
                    },
                });
            }
            return;
        }
        for service in 0..self.offers.len() {
            let offer = &mut self.offers[service];
            let Some(every) = offer.options.check else { continue };
            if now >= offer.next_check && !offer.checking {
                offer.checking = true;
                offer.next_check = now + every;
                self.outputs.push_back(Output::Check { service });
            }
        }
        if now >= self.next_sample {
            let interval = self.options.interval.as_secs_f64()
                * (1.0 + JITTER * (2.0 * self.random.unit() - 1.0));
            self.next_sample = now + Span::from_secs_f64(interval);
            // A check that is due with the next look belongs to it.
            for offer in &mut self.offers {
                let close = offer
                    .next_check
                    .since(self.next_sample)
                    .max(self.next_sample.since(offer.next_check));
                if close <= self.options.interval.part(5) {
                    offer.next_check = self.next_sample;
                }
            }
            (self.offers_due, self.sampling) = (true, true);
            self.outputs.push_back(Output::TakeSample);
        }
        if now >= self.next_round {
            self.next_round = Moment::NEVER;
            self.bid_strict(now);
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        if let Some(drain) = &self.draining {
            return Some(drain.until.min(drain.next_question));
        }
        let checks = self
            .offers
            .iter()
            .filter(|offer| offer.options.check.is_some() && !offer.checking)
            .map(|offer| offer.next_check);
        checks.chain([self.next_sample, self.next_round]).min()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

impl Monitor {
    /// A monitor that looks and checks at once. `cpus` is how many this host
    /// may use, `seed` makes its jitter its own.
    pub fn new(options: MonitorOptions, cpus: f64, seed: u64) -> Monitor {
        let mut monitor = Monitor {
            offers: Vec::new(),
            up: vec![false; options.balancers],
            estimator: CapacityEstimator::new(cpus),
            sample: None,
            tasks: None,
            load: HostLoad::default(),
            sampled_at: Moment::ZERO,
            sampled_over: options.interval,
            next_sample: Moment::ZERO,
            learned: false,
            owed: 0,
            offers_due: false,
            sampling: false,
            next_round: Moment::NEVER,
            seen: vec![None; options.balancers],
            draining: None,
            random: Random::new(seed),
            outputs: VecDeque::new(),
            options,
        };
        monitor.offers =
            monitor.options.services.iter().map(|service| monitor.start(service)).collect();
        monitor
    }

    fn start(&self, options: &ServiceOptions) -> ServiceOffer {
        let mut health = Health::new(options.rise, options.fall);
        if options.check.is_none() {
            health.checked(true);
        }
        ServiceOffer {
            options: options.clone(),
            health,
            next_check: Moment::ZERO,
            checking: false,
            balancers: vec![BalancerState::default(); self.options.balancers],
            overload: Overload::default(),
            strict: options
                .capacity
                .map(|most| Strict::new(most, self.options.balancers, self.lease(), Moment::ZERO)),
        }
    }

    /// Other options from now on. What was learned of the host stays, and of
    /// every service that is still offered at the same place. `same_balancers`:
    /// what their queues said stays true.
    pub fn reconfigure(&mut self, options: MonitorOptions, same_balancers: bool, now: Moment) {
        let mut before = std::mem::take(&mut self.offers);
        self.options = options;
        if !same_balancers {
            self.up = vec![false; self.options.balancers];
            self.seen = vec![None; self.options.balancers];
        }
        let lease = self.lease();
        let services = self.options.services.clone();
        for options in services {
            let same = |offer: &ServiceOffer| {
                offer.options.service == options.service
                    && offer.options.provider == options.provider
            };
            let mut offer = self.start(&options);
            offer.strict =
                options.capacity.map(|most| Strict::new(most, self.options.balancers, lease, now));
            if let Some(place) = before.iter().position(same) {
                let known = before.swap_remove(place);
                offer.overload = known.overload;
                if options.check == known.options.check {
                    offer.health = known.health.with(options.rise, options.fall);
                    (offer.next_check, offer.checking) = (known.next_check, false);
                }
                if same_balancers {
                    offer.balancers = known.balancers;
                    if let (Some(most), Some(mut strict)) = (options.capacity, known.strict) {
                        strict.set_most(most);
                        offer.strict = Some(strict);
                    }
                }
            }
            self.offers.push(offer);
        }
        (self.offers_due, self.sampling) = (false, false);
        self.next_sample = now;
    }

    fn lease(&self) -> Span {
        self.options.interval.times(LEASE_INTERVALS).max(LEASE_MIN)
    }

    fn stricts(&mut self) -> impl Iterator<Item = &mut Strict> {
        self.offers.iter_mut().filter_map(|offer| offer.strict.as_mut())
    }

    /// The host was sampled at.
    fn sampled(&mut self, sample: Sample, now: Moment) {
        if !self.learned {
            // Some of the answers to the last offer are missing, or it was the first.
            self.learn(self.sample.unwrap_or(sample));
        }
        self.sampled_over =
            self.sample.map_or(self.options.interval, |_| now.since(self.sampled_at));
        self.sampled_at = now;
        self.sample = Some(sample);
        let load = self.load.look(&sample, self.tasks.take());
        for state in self.offers.iter_mut().flat_map(|offer| &mut offer.balancers) {
            state.engine.look(load);
        }
        (self.learned, self.owed) = (false, 0);
    }

    /// Learns from the answers to the last offer. They are about the time up to it,
    /// so they belong to the look of then: requests of one time and load of another
    /// would add their noises instead of cancelling them.
    fn learn(&mut self, last: Sample) {
        self.learned = true;
        let paper = self
            .balancer_states()
            .filter(|state| state.mode == Mode::Paper)
            .map(|state| state.granted as f64)
            .sum();
        let parts = self.parts();
        let host = self.estimator.slots(&last);
        let mut useful = Some(0.0);
        let mut active = 0.0;
        for (offer, part) in self.offers.iter_mut().zip(parts) {
            let requests = offer.balancers.iter_mut().map(BalancerState::take).fold(
                Requests::default(),
                |sum, more| Requests {
                    active: sum.active + more.active,
                    now: sum.now + more.now,
                    ended: sum.ended + more.ended,
                    seconds: sum.seconds + more.seconds,
                    logarithms: sum.logarithms + more.logarithms,
                    waiting: sum.waiting + more.waiting,
                },
            );
            let slots = (host * part).max(1.0);
            offer.overload.learn(&requests, &last, slots, self.sampled_over);
            active += requests.active;
            useful = match (useful, offer.overload.useful()) {
                (Some(sum), Some(useful)) => Some(sum + useful),
                // A service of which nothing is known yet may need all that it has.
                (sum, None) => sum.map(|sum| sum + requests.active),
                (None, _) => None,
            };
        }
        self.estimator.observe(&last, active, useful, paper, self.sampled_over);
    }

    /// An answer to the last offer is in. When it is the last one, there is something
    /// to learn, and a ceiling that follows from it does not wait for the next offer.
    fn answered(&mut self, now: Moment) {
        self.owed = self.owed.saturating_sub(1);
        let Some(sample) = self.sample.filter(|_| self.owed == 0 && !self.learned) else { return };
        let ceilings = |monitor: &Monitor| {
            monitor.offers.iter().filter(|offer| offer.overload.ceiling(1.0).is_some()).count()
        };
        let before = ceilings(self);
        self.learn(sample);
        if ceilings(self) > before && !self.offers_due {
            self.send_offers(None, now);
        }
    }

    /// The parts of the host's slots that its services get.
    fn parts(&self) -> Vec<f64> {
        apportion::shares(&self.offers.iter().map(ServiceOffer::demand).collect::<Vec<_>>())
    }

    fn balancer_states(&self) -> impl Iterator<Item = &BalancerState> {
        self.offers.iter().flat_map(|offer| &offer.balancers)
    }

    fn set_up(&mut self, balancer: usize, up: bool) {
        if let Some(known) = self.up.get_mut(balancer) {
            *known = up;
        }
    }

    fn checked(&mut self, service: usize, good: bool, now: Moment) {
        let Some(offer) = self.offers.get_mut(service) else { return };
        offer.checking = false;
        let name = offer.options.service;
        let turned = offer.health.checked(good);
        if turned {
            let note = if offer.health.well() {
                MonitorLog::Healthy(name)
            } else {
                MonitorLog::Unhealthy(name)
            };
            self.outputs.push_back(Output::Log(note));
        }
        if self.draining.is_some() {
            return;
        }
        self.offer_when_ready(now);
        if turned && !self.offers_due && self.sample.is_some() {
            // Between two offers: a dead service must not wait for the next one.
            self.send_offers(None, now);
        }
    }

    /// Bids as soon as the look and the checks of this turn are in.
    fn offer_when_ready(&mut self, now: Moment) {
        let due = self.offers_due && !self.sampling;
        if due && self.draining.is_none() && self.offers.iter().all(|offer| !offer.checking) {
            self.offers_due = false;
            self.send_offers(None, now);
        }
    }

    /// Sends tickets to one queue, or to all.
    fn send_offers(&mut self, only: Option<usize>, now: Moment) {
        for (balancer, service, request) in self.offers(now) {
            if only.is_none_or(|only| only == balancer) && self.up[balancer] {
                self.say_offer(balancer, service, request);
                self.owed += usize::from(!self.learned);
            }
        }
    }

    /// Divides strict capacities anew, before the next offer.
    fn bid_strict(&mut self, now: Moment) {
        if self.draining.is_some() || self.sample.is_none() {
            return;
        }
        for (balancer, service, request) in self.offers(now) {
            if self.up[balancer] && self.offers[service].strict.is_some() {
                self.say_offer(balancer, service, request);
            }
        }
    }

    fn say_offer(&mut self, balancer: usize, service: usize, request: Request) {
        if let (Some(strict), Request::Ticket { capacity, .. }) =
            (&mut self.offers[service].strict, &request)
        {
            strict.tell(balancer, *capacity);
        }
        if let Request::Ticket { weight: Some(weight), .. } = &request {
            let sent = f64::from(weight.thousandths()) / 1000.0;
            self.offers[service].balancers[balancer].sent = sent;
        }
        self.outputs.push_back(Output::SendToQueue { balancer, service, request });
    }

    /// The ticket messages that are due now: balancer, service, message. A
    /// balancer that is away gets no share, unless all are.
    pub fn offers(&mut self, now: Moment) -> Vec<(usize, usize, Request)> {
        let Some(sample) = self.sample else { return Vec::new() };
        let all_away = !self.up.contains(&true);
        let balancers: Vec<usize> =
            (0..self.up.len()).filter(|balancer| all_away || self.up[*balancer]).collect();
        let lease = self.lease();
        let host = self.estimator.slots(&sample);
        let mut offers = Vec::new();
        for (number, part) in self.parts().into_iter().enumerate() {
            let offer = &mut self.offers[number];
            let slots = slots_of(&offer.options, host * part, &sample);
            let full = !offer.health.well() || slots <= 0.0;
            let state = |balancer: &usize| &offer.balancers[*balancer];
            let demand: Vec<f64> =
                balancers.iter().map(|balancer| state(balancer).demand).collect();
            let parts = apportion::shares(&demand);
            let shares: Vec<f64> = parts.iter().map(|part| slots * part).collect();
            let tickets = apportion::round(&shares, &mut self.random);
            let active: f64 = balancers.iter().map(|balancer| state(balancer).before.now).sum();
            let ceiling = offer.overload.ceiling(slots);
            let strict = match &mut offer.strict {
                // There is no balancer yet: what would be right.
                Some(strict) if all_away => {
                    vec![(f64::from(strict.most()) / balancers.len() as f64) as u32; self.up.len()]
                }
                Some(strict) => strict.shares(now),
                None => Vec::new(),
            };
            for (place, balancer) in balancers.iter().enumerate() {
                let state = &offer.balancers[*balancer];
                let capacity = match (strict.get(*balancer), ceiling) {
                    (Some(share), _) => *share,
                    (None, None) => TICKETS_MAX,
                    (None, Some(ceiling)) => {
                        let stay = if active > 0.0 { state.before.now / active } else { 0.0 };
                        ((ceiling * parts[place] + offer.overload.staying() * stay).round() as u32)
                            .max(1)
                    }
                };
                let (tickets, capacity) = if state.mode == Mode::Paper {
                    let requests = self.estimator.per_interval(&sample, self.options.interval)
                        * part
                        * parts[place];
                    let requests = (requests.max(1.0) as u32)
                        .min(strict.get(*balancer).map_or(TICKETS_MAX, |share| *share));
                    (requests, requests)
                } else {
                    (tickets[place].min(capacity), capacity)
                };
                let request = Request::Ticket {
                    provider: offer.options.provider,
                    service: offer.options.service,
                    tickets: if full { 0 } else { tickets.min(TICKETS_MAX) },
                    capacity: if full { 0 } else { capacity.min(TICKETS_MAX) },
                    // Without it this is a goodbye.
                    weight: (!full)
                        .then(|| Weight::of(state.engine.weight().unwrap_or(shares[place]))),
                    lease: Some(lease),
                };
                offers.push((*balancer, number, request));
            }
        }
        offers
    }

    /// How a service stands, for an engine that asks; none: that is not known yet.
    pub fn standing(&self, service: usize) -> Option<Standing> {
        let Some(offer) = self.offers.get(service) else { return Some(Standing::Unknown) };
        if self.draining.is_some() {
            return Some(Standing::Drained);
        }
        let sample = self.sample.filter(|_| offer.health.is_known())?;
        if !offer.health.well() {
            return Some(Standing::Failed);
        }
        let slots = self.slots(service, &sample);
        Some(Standing::Serving { slots, capacity: offer.options.capacity })
    }

    fn slots(&self, service: usize, sample: &Sample) -> f64 {
        let part = self.estimator.slots(sample) * self.parts()[service];
        slots_of(&self.offers[service].options, part, sample)
    }

    /// The slots of a service at the last sample, and the mean requests in progress that
    /// the queues told last.
    pub fn use_of_slots(&self, service: usize) -> Option<(f64, f64)> {
        let (offer, sample) = (self.offers.get(service)?, self.sample?);
        let active = offer.balancers.iter().map(|state| state.active).sum();
        Some((self.slots(service, &sample), active))
    }

    fn on_reply(&mut self, balancer: usize, service: usize, reply: Reply, now: Moment) {
        match reply {
            Reply::Feedback(feedback) => self.on_feedback(balancer, service, &feedback, now),
            Reply::Status(status) if self.draining.is_some() => {
                let seen = self.seen.get(balancer).copied().flatten();
                let Some(offer) = self.offers.get_mut(service) else { return };
                let Some(state) = offer.balancers.get_mut(balancer) else { return };
                state.active = in_progress(&status, &offer.options, seen);
                self.drain_answered(now);
            }
            Reply::Error { .. } => self.on_error(balancer, service, &reply, now),
            _ => {}
        }
    }

    fn on_feedback(&mut self, balancer: usize, service: usize, feedback: &Feedback, now: Moment) {
        let Some(offer) = self.offers.get_mut(service) else { return };
        let Some(state) = offer.balancers.get_mut(balancer) else { return };
        state.on_queue_reply(feedback, now);
        state.refused = false;
        let joined = !std::mem::replace(&mut state.known, true);
        let offer_again = state.engine.answered(feedback.share, state.sent, joined);
        let was_contested = std::mem::replace(&mut state.contested, feedback.contested);
        if feedback.contested && !was_contested {
            let service = offer.options.service;
            self.outputs.push_back(Output::Log(MonitorLog::Contested { balancer, service }));
        }
        let now_active =
            feedback.progress.map_or(feedback.active.ceil() as u32, |progress| progress.now);
        if self.draining.is_some() {
            state.active = f64::from(now_active);
            self.drain_answered(now);
            return;
        }
        let demand = state.demand;
        if let Some(strict) = &mut offer.strict {
            let queued = feedback.progress.map_or(0, |progress| progress.queued);
            let waiting = feedback.waiting.saturating_add(queued);
            strict.answered(balancer, now_active, waiting, demand);
            if strict.is_tight() {
                let waits = strict.has_waiting();
                let rounds = if waits { STRICT_ROUNDS_WAITING } else { STRICT_ROUNDS };
                let round = self.options.interval.part(rounds).max(STRICT_ROUND_MIN);
                self.next_round = self.next_round.min(now + round);
            }
        }
        self.answered(now);
        if offer_again && !self.offers_due {
            self.send_offers(Some(balancer), now);
        }
    }

    fn on_error(&mut self, balancer: usize, service: usize, reply: &Reply, now: Moment) {
        let Some(offer) = self.offers.get_mut(service) else { return };
        let Some(state) = offer.balancers.get_mut(balancer) else { return };
        if let Some(strict) = &mut offer.strict {
            strict.refused(balancer);
        }
        if let Some(drain) = &mut self.draining {
            let denied =
                matches!(reply, Reply::Error { error, .. } if error.code == ErrorCode::Denied);
            if denied && !std::mem::replace(&mut drain.denied[balancer], true) {
                drain.next_question = now;
                return;
            }
            // It takes no tickets, so it sent no request here.
            (drain.asked, state.active) = (true, 0.0);
        }
        if !std::mem::replace(&mut state.refused, true) {
            let (service, answer) = (offer.options.service, reply.to_string());
            self.outputs.push_back(Output::Log(MonitorLog::Refused { balancer, service, answer }));
        }
    }

    /// A queue said what is in progress.
    fn drain_answered(&mut self, now: Moment) {
        if let Some(drain) = &mut self.draining {
            drain.asked = true;
            drain.next_question = drain.next_question.min(now + DRAIN_INTERVAL);
        }
    }

    fn send_to_all(&mut self, request: impl Fn(usize, &ServiceOptions) -> Request) {
        for balancer in (0..self.up.len()).filter(|balancer| self.up[*balancer]) {
            for (service, offer) in self.offers.iter().enumerate() {
                self.outputs.push_back(Output::SendToQueue {
                    balancer,
                    service,
                    request: request(balancer, &offer.options),
                });
            }
        }
    }

    fn drain(&mut self, now: Moment) {
        if self.draining.is_none() {
            self.send_to_all(|_, offer| Request::Withdraw {
                provider: offer.provider,
                service: offer.service,
            });
            let denied = vec![false; self.up.len()];
            let until = now + self.options.drain_timeout;
            self.draining = Some(Drain { until, next_question: now, asked: false, denied });
            for offer in &mut self.offers {
                for (state, up) in offer.balancers.iter_mut().zip(&self.up) {
                    // What a queue that is away has in progress is not known.
                    state.active = if *up { f64::MAX } else { 0.0 };
                }
            }
        }
    }
}

/// The slots of a service whose part of the host's slots is `part`.
fn slots_of(options: &ServiceOptions, part: f64, sample: &Sample) -> f64 {
    let most = options.capacity.map_or(f64::from(TICKETS_MAX), f64::from);
    let own = match options.capacity {
        // What cannot be measured is what the operator says, as far as the host is spare.
        Some(capacity) if sample.utilisation.is_none() => {
            f64::from(capacity) * capacity::spare(sample)
        }
        _ => part,
    };
    // A host with less than one slot a service still serves each.
    if own > 0.0 {
        own.max(1.0).min(most)
    } else {
        0.0
    }
}

/// Requests in progress of this service here, as a queue's status tells; none
/// where another monitor offers it already, for then nothing is about to end.
fn in_progress(status: &str, options: &ServiceOptions, seen: Option<IpAddr>) -> f64 {
    let ours = |line: &&str| {
        let address = key_value::find(line, "address").and_then(|text| text.parse().ok());
        let wanted =
            seen.or(options.provider.ip).map_or(address, |ip| Some(options.provider.resolve(ip)));
        line.starts_with("provider ") && address.is_some() && address == wanted
    };
    let number =
        |line, key| key_value::find(line, key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let lines = status.lines().filter(ours);
    lines.filter(|line| number(line, "capacity") == 0.0).map(|line| number(line, "active")).sum()
}

#[cfg(test)]
mod tests;
