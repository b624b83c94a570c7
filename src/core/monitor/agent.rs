//! What an engine that asks is told of a service: the answer to HAProxy's agent check.
//!
//! Owns the answer, and which askers are still to hear that the monitor ends. Knows no
//! socket and no clock.

use crate::base::service_name::ServiceName;
use crate::base::time::{Moment, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// HAProxy counts no weight beyond this many times the one that it was configured with.
const SLOTS_MAX: f64 = 256.0;
/// Askers that are remembered, each for one service.
const ASKERS_MAX: usize = 64;
/// An asker that came once may come again within this time. One that came more often
/// comes after its usual pause, but for this delay.
const FIRST_PAUSE: Span = Span::from_secs(10);
const PAUSE_MAX: Span = Span::from_secs(60);
const DELAY: Span = Span::from_secs(1);

/// How a service stands. Its text is the answer, without the end of the line.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Standing {
    /// The monitor ends, and this host takes no new clients.
    Drained,
    /// The service fails its check.
    Failed,
    /// This host does not offer such a service.
    Unknown,
    /// It takes clients.
    Serving {
        /// Its slots; none where a load source calls the host full.
        slots: f64,
        /// The most requests at once, where that is strict.
        capacity: Option<u32>,
    },
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Drained => f.write_str("drain"),
            Standing::Failed => f.write_str("down #the service fails its check"),
            Standing::Unknown => f.write_str("down #no such service here"),
            Standing::Serving { slots, capacity } => {
                // Of a host that takes clients no weight is rounded to none.
                let percent = match slots * 100.0 {
                    none if none <= 0.0 => 0,
                    percent => percent.round().clamp(1.0, SLOTS_MAX * 100.0) as u32,
                };
                write!(f, "ready up {percent}%")?;
                capacity.map_or(Ok(()), |capacity| write!(f, " maxconn:{capacity}"))
            }
        }
    }
}

struct Asker {
    last: Moment,
    pause: Span,
    drained: bool,
}

impl Asker {
    /// It comes until then, if it goes on as before.
    fn comes_until(&self) -> Moment {
        self.last + self.pause.times(2) + DELAY
    }
}

/// Those who ask.
#[derive(Default)]
pub struct Askers(BTreeMap<(IpAddr, ServiceName), Asker>);

impl Askers {
    /// An address was told how this service stands.
    pub fn told(&mut self, from: IpAddr, service: ServiceName, standing: Standing, now: Moment) {
        let drained = standing == Standing::Drained;
        if let Some(asker) = self.0.get_mut(&(from, service)) {
            let pause = now.since(asker.last).min(PAUSE_MAX);
            *asker = Asker { last: now, pause, drained };
            return;
        }
        if self.0.len() >= ASKERS_MAX {
            self.0.retain(|_, asker| now < asker.comes_until());
        }
        if self.0.len() < ASKERS_MAX {
            self.0.insert((from, service), Asker { last: now, pause: FIRST_PAUSE, drained });
        }
    }

    /// Whether an asker is expected that was not told that the service is drained.
    pub fn are_expected(&self, now: Moment) -> bool {
        self.0.values().any(|asker| !asker.drained && now < asker.comes_until())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_the_weight_that_was_configured() {
        let text = |slots, capacity| Standing::Serving { slots, capacity }.to_string();
        assert_eq!(text(0.75, None), "ready up 75%");
        assert_eq!(text(4.0, Some(8)), "ready up 400% maxconn:8");
        assert_eq!(text(0.0, Some(8)), "ready up 0% maxconn:8");
        assert_eq!(text(0.001, None), "ready up 1%");
        assert_eq!(text(1e9, None), "ready up 25600%");
    }

    fn at(millis: u64) -> Moment {
        Moment::after_start(Span::from_millis(millis))
    }

    #[test]
    fn askers_are_expected_until_they_heard_it_or_stay_away() {
        let serving = Standing::Serving { slots: 1.0, capacity: None };
        let (web, one, other): (ServiceName, IpAddr, IpAddr) =
            ("web".parse().unwrap(), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut askers = Askers::default();
        assert!(!askers.are_expected(at(0)));
        for second in 0..3 {
            askers.told(one, web, serving, at(1000 * second));
            askers.told(other, web, serving, at(1000 * second));
        }
        askers.told(one, web, Standing::Drained, at(3000));
        assert!(askers.are_expected(at(3000)), "the other did not hear it");
        assert!(!askers.are_expected(at(2000 + 3 * 1000)), "the other stays away");
        askers.told(other, web, serving, at(6000));
        askers.told(other, web, Standing::Drained, at(7000));
        assert!(!askers.are_expected(at(7000)));
    }

    #[test]
    fn strangers_fill_nothing() {
        let mut askers = Askers::default();
        let serving = Standing::Serving { slots: 1.0, capacity: None };
        for number in 0..1000u32 {
            let from = std::net::Ipv4Addr::from(number).into();
            askers.told(from, ServiceName::DEFAULT, serving, at(u64::from(number)));
        }
        assert_eq!(askers.0.len(), ASKERS_MAX);
        askers.told([10, 0, 0, 1].into(), ServiceName::DEFAULT, serving, at(120_000));
        assert_eq!(askers.0.len(), 1, "those that stay away make room");
    }
}
