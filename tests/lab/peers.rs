//! More of the peers that Pegasus is compared with: exact caps, and balancers that measure.
//!
//! Owns their rules, as published, where the simulation lets them know more than they would:
//! what they ask a host arrives at once, and is right.

use super::baselines::{parts, unused, Baseline, SmoothTurns};
use super::host::Host;
use super::setting::Setting;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use std::collections::VecDeque;

/// Fewest requests of this balancer in progress, and never more than its part of the
/// capacity (`maxconn`); who finds no place waits in the balancer's line.
pub struct MaxConn {
    most: Vec<u32>,
    places: Vec<Vec<(u32, u64)>>,
    chosen: u64,
}

impl MaxConn {
    pub fn new(setting: &Setting, seed: u64) -> MaxConn {
        // A balancer that may send nothing to a provider would be no balancer for it.
        let part = |cpus: f64| (cpus as u32 / setting.balancers as u32).max(1);
        MaxConn {
            most: setting.hosts.iter().map(|build| part(build.cpus)).collect(),
            places: unused(setting, seed),
            chosen: setting.hosts.len() as u64,
        }
    }
}

impl Baseline for MaxConn {
    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let places = &mut self.places[balancer];
        let free = |place: &usize| usable(*place) && places[*place].0 < self.most[*place];
        let best = (0..places.len()).filter(free).min_by_key(|place| places[*place])?;
        self.chosen += 1;
        places[best] = (places[best].0 + 1, self.chosen);
        Some(best)
    }

    fn ended(&mut self, balancer: usize, provider: usize) {
        self.places[balancer][provider].0 -= 1;
    }
}

/// AWS Target Optimizer: each target says when it takes one more, exactly; who finds none
/// that is ready is refused at once.
pub struct Target {
    random: Random,
    free: Vec<u32>,
}

impl Target {
    pub fn new(setting: &Setting, seed: u64) -> Target {
        let free = setting.hosts.iter().map(|build| build.cpus as u32).collect();
        Target { random: Random::new(seed), free }
    }
}

impl Baseline for Target {
    fn choose(&mut self, _: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let places = self.free.iter().enumerate().filter(|(place, _)| usable(*place));
        let all: u32 = places.clone().map(|(_, free)| *free).sum();
        if all == 0 {
            return None;
        }
        let mut number = self.random.below(all as usize) as u32;
        for (place, free) in places {
            if number < *free {
                self.free[place] -= 1;
                return Some(place);
            }
            number -= *free;
        }
        None
    }

    fn ended(&mut self, _: usize, provider: usize) {
        self.free[provider] += 1;
    }

    fn refuses(&self) -> bool {
        true
    }
}

/// Time between two sets of weights, and without any at first (gRFC A58).
const WEIGHTS: Span = Span::from_secs(1);
const BLACKOUT: Span = Span::from_secs(10);

/// Client-side weighted round robin: turns by requests a second over utilisation, as
/// hosts report both.
pub struct Reported {
    ended: Vec<u32>,
    weights: Vec<f64>,
    /// Of their sum.
    parts: Vec<f64>,
    turns: SmoothTurns,
    updated: Moment,
}

impl Reported {
    pub fn new(setting: &Setting, seed: u64) -> Reported {
        let count = setting.hosts.len();
        Reported {
            ended: vec![0; count],
            weights: vec![1.0; count],
            parts: parts(&vec![1.0; count]),
            turns: SmoothTurns::new(setting, seed),
            updated: Moment::ZERO,
        }
    }
}

impl Baseline for Reported {
    fn looks(&mut self, hosts: &mut [Host], _: usize, now: Moment) {
        let since = now.since(self.updated);
        if since < WEIGHTS {
            return;
        }
        self.updated = now;
        let known = now >= Moment::after_start(BLACKOUT);
        for (place, host) in hosts.iter_mut().enumerate() {
            let (busy, ended) = (host.look(now).utilisation, self.ended[place]);
            if known && busy > 0.0 && ended > 0 {
                self.weights[place] = f64::from(ended) / since.as_secs_f64() / busy;
            }
            self.ended[place] = 0;
        }
        if known {
            // Who has no report yet gets the mean of all.
            let all: Vec<f64> = self.weights.iter().copied().filter(|w| *w != 1.0).collect();
            let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
            self.weights.iter_mut().filter(|w| **w == 1.0).for_each(|w| *w = mean.max(1e-9));
            self.parts = parts(&self.weights);
        }
    }

    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.turns.next(balancer, &self.parts, usable)
    }

    fn ended(&mut self, _: usize, provider: usize) {
        self.ended[provider] += 1;
    }
}

/// Prequal (NSDI 2024): probes a request, the size of the pool, how long a probe is good,
/// which part of the requests in flight counts as few.
const PROBES: usize = 3;
const POOL: usize = 16;
const FRESH: Span = Span::from_secs(1);
const FEW: f64 = 0.84;
/// Probes by which that part is judged.
const REMEMBERED: usize = 128;

/// What a host answered to a probe.
#[derive(Clone, Copy)]
struct Probe {
    host: usize,
    in_flight: usize,
    latency: f64,
    at: Moment,
    uses: u32,
}

/// Few requests in flight and then the lowest latency, among hosts probed lately.
pub struct Prequal {
    random: Random,
    mean: f64,
    /// By balancer.
    pools: Vec<VecDeque<Probe>>,
    seen: Vec<VecDeque<usize>>,
    uses: u32,
    hosts: usize,
    worst: bool,
}

impl Prequal {
    pub fn new(setting: &Setting, seed: u64) -> Prequal {
        let hosts = setting.hosts.len();
        // How often a probe may be used: (1 + delta) / ((1 - m/n) probes - removed).
        let rest = (1.0 - POOL as f64 / hosts as f64) * PROBES as f64 - 1.0;
        let uses = if rest > 0.0 { (2.0 / rest).max(1.0) as u32 } else { 8 };
        Prequal {
            random: Random::new(seed),
            mean: setting.mean,
            pools: vec![VecDeque::new(); setting.balancers],
            seen: vec![VecDeque::new(); setting.balancers],
            uses,
            hosts,
            worst: false,
        }
    }

    /// More in flight than this are many.
    fn many(&self, balancer: usize) -> usize {
        let mut seen: Vec<usize> = self.seen[balancer].iter().copied().collect();
        seen.sort_unstable();
        seen.get((seen.len() as f64 * FEW) as usize).copied().unwrap_or(usize::MAX)
    }
}

/// Many in flight last; then by latency, or by their number where there are many.
fn rank(probe: &Probe, many: usize) -> (bool, f64) {
    let hot = probe.in_flight > many;
    (hot, if hot { probe.in_flight as f64 } else { probe.latency })
}

fn order(a: (bool, f64), b: (bool, f64)) -> std::cmp::Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

impl Baseline for Prequal {
    fn looks(&mut self, hosts: &mut [Host], balancer: usize, now: Moment) {
        for _ in 0..PROBES {
            let place = self.random.below(self.hosts);
            let host = &hosts[place];
            if !host.up || host.silent {
                continue;
            }
            let in_flight = host.running();
            let crowd = ((in_flight + 1) as f64 / host.cpus).max(1.0);
            let latency = self.mean * crowd / host.speed;
            let probe = Probe { host: place, in_flight, latency, at: now, uses: self.uses };
            let pool = &mut self.pools[balancer];
            pool.retain(|known| known.host != place);
            pool.push_back(probe);
            if pool.len() > POOL {
                pool.pop_front();
            }
            self.seen[balancer].push_back(in_flight);
            if self.seen[balancer].len() > REMEMBERED {
                self.seen[balancer].pop_front();
            }
        }
        self.pools[balancer].retain(|probe| now.since(probe.at) <= FRESH);
    }

    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let many = self.many(balancer);
        let pool = &mut self.pools[balancer];
        let best = (0..pool.len())
            .filter(|place| usable(pool[*place].host))
            .min_by(|a, b| order(rank(&pool[*a], many), rank(&pool[*b], many)));
        let Some(best) = best else {
            let all: Vec<usize> = (0..self.hosts).filter(|place| usable(*place)).collect();
            return all.get(self.random.below(all.len().max(1))).copied();
        };
        let host = pool[best].host;
        pool[best].in_flight += 1;
        pool[best].uses -= 1;
        if pool[best].uses == 0 {
            pool.remove(best);
        }
        // One probe a request goes: the oldest and the worst in turn.
        self.worst = !self.worst;
        if self.worst && pool.len() > 1 {
            let worst =
                (0..pool.len()).max_by(|a, b| order(rank(&pool[*a], many), rank(&pool[*b], many)));
            worst.and_then(|worst| pool.remove(worst));
        } else if pool.len() > 1 {
            pool.pop_front();
        }
        Some(host)
    }
}
