//! The settings of the laboratory: hosts, balancers, traffic, misfortunes.
//!
//! Owns the description of each scenario and the arrivals that a seed gives
//! it. Runs nothing.

use pegasus_core::base::random::Random;
use pegasus_core::base::time::{Moment, Span};
use std::net::IpAddr;

/// A host to be built.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub cpus: f64,
    pub speed: f64,
    /// Tasks of others, on and off for ten seconds on average.
    pub hogs: f64,
}

impl Build {
    /// CPUs times speed, less what others take of it while they are there, which
    /// is so much of the time.
    fn left(&self, there: f64) -> f64 {
        self.cpus * self.speed * (1.0 - there * self.hogs / (self.hogs + self.cpus))
    }
}

/// What may happen to a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfortune {
    /// The service dies: connections are refused, requests in progress lost.
    Dies,
    /// The host hears and says nothing, requests in progress are lost.
    FallsSilent,
    /// Its monitor is not heard any more; the service goes on.
    TicketsStop,
    /// It answers every request with an error, after a millisecond.
    AnswersErrors,
    /// It takes connections and ends them after a millisecond, without a byte.
    EndsAtOnce,
    /// Its disk: requests take so many times as long, without using a CPU.
    Drags(u32),
    /// So many percent of its requests are never answered.
    Hangs(u32),
    /// Its check fails, though it serves: it is to get no more requests.
    FailsItsCheck,
    /// So many tasks of others come, or with 0 they all go.
    Hogs(u32),
    /// It is back, with cold caches: so many times slower.
    Cold(u32),
    /// Its caches are warm.
    Warm,
    /// All is well again.
    Recovers,
}

/// How traffic comes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Traffic {
    Steady,
    /// Up and down between these parts of the mean, in so many seconds.
    Waves(f64, f64, f64),
    /// So many times as much for so many seconds of every so many; the mean of
    /// all is as configured.
    Bursts(f64, f64, f64),
}

impl Traffic {
    /// After so many seconds it repeats itself.
    fn period(self) -> f64 {
        match self {
            Traffic::Steady => 0.0,
            Traffic::Waves(_, _, period) | Traffic::Bursts(_, _, period) => period,
        }
    }

    /// Parts of the mean at a time, and the most.
    fn part(self, seconds: f64) -> (f64, f64) {
        match self {
            Traffic::Steady => (1.0, 1.0),
            Traffic::Waves(low, high, period) => {
                let wave = 0.5 - 0.5 * (seconds / period * std::f64::consts::TAU).cos();
                (low + (high - low) * wave, high)
            }
            Traffic::Bursts(factor, on, every) => {
                let calm = every / (factor * on + every - on);
                (if seconds % every < on { factor * calm } else { calm }, factor * calm)
            }
        }
    }
}

/// How often a provider is checked, bad ones in a row that end it, good ones that bring
/// it back.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    pub every: Span,
    pub fall: u32,
    pub rise: u32,
}

/// Everything about a run but who balances.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    pub hosts: Vec<Build>,
    pub balancers: usize,
    /// Part of the capacity of all hosts, on average, that the traffic needs.
    pub rho: f64,
    /// Mean CPU time of a request at speed 1, in seconds.
    pub mean: f64,
    /// Time that a request waits for others, in parts of that CPU time.
    pub io: f64,
    /// Work is spread as Pareto's, with this exponent, over four decades.
    pub pareto: Option<f64>,
    pub traffic: Traffic,
    /// Services on all hosts, with the same share of the traffic; their waves have
    /// their peaks one after the other.
    pub services: usize,
    /// So many of the clients stay connected for so long after they were served.
    pub stays: Option<(f64, Span)>,
    /// Tasks of others are always there.
    pub always_hogs: bool,
    /// All traffic comes to the first balancer.
    pub one_sided: bool,
    /// Between any two hosts, one way.
    pub delay: Span,
    /// Part of the ticket messages that is lost.
    pub loss: f64,
    /// How wrong load readings may be.
    pub noise: f64,
    pub interval: Span,
    /// How long a request waits for a ticket.
    pub wait: Span,
    /// Requests are not counted (`next` without `id`).
    pub paper: bool,
    /// A provider takes as many requests at once as it has CPUs, and never more.
    pub strict: bool,
    /// Health checks of peers.
    pub checks: Checks,
    /// Peers that balance HTTP repeat a request elsewhere that was answered with an error.
    pub repeats: bool,
    /// The monitors only have a load average.
    pub load_average: bool,
    /// When what happens to which provider.
    pub misfortunes: Vec<(Moment, usize, Misfortune)>,
    /// An answer within this time is a good one.
    pub good: Span,
    /// Traffic runs so long, the first part of it is not measured.
    pub length: Span,
    pub warm: Span,
}

/// A request to come.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Moment,
    pub service: usize,
    pub balancer: usize,
    /// CPU time at speed 1, in seconds.
    pub work: f64,
    pub client: IpAddr,
    /// How long the client stays when it was served.
    pub stays: Span,
}

fn seconds(seconds: u64) -> Moment {
    Moment::after_start(Span::from_secs(seconds))
}

fn same(count: usize) -> Vec<Build> {
    vec![Build { cpus: 4.0, speed: 1.0, hogs: 0.0 }; count]
}

/// A third of each speed.
pub fn speeds(count: usize) -> Vec<Build> {
    (0..count)
        .map(|place| Build { cpus: 4.0, speed: [1.0, 2.0, 4.0][place % 3], hogs: 0.0 })
        .collect()
}

fn cores() -> Vec<Build> {
    (0..12)
        .map(|place| Build { cpus: [1.0, 2.0, 4.0, 8.0][place % 4], speed: 1.0, hogs: 0.0 })
        .collect()
}

fn antagonists() -> Vec<Build> {
    (0..12).map(|place| Build { cpus: 4.0, speed: 1.0, hogs: [4.0, 0.0][place % 2] }).collect()
}

fn busy(hogs: f64) -> Vec<Build> {
    vec![Build { cpus: 4.0, speed: 1.0, hogs }; 6]
}

/// One provider, on and off.
fn flapping(
    what: Misfortune,
    ill: u64,
    every: u64,
    until: u64,
) -> Vec<(Moment, usize, Misfortune)> {
    let starts = (20..until).step_by(every as usize);
    starts
        .flat_map(|start| {
            [(seconds(start), 0, what), (seconds(start + ill), 0, Misfortune::Recovers)]
        })
        .collect()
}

impl Setting {
    /// Twelve hosts of four CPUs, requests of 50 ms, one balancer.
    pub fn usual(name: &'static str, title: &'static str) -> Setting {
        Setting {
            name,
            title,
            hosts: same(12),
            balancers: 1,
            rho: 0.9,
            mean: 0.05,
            io: 0.0,
            pareto: None,
            traffic: Traffic::Steady,
            services: 1,
            stays: None,
            always_hogs: false,
            one_sided: false,
            delay: Span::from_nanos(200_000),
            loss: 0.0,
            noise: 0.2,
            interval: Span::from_secs(1),
            wait: Span::from_secs(1),
            paper: false,
            strict: false,
            checks: Checks { every: Span::from_secs(2), fall: 3, rise: 2 },
            repeats: false,
            load_average: false,
            misfortunes: Vec::new(),
            good: Span::from_secs(1),
            length: Span::from_secs(100),
            warm: Span::from_secs(10),
        }
    }

    /// The scenarios with targets, T1 to T12, and some without.
    pub fn all() -> Vec<Setting> {
        let six = |setting: Setting| Setting { hosts: same(6), rho: 0.6, ..setting };
        let ill = |what, from, until| {
            vec![(seconds(from), 0, what), (seconds(until), 0, Misfortune::Recovers)]
        };
        vec![
            Setting::usual("T1", "same machines, B=1, rho 0.9"),
            Setting { balancers: 16, ..Setting::usual("T2", "same machines, B=16, rho 0.9") },
            Setting {
                hosts: speeds(12),
                rho: 0.5,
                ..Setting::usual("T3", "speeds 1:2:4, B=1, rho 0.5")
            },
            Setting {
                hosts: cores(),
                balancers: 4,
                ..Setting::usual("T4", "cores 1:2:4:8, B=4, rho 0.9")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                io: 4.0,
                good: Span::from_millis(1500),
                ..Setting::usual("T5", "I/O 4:1, speeds 1:2:4, B=4, rho 0.9")
            },
            Setting {
                balancers: 16,
                one_sided: true,
                ..Setting::usual("T6", "B=16, all traffic at one balancer, rho 0.9")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                rho: 1.2,
                ..Setting::usual("T7", "overload: speeds 1:2:4, B=4, rho 1.2, W=1s")
            },
            Setting {
                hosts: speeds(12),
                delay: Span::from_millis(50),
                ..Setting::usual("T8", "50 ms one way: speeds 1:2:4, B=1, rho 0.9")
            },
            six(Setting {
                misfortunes: ill(Misfortune::Dies, 20, 40),
                ..Setting::usual("T9a", "a service dies for 20 s: 6 same machines, B=1, rho 0.6")
            }),
            six(Setting {
                misfortunes: ill(Misfortune::FallsSilent, 20, 40),
                ..Setting::usual("T9b", "a host is silent for 20 s: 6 same machines, B=1, rho 0.6")
            }),
            six(Setting {
                misfortunes: flapping(Misfortune::Dies, 1, 4, 80),
                ..Setting::usual("T9c", "a service flaps, 1 s of 4: 6 same machines, B=1, rho 0.6")
            }),
            six(Setting {
                balancers: 4,
                misfortunes: flapping(Misfortune::FallsSilent, 2, 8, 80),
                ..Setting::usual("T9d", "a host flaps, 2 s of 8: 6 same machines, B=4, rho 0.6")
            }),
            Setting {
                hosts: speeds(12),
                paper: true,
                wait: Span::ZERO,
                ..Setting::usual("T10", "the paper's way, uncounted: speeds 1:2:4, B=1, rho 0.9")
            },
            six(Setting {
                misfortunes: vec![(seconds(20), 0, Misfortune::TicketsStop)],
                length: Span::from_secs(40),
                ..Setting::usual(
                    "T11",
                    "the tickets of one provider stop: 6 same machines, B=1, rho 0.6",
                )
            }),
            Setting {
                hosts: antagonists(),
                balancers: 4,
                ..Setting::usual("T12", "antagonists on half the machines, B=4, rho 0.9")
            },
            Setting {
                hosts: speeds(12),
                loss: 0.3,
                ..Setting::usual(
                    "X1",
                    "30 % of the ticket messages lost: speeds 1:2:4, B=1, rho 0.9",
                )
            },
            Setting {
                hosts: antagonists(),
                balancers: 4,
                rho: 1.03,
                ..Setting::usual("X2", "antagonists that leave too little, B=4, rho 1.03")
            },
            Setting {
                load_average: true,
                rho: 0.7,
                ..Setting::usual("X3", "only a load average: same machines, B=1, rho 0.7")
            },
        ]
    }

    /// What the first law did badly, and more that it had not seen.
    pub fn new_ones() -> Vec<Setting> {
        let six = |setting: Setting| Setting { hosts: same(6), rho: 0.6, ..setting };
        let ill = |what, from, until| {
            vec![(seconds(from), 0, what), (seconds(until), 0, Misfortune::Recovers)]
        };
        let first =
            |setting: Setting| Setting { warm: Span::ZERO, length: Span::from_secs(12), ..setting };
        let one_fast = |cpus: f64, speed: f64| {
            let slow = Build { cpus: 4.0, speed: 1.0, hogs: 0.0 };
            vec![slow, slow, slow, slow, Build { cpus: 4.0 * cpus, speed, hogs: 0.0 }]
        };
        let restarts: Vec<_> = (0..6)
            .flat_map(|place| {
                let at = 15 + 12 * place as u64;
                [
                    (seconds(at), place, Misfortune::Dies),
                    (seconds(at + 2), place, Misfortune::Recovers),
                    (seconds(at + 2), place, Misfortune::Cold(5)),
                    (seconds(at + 10), place, Misfortune::Warm),
                ]
            })
            .collect();
        vec![
            Setting {
                hosts: one_fast(1.0, 16.0),
                rho: 0.5,
                ..Setting::usual("H1a", "speeds 1:1:1:1:16, B=1, rho 0.5")
            },
            Setting {
                hosts: one_fast(1.0, 16.0),
                ..Setting::usual("H1b", "speeds 1:1:1:1:16, B=1, rho 0.9")
            },
            Setting {
                hosts: one_fast(16.0, 1.0),
                balancers: 4,
                ..Setting::usual("H1c", "CPUs 4:4:4:4:64, B=4, rho 0.9")
            },
            Setting {
                hosts: one_fast(1.0, 16.0),
                balancers: 16,
                rho: 0.7,
                ..Setting::usual("H1d", "speeds 1:1:1:1:16, B=16, rho 0.7")
            },
            six(Setting {
                misfortunes: ill(Misfortune::AnswersErrors, 30, 60),
                ..Setting::usual("H2a", "one of 6 answers errors in 1 ms for 30 s, B=1, rho 0.6")
            }),
            six(Setting {
                mean: 0.004,
                length: Span::from_secs(60),
                misfortunes: ill(Misfortune::AnswersErrors, 20, 40),
                ..Setting::usual("H2b", "the same, requests of 4 ms, for 20 s")
            }),
            six(Setting {
                balancers: 4,
                misfortunes: ill(Misfortune::AnswersErrors, 30, 60),
                ..Setting::usual("H2c", "one of 6 answers errors in 1 ms for 30 s, B=4, rho 0.6")
            }),
            six(Setting {
                misfortunes: ill(Misfortune::EndsAtOnce, 30, 60),
                ..Setting::usual("F17", "one of 6 ends connections at once for 30 s, B=1, rho 0.6")
            }),
            six(Setting {
                balancers: 4,
                misfortunes: ill(Misfortune::Drags(10), 30, 60),
                ..Setting::usual(
                    "H3a",
                    "one of 6 has a disk ten times slower for 30 s, B=4, rho 0.6",
                )
            }),
            six(Setting {
                io: 1.0,
                misfortunes: ill(Misfortune::Drags(10), 30, 60),
                ..Setting::usual("H3b", "the same, B=1, I/O 1:1")
            }),
            six(Setting {
                misfortunes: vec![(seconds(5), 0, Misfortune::Hangs(5))],
                ..Setting::usual(
                    "H4a",
                    "5 % of one provider's requests hang, 6 same machines, B=1, rho 0.6",
                )
            }),
            six(Setting {
                balancers: 4,
                misfortunes: (0..6)
                    .map(|place| (seconds(5), place, Misfortune::Hangs(2)))
                    .collect(),
                ..Setting::usual("H4b", "2 % of all requests hang, B=4, rho 0.6")
            }),
            Setting {
                pareto: Some(1.1),
                balancers: 4,
                rho: 1.1,
                ..Setting::usual("H5a", "Pareto 1.1, B=4, rho 1.1")
            },
            Setting {
                pareto: Some(1.1),
                balancers: 4,
                rho: 0.8,
                ..Setting::usual("H5b", "Pareto 1.1, B=4, rho 0.8")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                rho: 1.0,
                traffic: Traffic::Waves(0.05, 1.3, 60.0),
                ..Setting::usual("H6", "waves of 5 to 130 % in 60 s, speeds 1:2:4, B=4")
            },
            Setting {
                balancers: 4,
                rho: 0.7,
                traffic: Traffic::Bursts(4.0, 0.5, 5.0),
                ..Setting::usual("H7a", "bursts: 4 times for 0.5 s of 5 s, mean rho 0.7, B=4")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                rho: 0.7,
                traffic: Traffic::Bursts(10.0, 0.05, 1.0),
                ..Setting::usual(
                    "H7b",
                    "bursts: 10 times for 50 ms of 1 s, speeds 1:2:4, mean rho 0.7, B=4",
                )
            },
            Setting {
                hosts: same(6),
                balancers: 4,
                rho: 0.8,
                services: 2,
                traffic: Traffic::Waves(0.05, 1.95, 40.0),
                ..Setting::usual(
                    "H8",
                    "two services with opposite peaks on 6 same machines, B=4, rho 0.8",
                )
            },
            Setting {
                hosts: same(3),
                balancers: 64,
                rho: 0.8,
                ..Setting::usual("H9a", "3 providers, 64 balancers, rho 0.8")
            },
            Setting {
                hosts: speeds(3),
                balancers: 64,
                rho: 0.5,
                ..Setting::usual("H9c", "speeds 1:2:4, 64 balancers, rho 0.5")
            },
            Setting {
                rho: 0.5,
                stays: Some((0.02, Span::from_secs(3600))),
                ..Setting::usual("H11a", "2 % of the clients stay for an hour, B=1, rho 0.5")
            },
            Setting {
                rho: 0.03,
                mean: 0.01,
                stays: Some((0.2, Span::from_secs(3600))),
                ..Setting::usual("H11b", "20 % stay for an hour, idle hosts, B=1")
            },
            Setting {
                rho: 0.5,
                balancers: 4,
                stays: Some((0.01, Span::from_secs(20))),
                ..Setting::usual("H11c", "1 % stay for 20 s, B=4, rho 0.5")
            },
            six(Setting {
                misfortunes: restarts.clone(),
                ..Setting::usual(
                    "H12a",
                    "rolling restarts, 2 s away, then 8 s at a fifth of the speed, B=1, rho 0.6",
                )
            }),
            six(Setting {
                balancers: 4,
                misfortunes: restarts,
                ..Setting::usual("H12b", "the same, B=4")
            }),
            Setting {
                hosts: antagonists(),
                balancers: 4,
                rho: 0.8,
                interval: Span::from_secs(10),
                ..Setting::usual("H13a", "interval 10 s, antagonists, B=4, rho 0.8")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                io: 4.0,
                good: Span::from_millis(1500),
                interval: Span::from_secs(10),
                ..Setting::usual("H13b", "interval 10 s, I/O 4:1, speeds, B=4, rho 0.9")
            },
            Setting {
                balancers: 4,
                rho: 0.8,
                interval: Span::from_secs(10),
                ..Setting::usual("H13c", "interval 10 s, same machines, B=4, rho 0.8")
            },
            Setting {
                hosts: antagonists(),
                rho: 0.8,
                interval: Span::from_secs(10),
                ..Setting::usual("H13f", "interval 10 s, antagonists, B=1, rho 0.8")
            },
            Setting {
                hosts: antagonists(),
                balancers: 4,
                loss: 0.2,
                ..Setting::usual("H14", "20 % of control messages lost, antagonists, B=4, rho 0.9")
            },
            Setting {
                hosts: speeds(12),
                balancers: 4,
                delay: Span::from_millis(100),
                ..Setting::usual("H15b", "100 ms one way, speeds, B=4, rho 0.9")
            },
            Setting {
                rho: 0.7,
                mean: 0.001,
                length: Span::from_secs(20),
                ..Setting::usual("H17a", "requests of 1 ms, B=1, rho 0.7")
            },
            Setting {
                hosts: busy(6.0),
                io: 20.0,
                rho: 0.3,
                always_hogs: true,
                good: Span::from_secs(2),
                ..Setting::usual(
                    "H18a",
                    "I/O 20:1, others always take 6 of 4 CPUs, B=1, rho 0.3 of the rest",
                )
            },
            Setting {
                hosts: busy(4.0),
                rho: 0.6,
                balancers: 4,
                always_hogs: true,
                ..Setting::usual(
                    "F2",
                    "4 tasks of others always run on each host, B=4, rho 0.6 of the rest",
                )
            },
            Setting {
                hosts: same(6),
                mean: 0.02,
                io: 99.0,
                rho: 0.04,
                good: Span::from_secs(12),
                ..Setting::usual("H20", "long polling: 2 s, 4 % CPU, B=1")
            },
            first(Setting::usual("H22a", "the first 10 s, same machines, B=1, rho 0.9")),
            first(Setting {
                balancers: 4,
                rho: 0.8,
                ..Setting::usual("H22b", "the first 10 s, same machines, B=4, rho 0.8")
            }),
            first(Setting {
                hosts: speeds(12),
                balancers: 4,
                rho: 0.7,
                ..Setting::usual("H22c", "the first 10 s, speeds 1:2:4, B=4, rho 0.7")
            }),
            first(Setting {
                hosts: speeds(12),
                balancers: 4,
                io: 4.0,
                good: Span::from_millis(1500),
                ..Setting::usual("H22d", "the first 10 s, I/O 4:1, speeds, B=4, rho 0.9")
            }),
            Setting {
                hosts: speeds(12),
                balancers: 4,
                rho: 1.2,
                warm: Span::ZERO,
                length: Span::from_secs(22),
                ..Setting::usual("H22e", "the first 20 s of an overload of 1.2, speeds, B=4")
            },
        ]
    }

    /// A thousand hosts and 32 balancers for a few seconds.
    pub fn large() -> Setting {
        Setting {
            hosts: speeds(1000),
            balancers: 32,
            mean: 0.2,
            length: Span::from_secs(6),
            warm: Span::from_secs(3),
            ..Setting::usual("scale", "1000 providers, 32 balancers, speeds 1:2:4, rho 0.9")
        }
    }

    /// A short time of it, still with all its misfortunes but those that repeat late.
    pub fn shortened(self) -> Setting {
        let length = if self.misfortunes.is_empty() { 16 } else { 28 };
        let misfortunes =
            self.misfortunes.iter().filter(|(at, ..)| *at <= seconds(length)).copied().collect();
        Setting { length: Span::from_secs(length), misfortunes, ..self }
    }

    /// One of them.
    pub fn named(name: &str) -> Setting {
        Setting::all()
            .into_iter()
            .chain(Setting::new_ones())
            .find(|setting| setting.name == name)
            .expect("a setting")
    }

    /// The slots that a host really has.
    pub fn slots(&self, build: &Build) -> f64 {
        build.cpus * (1.0 + self.io * build.speed)
    }

    /// Arrivals from this moment on: monitors have bidden once by then.
    const FIRST: Span = Span::from_secs(2);

    /// Whether what arrived then is measured.
    pub fn measures(&self, at: Moment) -> bool {
        at >= Moment::after_start(self.warm)
    }

    /// The arrivals that a seed gives, the same for every policy.
    pub fn arrivals(&self, seed: u64) -> Vec<Arrival> {
        let mut random = Random::new(seed);
        let left = |build: &Build| build.left(if self.always_hogs { 1.0 } else { 0.5 });
        let capacity: f64 = self.hosts.iter().map(left).sum();
        let (_, peak) = self.traffic.part(0.0);
        let mean_gap = self.mean / (self.rho * capacity) / peak;
        let mut arrivals = Vec::new();
        let mut at = Moment::after_start(Setting::FIRST);
        loop {
            at = at + Span::from_secs_f64(exponential(&mut random, mean_gap));
            let work = match self.pareto {
                None => exponential(&mut random, self.mean),
                Some(exponent) => pareto(&mut random, self.mean, exponent),
            };
            let balancer = random.below(self.balancers);
            let client = IpAddr::from([10, 200, random.below(4) as u8, random.below(250) as u8]);
            if at >= Moment::after_start(self.length) {
                return arrivals;
            }
            let service = if self.services > 1 { random.below(self.services) } else { 0 };
            let later = service as f64 / self.services as f64 * self.traffic.period();
            let seconds = at.since(Moment::ZERO).as_secs_f64();
            let (part, peak) = self.traffic.part(seconds + later);
            if part < peak && random.unit() * peak > part {
                continue;
            }
            let (part, long) = self.stays.unwrap_or((0.0, Span::ZERO));
            let stays = if part > 0.0 && random.unit() < part { long } else { Span::ZERO };
            let balancer = if self.one_sided { 0 } else { balancer };
            arrivals.push(Arrival { at, service, balancer, work, client, stays });
        }
    }
}

/// A number with this mean, of Pareto's spread over four decades.
fn pareto(random: &mut Random, mean: f64, exponent: f64) -> f64 {
    const DECADES: f64 = 10_000.0;
    let cut = DECADES.powf(-exponent);
    let least =
        mean * (exponent - 1.0) / exponent * (1.0 - cut) / (1.0 - DECADES.powf(1.0 - exponent));
    least * (1.0 - random.unit() * (1.0 - cut)).powf(-1.0 / exponent)
}

/// A number with this mean, without memory.
pub fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * (1.0 - random.unit()).ln()
}
