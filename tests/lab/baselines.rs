//! Those whom Pegasus is compared with, by their rules and not their programs.
//!
//! Owns their choice among providers. Each balancer knows its own counts only,
//! except for the ideal, which knows all at once.

use super::host::Host;
use super::setting::Setting;
use pegasus_core::base::random::Random;
use pegasus_core::base::time::Moment;

/// Chooses a provider for each request.
pub trait Baseline {
    /// For a request at this balancer; only a usable one. None: wait until
    /// another request ends.
    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize>;

    /// What it sees of the hosts when a request comes to this balancer.
    fn looks(&mut self, _hosts: &mut [Host], _balancer: usize, _now: Moment) {}

    /// Whether who finds no provider is refused at once.
    fn refuses(&self) -> bool {
        false
    }

    /// A request ended.
    fn ended(&mut self, _balancer: usize, _provider: usize) {}
}

/// Any of them.
pub struct Chance {
    random: Random,
    providers: usize,
}

impl Chance {
    pub fn new(setting: &Setting, seed: u64) -> Chance {
        Chance { random: Random::new(seed), providers: setting.hosts.len() }
    }
}

impl Baseline for Chance {
    fn choose(&mut self, _: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.providers).filter(|provider| usable(*provider)).collect();
        all.get(self.random.below(all.len())).copied()
    }
}

/// Smooth turns in proportion to weights, as a part of them all. Each balancer begins at a
/// random place of the circle, at which it finds the providers in an order of its own: those
/// that all began at one would lead their clients to the same providers at the same time.
pub struct SmoothTurns(Vec<Vec<f64>>);

impl SmoothTurns {
    pub fn new(setting: &Setting, seed: u64) -> SmoothTurns {
        let mut random = Random::new(seed);
        let mut start = || setting.hosts.iter().map(|_| random.unit()).collect();
        SmoothTurns((0..setting.balancers).map(|_| start()).collect())
    }

    /// Whose turn it is at this balancer, by weights whose sum is about 1.
    pub fn next(
        &mut self,
        balancer: usize,
        weights: &[f64],
        usable: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let credit = &mut self.0[balancer];
        let (mut total, mut best) = (0.0, None);
        for provider in (0..credit.len()).filter(|provider| usable(*provider)) {
            credit[provider] += weights[provider];
            total += weights[provider];
            if best.is_none_or(|best: usize| credit[provider] > credit[best]) {
                best = Some(provider);
            }
        }
        credit[best?] -= total;
        best
    }
}

/// Parts of their sum.
pub fn parts(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Cores times speed.
fn true_weights(setting: &Setting) -> Vec<f64> {
    setting.hosts.iter().map(|build| build.cpus * build.speed).collect()
}

/// Smooth turns by weights that do not change.
pub struct Turns {
    weights: Vec<f64>,
    turns: SmoothTurns,
}

impl Turns {
    /// Everybody the same.
    pub fn plain(setting: &Setting, seed: u64) -> Turns {
        let weights = parts(&vec![1.0; setting.hosts.len()]);
        Turns { weights, turns: SmoothTurns::new(setting, seed) }
    }

    /// The weights that a careful operator would configure.
    pub fn weighted(setting: &Setting, seed: u64) -> Turns {
        Turns { weights: parts(&true_weights(setting)), turns: SmoothTurns::new(setting, seed) }
    }
}

impl Baseline for Turns {
    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        self.turns.next(balancer, &self.weights, usable)
    }
}

/// By balancer and provider: requests in progress, and when it was chosen last. At first
/// each balancer has them in a random order.
pub fn unused(setting: &Setting, seed: u64) -> Vec<Vec<(u32, u64)>> {
    let mut random = Random::new(seed);
    let count = setting.hosts.len();
    let shuffled = |_| {
        let mut places: Vec<(u32, u64)> = (0..count as u64).map(|turn| (0, turn)).collect();
        (1..count).rev().for_each(|last| places.swap(last, random.below(last + 1)));
        places
    };
    (0..setting.balancers).map(shuffled).collect()
}

/// Fewest requests of this balancer in progress for each unit of weight, with the one that
/// is to come; equals take turns.
pub struct LeastConn {
    weights: Vec<f64>,
    /// Requests in progress and when it was chosen last, by balancer.
    places: Vec<Vec<(u32, u64)>>,
    chosen: u64,
}

impl LeastConn {
    pub fn new(setting: &Setting, seed: u64) -> LeastConn {
        LeastConn {
            weights: vec![1.0; setting.hosts.len()],
            places: unused(setting, seed),
            chosen: setting.hosts.len() as u64,
        }
    }

    /// With the weights that a careful operator would configure.
    pub fn weighted(setting: &Setting, seed: u64) -> LeastConn {
        LeastConn { weights: true_weights(setting), ..LeastConn::new(setting, seed) }
    }
}

impl Baseline for LeastConn {
    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let (places, weights) = (&mut self.places[balancer], &self.weights);
        let mut best: Option<(usize, f64)> = None;
        for provider in (0..places.len()).filter(|provider| usable(*provider)) {
            let load = f64::from(places[provider].0 + 1) / weights[provider];
            let lower = |(other, lowest): (usize, f64)| {
                (load, places[provider].1) < (lowest, places[other].1)
            };
            if best.is_none_or(lower) {
                best = Some((provider, load));
            }
        }
        let (best, _) = best?;
        self.chosen += 1;
        places[best] = (places[best].0 + 1, self.chosen);
        Some(best)
    }

    fn ended(&mut self, balancer: usize, provider: usize) {
        self.places[balancer][provider].0 -= 1;
    }
}

/// Two of them by chance, then the one with fewer requests in progress.
pub struct TwoChoices {
    random: Random,
    active: Vec<Vec<u32>>,
}

impl TwoChoices {
    pub fn new(setting: &Setting, seed: u64) -> TwoChoices {
        TwoChoices {
            random: Random::new(seed),
            active: vec![vec![0; setting.hosts.len()]; setting.balancers],
        }
    }
}

impl Baseline for TwoChoices {
    fn choose(&mut self, balancer: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let active = &mut self.active[balancer];
        let mut all: Vec<usize> = (0..active.len()).filter(|provider| usable(*provider)).collect();
        if all.is_empty() {
            return None;
        }
        let first = all.swap_remove(self.random.below(all.len()));
        let second = all.get(self.random.below(all.len())).copied().unwrap_or(first);
        let best = if active[second] < active[first] { second } else { first };
        active[best] += 1;
        Some(best)
    }

    fn ended(&mut self, balancer: usize, provider: usize) {
        self.active[balancer][provider] -= 1;
    }
}

/// The ideal: one queue in front of all slots, the quickest idle one first.
/// It knows everything at once.
pub struct Central {
    slots: Vec<(f64, f64)>,
    active: Vec<f64>,
}

impl Central {
    pub fn new(setting: &Setting) -> Central {
        let slots = setting.hosts.iter().map(|build| (build.speed, setting.slots(build))).collect();
        Central { slots, active: vec![0.0; setting.hosts.len()] }
    }
}

impl Baseline for Central {
    fn choose(&mut self, _: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let idle = |provider: &usize| {
            usable(*provider) && self.active[*provider] + 1.0 <= self.slots[*provider].1
        };
        let key = |provider: usize| {
            (self.slots[provider].0, 1.0 - self.active[provider] / self.slots[provider].1)
        };
        let best = (0..self.slots.len())
            .filter(idle)
            .max_by(|a, b| key(*a).partial_cmp(&key(*b)).expect("numbers"))?;
        self.active[best] += 1.0;
        Some(best)
    }

    fn ended(&mut self, _: usize, provider: usize) {
        self.active[provider] -= 1.0;
    }
}
