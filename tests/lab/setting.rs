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
    /// CPUs times speed, less what others take of it while they are there, half
    /// of the time.
    fn left(&self) -> f64 {
        self.cpus * self.speed * (1.0 - 0.5 * self.hogs / (self.hogs + self.cpus))
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
    /// All is well again.
    Recovers,
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
    /// The monitors only have a load average.
    pub load_average: bool,
    /// When what happens to whom.
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
    pub balancer: usize,
    /// CPU time at speed 1, in seconds.
    pub work: f64,
    pub client: IpAddr,
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
            one_sided: false,
            delay: Span::from_nanos(200_000),
            loss: 0.0,
            noise: 0.2,
            interval: Span::from_secs(1),
            wait: Span::from_secs(1),
            paper: false,
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
        Setting::all().into_iter().find(|setting| setting.name == name).expect("a setting")
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

    /// The arrivals that a seed gives, the same for whoever balances.
    pub fn arrivals(&self, seed: u64) -> Vec<Arrival> {
        let mut random = Random::new(seed);
        let capacity: f64 = self.hosts.iter().map(Build::left).sum();
        let mean_gap = self.mean / (self.rho * capacity);
        let mut arrivals = Vec::new();
        let mut at = Moment::after_start(Setting::FIRST);
        loop {
            at = at + Span::from_secs_f64(exponential(&mut random, mean_gap));
            let (work, balancer) =
                (exponential(&mut random, self.mean), random.below(self.balancers));
            let client = IpAddr::from([10, 200, random.below(4) as u8, random.below(250) as u8]);
            if at >= Moment::after_start(self.length) {
                return arrivals;
            }
            arrivals.push(Arrival {
                at,
                balancer: if self.one_sided { 0 } else { balancer },
                work,
                client,
            });
        }
    }
}

/// A number with this mean, without memory.
pub fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * (1.0 - random.unit()).ln()
}
