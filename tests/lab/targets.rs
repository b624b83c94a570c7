//! What each scenario must come to.
//!
//! Owns the targets T1 to T12, as values that can be asserted and printed. The
//! same arrivals for both sides of every comparison.

use super::figures::Figures;
use super::setting::{Arrival, Setting};
use super::world::{run, Policy, DEFAULT};
use pegasus_core::base::time::Span;

/// One target and what was measured.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub what: String,
    pub value: f64,
    pub bound: f64,
    /// The value must not exceed the bound, or else not fall below it.
    pub at_most: bool,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        if self.at_most {
            self.value <= self.bound
        } else {
            self.value >= self.bound
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.at_most { "<=" } else { ">=" };
        let word = if self.holds() { "ok  " } else { "MISS" };
        write!(f, "{word} {:<44} {:>9.3}  target {sign} {:.3}", self.what, self.value, self.bound)
    }
}

/// A setting with the arrivals of one seed.
pub struct Lab {
    pub setting: Setting,
    arrivals: Vec<Arrival>,
    seed: u64,
    known: Vec<(Policy, Figures)>,
}

impl Lab {
    pub fn new(setting: Setting, seed: u64) -> Lab {
        Lab { arrivals: setting.arrivals(seed), setting, seed, known: Vec::new() }
    }

    /// The figures of who balances.
    pub fn figures(&mut self, policy: Policy) -> &Figures {
        if let Some(place) = self.known.iter().position(|known| known.0 == policy) {
            return &self.known[place].1;
        }
        let figures = run(&self.setting, &self.arrivals, policy, self.seed);
        self.known.push((policy, figures));
        &self.known[self.known.len() - 1].1
    }

    fn ours(&mut self) -> Figures {
        self.figures(DEFAULT).clone()
    }

    fn mean(&mut self, policy: Policy) -> f64 {
        self.figures(policy).mean()
    }

    /// All targets of the setting.
    pub fn judge(&mut self) -> Vec<Verdict> {
        let ours = self.ours();
        let mut verdicts = Vec::new();
        let mut say = |what: &str, value: f64, bound: f64, at_most: bool| {
            verdicts.push(Verdict { what: what.into(), value, bound, at_most });
        };
        let most = true;
        let least = false;
        let to_leastconn = |lab: &mut Lab| ours.mean() / lab.mean(Policy::LeastConn);
        match self.setting.name {
            "T1" => {
                say("mean / leastconn", to_leastconn(self), 1.03, most);
                say("refused, %", ours.refused_percent(), 0.0, most);
                let (fewest, all) = (
                    ours.grants.iter().min().copied().unwrap_or(0),
                    ours.grants.iter().sum::<u64>(),
                );
                let fair = all as f64 / ours.grants.len() as f64;
                say("fewest grants of a provider / fair share", fewest as f64 / fair, 0.75, least);
            }
            "T2" => say("mean / leastconn", to_leastconn(self), 1.0, most),
            "T3" => {
                say("mean / leastconn", to_leastconn(self), 0.75, most);
                say(
                    "mean / ideal central queue",
                    ours.mean() / self.mean(Policy::Ideal),
                    1.15,
                    most,
                );
            }
            "T4" => say("mean / leastconn", to_leastconn(self), 0.60, most),
            "T5" => {
                say("mean / leastconn", to_leastconn(self), 0.75, most);
                for place in 0..3 {
                    let right = self.setting.slots(&self.setting.hosts[place]);
                    let learned: Vec<f64> =
                        ours.slots.iter().skip(place).step_by(3).copied().collect();
                    let mean = learned.iter().sum::<f64>() / learned.len() as f64;
                    say(
                        &format!("learned slots, {mean:.1} for {right}, off by"),
                        (mean / right - 1.0).abs(),
                        0.25,
                        most,
                    );
                }
            }
            "T6" => say("refused, %", ours.refused_percent(), 0.1, most),
            "T7" => {
                say("answered within 1 s, %", ours.good_percent(), 80.0, least);
                say(
                    "leastconn answers within 1 s, %",
                    self.figures(Policy::LeastConn).good_percent(),
                    40.0,
                    most,
                );
            }
            "T8" => {
                say("mean / leastconn", to_leastconn(self), 0.80, most);
                say("refused, %", ours.refused_percent(), 0.0, most);
            }
            "T9a" | "T9c" => {
                say("retried, %", ours.retried_percent(), 0.1, most);
                say(
                    "refused or without provider",
                    (ours.refused + ours.unserved) as f64,
                    0.0,
                    most,
                );
            }
            "T9b" | "T9d" => {
                let theirs = self.figures(Policy::LeastConn).retried_percent();
                say("retried, % (that of leastconn)", ours.retried_percent(), theirs, most);
                say(
                    "refused or without provider",
                    (ours.refused + ours.unserved) as f64,
                    0.0,
                    most,
                );
                let theirs = self.figures(Policy::LeastConn).quantile(0.999);
                say("p99.9 / leastconn", ours.quantile(0.999) / theirs, 1.0, most);
            }
            "T10" => {
                say("refused, %", ours.refused_percent(), 0.5, most);
                say(
                    "mean / WRR with true weights",
                    ours.mean() / self.mean(Policy::Weighted),
                    1.2,
                    most,
                );
            }
            "T11" => {
                let late = ours.late_grants[0].as_secs_f64();
                let lease = self.setting.interval.times(5).max(Span::from_secs(5)).as_secs_f64();
                say("last grant after last ticket, s", late, lease, most);
                say("and it got some until then, s", late, lease - 0.5, least);
                say("refused, %", ours.refused_percent(), 0.0, most);
            }
            "T12" => say("mean / leastconn", to_leastconn(self), 1.02, most),
            "F17" => {
                say("failed, %", ours.failed_percent(), 0.2, most);
                say("mean / leastconn", to_leastconn(self), 1.05, most);
            }
            "H8" => {
                say("mean / leastconn", to_leastconn(self), 1.03, most);
                say("refused, %", ours.refused_percent(), 0.0, most);
            }
            "X1" => say("mean / leastconn", to_leastconn(self), 1.05, most),
            _ => {}
        }
        verdicts
    }
}
