//! What is to happen, in order of time.
//!
//! Owns the ground that all of a run stand on: clock, agenda, hosts, chance.
//! Decides nothing.

use super::host::Host;
use super::setting::Setting;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Reply;
use pegasus_core::protocol::request::Request;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What can happen. Requests, balancers and providers go by number.
#[derive(Debug)]
pub enum Event {
    /// The next request of the trace comes.
    Arrives,
    /// A request is at its provider.
    Reaches(usize),
    /// It has waited for others, and wants a CPU; of this life of the host.
    Runs(usize, u32),
    /// Something is ready at this provider, if nothing changed since.
    Completes(usize, u64),
    /// The answer is at the balancer.
    Returns(usize),
    /// The connection could not be made.
    Fails(usize),
    /// The connection broke.
    Breaks(usize),
    /// An error was answered, or (false) nothing at all.
    Errs(usize, bool),
    /// A client that stayed leaves.
    Leaves(usize),
    /// The tasks of others begin or end.
    Hogs(usize, bool),
    /// The next misfortune.
    Strikes(usize),
    /// A health check of baselines.
    Checks,
    /// A queue wants to be told the time.
    QueueWakes(usize),
    /// A monitor wants to be told the time.
    MonitorWakes(usize),
    /// A monitor's words reach a queue: balancer, provider.
    Said(usize, usize, Request),
    /// A queue's answer reaches a monitor: balancer, provider.
    Told(usize, usize, usize, Reply),
    /// The books of all queues are compared with ours.
    Audit,
}

struct Due {
    at: Moment,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, as a heap wants it; equals in the order they were set.
impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The clock, agenda, hosts and random numbers of a run.
pub struct Ground<'a> {
    pub setting: &'a Setting,
    pub now: Moment,
    pub hosts: Vec<Host>,
    /// Providers whose monitor is not heard.
    pub unheard: Vec<bool>,
    pub random: Random,
    agenda: BinaryHeap<Due>,
    number: u64,
}

impl<'a> Ground<'a> {
    pub fn new(setting: &'a Setting, seed: u64) -> Ground<'a> {
        Ground {
            setting,
            now: Moment::ZERO,
            hosts: setting.hosts.iter().map(|build| Host::new(build.cpus, build.speed)).collect(),
            unheard: vec![false; setting.hosts.len()],
            random: Random::new(seed),
            agenda: BinaryHeap::new(),
            number: 0,
        }
    }

    pub fn at(&mut self, at: Moment, event: Event) {
        self.number += 1;
        self.agenda.push(Due { at, number: self.number, event });
    }

    pub fn after(&mut self, span: Span, event: Event) {
        self.at(self.now + span, event);
    }

    /// The next event; the clock is set to it.
    pub fn next(&mut self) -> Option<Event> {
        let due = self.agenda.pop()?;
        assert!(due.at >= self.now, "time goes forward");
        self.now = due.at;
        Some(due.event)
    }

    /// A request runs at this provider now.
    pub fn run(&mut self, provider: usize, request: usize, work: f64) {
        self.hosts[provider].run(request, work, self.now);
        self.announce(provider);
    }

    /// Says when something will be ready there; what was said before is void.
    pub fn announce(&mut self, provider: usize) {
        let host = &mut self.hosts[provider];
        host.announced += 1;
        let (number, next) = (host.announced, host.next_completion());
        if let Some(next) = next {
            self.at(next.max(self.now), Event::Completes(provider, number));
        }
    }
}
