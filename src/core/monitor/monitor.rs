//! The monitor of a provider, as a state machine: every interval it samples the load,
//! checks the services and sends offers.
//!
//! Owns the schedule of sampling and checking, what each queue last said, and
//! the tickets that follow from it. Knows no socket and reads no load.

use super::apportion;
use super::capacity::{self, CapacityEstimator, Sample, CAPACITY_PER_SLOT};
use super::health::Health;
use crate::base::address::ProviderSpec;
use crate::base::random::Random;
use crate::base::service_name::ServiceName;
use crate::base::state_machine::StateMachine;
use crate::base::ticket::TICKETS_MAX;
use crate::base::time::{Moment, Span};
use crate::protocol::message::{Feedback, Mode, Reply, Request};
use std::collections::VecDeque;

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
    /// The most slots; none: as many as the host is found to have.
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
}

struct ServiceOffer {
    options: ServiceOptions,
    health: Health,
    next_check: Moment,
    checking: bool,
    /// By balancer.
    balancers: Vec<BalancerState>,
}

/// See the file's head.
pub struct Monitor {
    options: MonitorOptions,
    offers: Vec<ServiceOffer>,
    up: Vec<bool>,
    estimator: CapacityEstimator,
    sample: Option<Sample>,
    /// When that was, and how long a time it is about.
    sampled_at: Moment,
    sampled_over: Span,
    next_sample: Moment,
    /// An offer is due as soon as the sample and the checks are in.
    offers_due: bool,
    /// The sample is still to come.
    sampling: bool,
    draining: Option<Drain>,
    random: Random,
    outputs: VecDeque<Output>,
}

struct Drain {
    until: Moment,
    next_question: Moment,
    asked: bool,
}

impl StateMachine for Monitor {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, input: Input, now: Moment) {
        match input {
            Input::Up { balancer } => {
                self.set_up(balancer, true);
                if self.draining.is_none() && self.sample.is_some() {
                    self.send_offers(Some(balancer));
                }
            }
            Input::Down { balancer } => {
                self.set_up(balancer, false);
                for offer in &mut self.offers {
                    if let Some(state) = offer.balancers.get_mut(balancer) {
                        state.active = 0.0;
                    }
                }
            }
            Input::QueueReply { balancer, service, reply } => {
                self.on_queue_reply(balancer, service, reply, now)
            }
            Input::Sampled(sample) => {
                let active = self.balancer_states().map(|state| state.active).sum();
                let paper = self
                    .balancer_states()
                    .filter(|state| state.mode == Mode::Paper)
                    .map(|state| state.granted as f64)
                    .sum();
                // The answers to the last offer are about the time up to it, so they
                // belong to the look before this one: requests of one time and load
                // of another would add their noises instead of cancelling them.
                let last = self.sample.unwrap_or(sample);
                self.estimator.observe(&last, active, paper, self.sampled_over);
                self.sampled_over =
                    self.sample.map_or(self.options.interval, |_| now.since(self.sampled_at));
                self.sampled_at = now;
                self.sample = Some(sample);
                self.sampling = false;
                self.offer_when_ready();
            }
            Input::Checked { service, good } => self.checked(service, good),
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
            let idle = drain.asked && self.balancer_states().all(|state| state.active == 0.0);
            if over || idle || !self.up.contains(&true) {
                self.outputs.push_back(Output::Finished);
            } else if ask {
                self.send_to_all(|offer| Request::Ticket {
                    provider: offer.provider,
                    service: offer.service,
                    tickets: 0,
                    capacity: 0,
                    lease: None,
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
        checks.chain([self.next_sample]).min()
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
            sampled_at: Moment::ZERO,
            sampled_over: options.interval,
            next_sample: Moment::ZERO,
            offers_due: false,
            sampling: false,
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
        }
    }

    fn balancer_states(&self) -> impl Iterator<Item = &BalancerState> {
        self.offers.iter().flat_map(|offer| &offer.balancers)
    }

    fn set_up(&mut self, balancer: usize, up: bool) {
        if let Some(known) = self.up.get_mut(balancer) {
            *known = up;
        }
    }

    fn checked(&mut self, service: usize, good: bool) {
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
        self.offer_when_ready();
        if turned && !self.offers_due && self.sample.is_some() {
            // Between two offers: a dead service must not wait for the next one.
            self.send_offers(None);
        }
    }

    /// Bids as soon as the look and the checks of this turn are in.
    fn offer_when_ready(&mut self) {
        let due = self.offers_due && !self.sampling;
        if due && self.draining.is_none() && self.offers.iter().all(|offer| !offer.checking) {
            self.offers_due = false;
            self.send_offers(None);
        }
    }

    /// Sends tickets to one queue, or to all.
    fn send_offers(&mut self, only: Option<usize>) {
        for offer in self.offers() {
            if only.is_none_or(|only| only == offer.0) && self.up[offer.0] {
                let (balancer, service, request) = offer;
                self.outputs.push_back(Output::SendToQueue { balancer, service, request });
            }
        }
    }

    /// The ticket messages that are due now: balancer, service, message. A
    /// balancer that is away gets no share, unless all are.
    pub fn offers(&mut self) -> Vec<(usize, usize, Request)> {
        let Some(sample) = self.sample else { return Vec::new() };
        let all_away = !self.up.contains(&true);
        let balancers: Vec<usize> =
            (0..self.up.len()).filter(|balancer| all_away || self.up[*balancer]).collect();
        let lease = self.options.interval.times(LEASE_INTERVALS).max(LEASE_MIN);
        let demand: Vec<f64> = self
            .offers
            .iter()
            .map(|offer| offer.balancers.iter().map(|state| state.demand).sum())
            .collect();
        let host = self.estimator.slots(&sample);
        let mut offers = Vec::new();
        for (number, part) in apportion::shares(&demand).into_iter().enumerate() {
            let offer = &self.offers[number];
            let most = offer.options.capacity.map_or(f64::from(TICKETS_MAX), f64::from);
            let own = match offer.options.capacity {
                // What nobody can measure is what the operator says, as far as the
                // host is spare.
                Some(capacity) if sample.utilisation.is_none() => {
                    f64::from(capacity) * capacity::spare(&sample)
                }
                _ => host * part,
            };
            // A host with less than one slot a service still serves each.
            let slots = if own > 0.0 { own.max(1.0).min(most) } else { 0.0 };
            let full = !offer.health.well() || slots <= 0.0;
            let demand: Vec<f64> =
                balancers.iter().map(|balancer| offer.balancers[*balancer].demand).collect();
            let parts = apportion::shares(&demand);
            let shares: Vec<f64> = parts.iter().map(|part| slots * part).collect();
            let tickets = apportion::round(&shares, &mut self.random);
            for (place, balancer) in balancers.iter().enumerate() {
                let (tickets, capacity) = if full {
                    (0, 0)
                } else if offer.balancers[*balancer].mode == Mode::Paper {
                    let requests = self.estimator.per_interval(&sample, self.options.interval)
                        * part
                        * parts[place];
                    let requests = requests.max(1.0) as u32;
                    (requests, requests)
                } else {
                    (tickets[place], ((CAPACITY_PER_SLOT * shares[place]).round() as u32).max(1))
                };
                let request = Request::Ticket {
                    provider: offer.options.provider,
                    service: offer.options.service,
                    tickets: tickets.min(TICKETS_MAX),
                    capacity: capacity.min(TICKETS_MAX),
                    lease: Some(lease),
                };
                offers.push((*balancer, number, request));
            }
        }
        offers
    }

    fn on_queue_reply(&mut self, balancer: usize, service: usize, reply: Reply, now: Moment) {
        let Some(offer) = self.offers.get_mut(service) else { return };
        let name = offer.options.service;
        let Some(state) = offer.balancers.get_mut(balancer) else { return };
        match reply {
            Reply::Feedback(Feedback { active, granted, waiting, mode }) => {
                let kept = (-now.since(state.replied_at).as_secs_f64()
                    / DEMAND_MEMORY.as_secs_f64())
                .exp();
                state.demand = state.demand * kept + (granted + waiting) as f64;
                (state.active, state.granted, state.mode, state.replied_at) =
                    (active, granted, mode, now);
                state.refused = false;
                if let Some(drain) = &mut self.draining {
                    drain.asked = true;
                    drain.next_question = drain.next_question.min(now + DRAIN_INTERVAL);
                }
            }
            Reply::Error { .. } => {
                if let Some(drain) = &mut self.draining {
                    // It takes no tickets, so it led nobody here.
                    (drain.asked, state.active) = (true, 0.0);
                }
                if !std::mem::replace(&mut state.refused, true) {
                    self.outputs.push_back(Output::Log(MonitorLog::Refused {
                        balancer,
                        service: name,
                        answer: reply.to_string(),
                    }));
                }
            }
            _ => {}
        }
    }

    fn send_to_all(&mut self, request: impl Fn(&ServiceOptions) -> Request) {
        for balancer in (0..self.up.len()).filter(|balancer| self.up[*balancer]) {
            for (service, offer) in self.offers.iter().enumerate() {
                self.outputs.push_back(Output::SendToQueue {
                    balancer,
                    service,
                    request: request(&offer.options),
                });
            }
        }
    }

    fn drain(&mut self, now: Moment) {
        if self.draining.is_none() {
            self.send_to_all(|offer| Request::Withdraw {
                provider: offer.provider,
                service: offer.service,
            });
            self.draining = Some(Drain {
                until: now + self.options.drain_timeout,
                next_question: now,
                asked: false,
            });
            for offer in &mut self.offers {
                for (state, up) in offer.balancers.iter_mut().zip(&self.up) {
                    // Nobody tells what a queue that is away has in progress.
                    state.active = if *up { f64::MAX } else { 0.0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
