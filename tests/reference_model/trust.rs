//! Whose word is taken that a provider is dead.
//!
//! Owns which askers were served there, which have requests that live, and which
//! alone have trouble with it.

use super::account::{HOLD, HOLD_MAX};
use super::SECOND;
use pegasus_core::base::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// So many requests in a row that end without a byte are a failure.
const VAIN_MAX: usize = 3;

/// Decides whose report that a provider is dead holds it for everybody.
#[derive(Debug, Default)]
pub struct Trust {
    /// Askers that were served since the last death.
    served: BTreeSet<IpAddr>,
    /// Askers with requests in progress: how many, and since when without a break.
    running: BTreeMap<IpAddr, (u32, Moment)>,
    /// Askers that are led elsewhere: until when, and how often in a row.
    troubles: BTreeMap<IpAddr, (Moment, u32)>,
    /// Of which askers the last requests ended without a byte.
    vain: Vec<IpAddr>,
}

impl Trust {
    pub fn began(&mut self, asker: IpAddr, now: Moment) {
        self.running.entry(asker).or_insert((0, now)).0 += 1;
    }

    pub fn over(&mut self, asker: IpAddr) {
        if let Some((count, _)) = self.running.get_mut(&asker) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&asker);
            }
        }
    }

    pub fn served(&mut self, asker: IpAddr) {
        self.served.insert(asker);
        self.troubles.remove(&asker);
        self.vain.clear();
    }

    /// A request ended without a byte. Answers the askers of a row that is a failure.
    pub fn vain(&mut self, asker: IpAddr) -> Option<BTreeSet<IpAddr>> {
        self.vain.push(asker);
        let row = self.vain.len() >= VAIN_MAX;
        row.then(|| std::mem::take(&mut self.vain).into_iter().collect())
    }

    /// Whether everybody is to believe this asker; otherwise it alone is led elsewhere.
    pub fn believes(&mut self, asker: IpAddr, now: Moment) -> bool {
        let lives =
            |(of, (_, since)): (&IpAddr, &(u32, Moment))| *of != asker && *since + SECOND <= now;
        let served = self.served.iter().any(|of| *of != asker) || self.running.iter().any(lives);
        let troubled = self.troubles.iter().any(|(of, (until, _))| *of != asker && now < *until);
        if !served || troubled {
            return true;
        }
        let (until, row) = self.troubles.entry(asker).or_default();
        *until = now + HOLD.times(1 << (*row).min(10)).min(HOLD_MAX);
        *row += 1;
        false
    }

    pub fn avoids(&self, asker: IpAddr, now: Moment) -> bool {
        self.troubles.get(&asker).is_some_and(|(until, _)| now < *until)
    }

    /// It died: what was before says nothing any more.
    pub fn forget(&mut self) {
        *self = Trust::default();
    }

    pub fn sweep(&mut self, now: Moment) {
        self.troubles.retain(|_, (until, _)| now < *until + HOLD_MAX);
    }
}
