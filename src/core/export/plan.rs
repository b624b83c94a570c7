//! The providers of a service as another engine needs them, and how two such lists differ.
//!
//! Owns which providers get new clients, and the scale of their weights. Knows no engine.

use crate::base::decimal;
use crate::base::key_value;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;

/// Parts of a weight, as on the wire: a weight of 1 is 1000.
const UNIT: u64 = 1000;
/// A share of the whole that differs by less than this part of it is the same share.
const SIGNIFICANT: f64 = 0.05;

/// A provider that an engine has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its address; without a port, the one that the client came to.
    pub provider: Provider,
    /// The slots behind its offer, in thousandths; at least 1.
    pub weight: u64,
    /// It gets new clients. Otherwise it keeps those that it has.
    pub open: bool,
}

/// The providers of a service, in the order of their addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan(Vec<Backend>);

/// How a provider differs between two plans. A weight is that of the new plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It was not there before.
    Add {
        /// Which.
        provider: Provider,
        /// 0: no new clients.
        weight: u32,
    },
    /// Its weight is another one, or it is drained, or drained no more.
    Set {
        /// Which.
        provider: Provider,
        /// 0: no new clients.
        weight: u32,
    },
    /// It is there no more.
    Remove {
        /// Which.
        provider: Provider,
    },
}

impl Plan {
    /// The plan that the lines of a queue's status tell for this service.
    pub fn read(status: &str, service: ServiceName) -> Plan {
        let name = service.to_string();
        let ours = |line: &&str| {
            line.starts_with("provider ") && key_value::find(line, "service") == Some(&name)
        };
        Plan::of(status.lines().filter(ours).filter_map(backend).collect())
    }

    /// A plan of these providers.
    pub fn of(mut backends: Vec<Backend>) -> Plan {
        backends.sort_by_key(|backend| backend.provider);
        backends.dedup_by_key(|backend| backend.provider);
        Plan(backends)
    }

    /// The providers, in order.
    pub fn backends(&self) -> &[Backend] {
        &self.0
    }

    /// Weights from 1 to `most`, in the order of the providers; 0 for those that get no
    /// new clients. Whole weights that fit are kept as they are.
    pub fn weights(&self, most: u32) -> Vec<u32> {
        let open = || self.0.iter().filter(|backend| backend.open).map(|backend| backend.weight);
        let largest = open().max().unwrap_or(1).max(1);
        let whole = open().all(|weight| weight % UNIT == 0 && weight > 0);
        let fits = largest / UNIT <= u64::from(most);
        let scaled = |backend: &Backend| match backend.open {
            false => 0,
            true if whole && fits => (backend.weight / UNIT) as u32,
            true => {
                let scaled = backend.weight as f64 * f64::from(most) / largest as f64;
                (scaled.round() as u32).clamp(1, most)
            }
        };
        self.0.iter().map(scaled).collect()
    }

    /// Whether an engine with this plan should be told of the other one: providers came,
    /// left, were drained or resumed, or shares have moved.
    pub fn differs(&self, other: &Plan) -> bool {
        let same = |(one, other): (&Backend, &Backend)| {
            (one.provider, one.open) == (other.provider, other.open)
        };
        self.0.len() != other.0.len()
            || !self.0.iter().zip(&other.0).all(same)
            || self.0.iter().zip(&other.0).any(|(one, two)| {
                let (before, after) = (self.share(one), other.share(two));
                (after - before).abs() > SIGNIFICANT * before.min(after)
            })
    }

    /// The part of the new clients that goes to a provider of this plan, 0..=1.
    fn share(&self, backend: &Backend) -> f64 {
        let open = self.0.iter().filter(|backend| backend.open);
        let sum: u64 = open.map(|backend| backend.weight).sum();
        if backend.open {
            backend.weight as f64 / sum.max(1) as f64
        } else {
            0.0
        }
    }

    /// This plan, with those providers of an older one that it does not have.
    pub fn with_missing(mut self, before: &Plan) -> Plan {
        let known = |provider| self.0.iter().any(|backend| backend.provider == provider);
        let missing: Vec<Backend> =
            before.0.iter().filter(|backend| !known(backend.provider)).copied().collect();
        self.0.extend(missing);
        Plan::of(self.0)
    }

    /// What turns this plan into the other one, whose weights go up to `most`: first
    /// what comes, then what changes, then what goes.
    pub fn changes(&self, after: &Plan, most: u32) -> Vec<Change> {
        let old: Vec<(Provider, u32)> =
            self.0.iter().map(|backend| backend.provider).zip(self.weights(most)).collect();
        let new: Vec<(Provider, u32)> =
            after.0.iter().map(|backend| backend.provider).zip(after.weights(most)).collect();
        let before = |provider| old.binary_search_by_key(&provider, |entry| entry.0).ok();
        let added = new.iter().filter(|(provider, _)| before(*provider).is_none());
        let added = added.map(|&(provider, weight)| Change::Add { provider, weight });
        let set = new.iter().filter(|(provider, weight)| {
            before(*provider).is_some_and(|place| old[place].1 != *weight)
        });
        let set = set.map(|&(provider, weight)| Change::Set { provider, weight });
        let stays = |provider| new.binary_search_by_key(&provider, |entry| entry.0).is_ok();
        let removed = old.iter().filter(|(provider, _)| !stays(*provider));
        let removed = removed.map(|&(provider, _)| Change::Remove { provider });
        added.chain(set).chain(removed).collect()
    }
}

/// The provider of a line, unless it has left.
fn backend(line: &str) -> Option<Backend> {
    let provider = key_value::find(line, "address")?.parse().ok()?;
    let places = key_value::find(line, "capacity").is_none_or(|capacity| capacity != "0");
    let open = match key_value::find(line, "state")? {
        "free" | "busy" => true,
        "full" => places,
        "drained" | "held" => false,
        _ => return None,
    };
    let weight = ["weight", "tickets"].into_iter().find_map(|key| {
        let weight = decimal::parse(key_value::find(line, key)?)?;
        (weight > 0.0).then_some(weight)
    });
    let weight = (weight.unwrap_or(0.0) * UNIT as f64).round() as u64;
    Some(Backend { provider, weight: weight.max(1), open })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Providers 10.0.0.1:80 and so on; those of weight 0 get no new clients.
    pub fn of_weights(weights: &[u64]) -> Plan {
        let backend = |(number, weight): (usize, &u64)| Backend {
            provider: format!("10.0.0.{}:80", number + 1).parse().unwrap(),
            weight: *weight,
            open: *weight > 0,
        };
        Plan::of(weights.iter().enumerate().map(backend).collect())
    }

    fn plan(backends: &[(&str, u64, bool)]) -> Plan {
        let backend = |(provider, weight, open): &(&str, u64, bool)| Backend {
            provider: provider.parse().unwrap(),
            weight: *weight,
            open: *open,
        };
        Plan::of(backends.iter().map(backend).collect())
    }

    #[test]
    fn a_status_says_who_gets_clients() {
        let status = "queue connections=1\n\
            service name=web providers=5\n\
            provider service=web address=[::1]:80 tickets=2 capacity=8 state=busy weight=2.500\n\
            provider service=web address=10.0.0.2 tickets=3 capacity=8 state=free\n\
            provider service=web address=10.0.0.1:80 tickets=1 capacity=8 state=drained\n\
            provider service=web address=10.0.0.3:80 tickets=0 capacity=0 state=gone\n\
            provider service=web address=10.0.0.4:80 tickets=0 capacity=0 state=full weight=4.000\n\
            provider service=other address=10.0.0.9:80 tickets=1 capacity=8 state=free\n";
        let wanted = plan(&[
            ("10.0.0.1:80", 1000, false),
            ("10.0.0.2", 3000, true),
            ("10.0.0.4:80", 4000, false),
            ("[::1]:80", 2500, true),
        ]);
        assert_eq!(Plan::read(status, "web".parse().unwrap()), wanted);
    }

    #[test]
    fn whole_weights_stay_and_others_are_scaled() {
        let whole = plan(&[("10.0.0.1", 1000, true), ("10.0.0.2", 3000, true)]);
        assert_eq!(whole.weights(256), [1, 3]);
        assert_eq!(whole.weights(2), [1, 2]);
        let parts = plan(&[
            ("10.0.0.1", 1, true),
            ("10.0.0.2", 2500, true),
            ("10.0.0.3", 5000, true),
            ("10.0.0.4", 9000, false),
        ]);
        assert_eq!(parts.weights(100), [1, 50, 100, 0]);
        assert!(Plan::default().weights(100).is_empty());
    }

    #[test]
    fn a_share_that_hardly_moves_is_no_change() {
        let old = plan(&[("10.0.0.1", 1000, true), ("10.0.0.2", 2000, true)]);
        let twice = plan(&[("10.0.0.1", 2000, true), ("10.0.0.2", 4040, true)]);
        assert!(!old.differs(&twice));
        assert!(old.differs(&plan(&[("10.0.0.1", 1000, true), ("10.0.0.2", 2300, true)])));
        assert!(old.differs(&plan(&[("10.0.0.1", 1000, true), ("10.0.0.2", 2000, false)])));
        assert!(old.differs(&plan(&[("10.0.0.1", 1000, true)])));
        assert!(old.differs(&plan(&[("10.0.0.1", 1000, true), ("10.0.0.3", 2000, true)])));
    }

    #[test]
    fn changes_lead_from_one_plan_to_the_other() {
        let old =
            plan(&[("10.0.0.1", 1000, true), ("10.0.0.2", 2000, true), ("10.0.0.3", 1000, true)]);
        let new =
            plan(&[("10.0.0.1", 1000, true), ("10.0.0.3", 1000, false), ("10.0.0.4", 5000, true)]);
        let at = |text: &str| text.parse::<Provider>().unwrap();
        let wanted = [
            Change::Add { provider: at("10.0.0.4"), weight: 5 },
            Change::Set { provider: at("10.0.0.3"), weight: 0 },
            Change::Remove { provider: at("10.0.0.2") },
        ];
        assert_eq!(old.changes(&new, 256), wanted);
        assert!(new.changes(&new, 256).is_empty());
    }
}
