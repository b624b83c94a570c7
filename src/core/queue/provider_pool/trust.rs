//! Whose word is taken that a provider is dead.
//!
//! Owns who had good requests there or has some that live, and who alone has
//! trouble with it. One asker may have a broken route: its failure holds a provider for everybody
//! only if no other asker was served there since, or another one says so too.
//! An asker is known by its address: all connections of a host share its routes.

use crate::base::source_key::SourceKey;
use crate::base::time::{Moment, Span};
use std::net::IpAddr;

/// The first hold after a failure; doubled with each failure in a row.
pub const HOLD_FIRST: Span = Span::from_millis(500);
/// The longest hold.
pub const HOLD_MAX: Span = Span::from_secs(30);
/// A request that lives so long shows that its provider serves.
pub(super) const VOUCH_AFTER: Span = Span::from_secs(1);
/// Askers in trouble that are remembered for a provider; one more takes the
/// place of the one whose trouble is oldest.
const TROUBLES_MAX: usize = 32;
/// Askers with requests in progress that are remembered for a provider.
const RUNNING_MAX: usize = 64;
/// Requests in a row that ended without a byte from the provider before that
/// counts as a failure.
const VAIN_MAX: u32 = 3;
/// Within this time two clients must see it.
const VAIN_MEMORY: Span = Span::from_secs(60);

/// An asker that found the provider dead while others were served.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    asker: IpAddr,
    /// It is led elsewhere until then.
    until: Moment,
    row: u32,
}

/// Decides whose report that a provider is dead holds it for everybody.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The last two askers that were served since the last death.
    served: [Option<IpAddr>; 2],
    /// Askers with requests in progress of after the last death: how many, and
    /// since when there are some.
    running: Vec<(IpAddr, u32, Moment)>,
    troubles: Vec<Trouble>,
    /// Requests in a row that ended without a byte, and of which asker; none: of
    /// several.
    vain: u32,
    vain_of: Option<IpAddr>,
    /// The last client that was named in that row, and whether several clients saw it.
    vain_client: Option<(SourceKey, Moment)>,
    vain_of_clients: bool,
}

impl Trust {
    /// A request of this asker was granted.
    pub(super) fn began(&mut self, asker: IpAddr, now: Moment) {
        if let Some(running) = self.running.iter_mut().find(|running| running.0 == asker) {
            running.1 += 1;
        } else if self.running.len() < RUNNING_MAX {
            self.running.push((asker, 1, now));
        }
    }

    /// It is over, in whatever way.
    pub(super) fn over(&mut self, asker: IpAddr) {
        if let Some(place) = self.running.iter().position(|running| running.0 == asker) {
            self.running[place].1 -= 1;
            if self.running[place].1 == 0 {
                self.running.swap_remove(place);
            }
        }
    }

    /// An asker was served.
    pub(super) fn served(&mut self, asker: IpAddr) {
        self.vain = 0;
        if self.served[0] != Some(asker) {
            self.served = [Some(asker), self.served[0]];
        }
        self.troubles.retain(|trouble| trouble.asker != asker);
    }

    /// A request ended without a byte from the provider. Answers whether that
    /// amounts to a failure, and of which asker; `None`: of several. What one client alone
    /// sees is that client's trouble; one that is not named, or of this host, may be many.
    pub(super) fn vain(
        &mut self,
        asker: IpAddr,
        client: Option<SourceKey>,
        now: Moment,
    ) -> Option<Option<IpAddr>> {
        if self.vain == 0 {
            (self.vain_of, self.vain_client, self.vain_of_clients) = (Some(asker), None, false);
        }
        self.vain_of = self.vain_of.filter(|known| *known == asker);
        self.vain = self.vain.saturating_add(1);
        let client = client.filter(|client| !client.is_loopback());
        self.vain_of_clients |= match (client, self.vain_client) {
            (Some(client), Some((other, at))) => client != other && now.since(at) <= VAIN_MEMORY,
            (named, _) => named.is_none(),
        };
        self.vain_client = client.map(|client| (client, now)).or(self.vain_client);
        if self.vain < VAIN_MAX || !self.vain_of_clients {
            return None;
        }
        self.vain = 0;
        Some(self.vain_of)
    }

    /// An asker found the provider dead. Whether everybody is to believe it;
    /// otherwise it alone is led elsewhere for a while.
    pub(super) fn believes(&mut self, asker: IpAddr, now: Moment) -> bool {
        let lives =
            |(of, _, since): &(IpAddr, u32, Moment)| *of != asker && now >= *since + VOUCH_AFTER;
        let other_served = self.served.iter().flatten().any(|served| *served != asker)
            || self.running.iter().any(lives);
        let other_in_trouble =
            self.troubles.iter().any(|trouble| trouble.asker != asker && now < trouble.until);
        if !other_served || other_in_trouble {
            self.forget();
            return true;
        }
        let known = self.troubles.iter().position(|trouble| trouble.asker == asker);
        let row = known.map_or(0, |place| self.troubles.remove(place).row);
        if self.troubles.len() >= TROUBLES_MAX {
            self.troubles.remove(0);
        }
        let hold = HOLD_FIRST.times(1 << row.min(16)).min(HOLD_MAX);
        self.troubles.push(Trouble { asker, until: now + hold, row: row.saturating_add(1) });
        false
    }

    /// It died: what was before says nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Trust::default();
    }

    /// Until when this asker is led elsewhere.
    pub(super) fn avoided_until(&self, asker: IpAddr) -> Moment {
        let trouble = self.troubles.iter().find(|trouble| trouble.asker == asker);
        trouble.map_or(Moment::ZERO, |trouble| trouble.until)
    }

    /// How many askers are led elsewhere now.
    pub(super) fn avoiding(&self, now: Moment) -> usize {
        self.troubles.iter().filter(|trouble| now < trouble.until).count()
    }

    /// Forgets troubles that are long over.
    pub(super) fn sweep(&mut self, now: Moment, memory: Span) {
        self.troubles.retain(|trouble| now < trouble.until + memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at(millis: u64) -> Moment {
        Moment::after_start(Span::from_millis(millis))
    }

    #[test]
    fn one_asker_is_believed_unless_another_was_served() {
        let mut trust = Trust::default();
        assert!(trust.believes(A, at(0)), "no request was served");
        trust.served(A);
        assert!(trust.believes(A, at(1)), "no other asker was served");
        trust.served(B);
        assert!(!trust.believes(A, at(2)), "another was served");
        assert_eq!((trust.avoided_until(A), trust.avoided_until(B)), (at(502), Moment::ZERO));
        assert!(!trust.believes(A, at(600)), "it is the same one again");
        assert_eq!(trust.avoided_until(A), at(1600), "twice as long");
        assert!(trust.believes(B, at(700)), "another one says so too");
        assert_eq!(trust.avoiding(at(700)), 0);
    }

    #[test]
    fn requests_that_live_speak_for_the_provider() {
        let mut trust = Trust::default();
        trust.began(B, at(0));
        assert!(trust.believes(A, at(999)), "it has not shown that it serves");
        trust.began(B, at(1000));
        trust.began(B, at(1500));
        trust.over(B);
        assert!(!trust.believes(A, at(2000)));
        trust.over(B);
        assert!(trust.believes(A, at(9000)));
    }

    #[test]
    fn an_asker_that_is_served_again_is_no_longer_led_elsewhere() {
        let mut trust = Trust::default();
        trust.served(B);
        assert!(!trust.believes(A, at(0)));
        trust.served(A);
        assert_eq!(trust.avoided_until(A), Moment::ZERO);
        assert!(!trust.believes(B, at(1)), "A was served");
    }

    #[test]
    fn three_vain_requests_in_a_row_are_a_failure() {
        let mut trust = Trust::default();
        assert_eq!(
            (trust.vain(A, None, at(0)), trust.vain(A, None, at(0)), trust.vain(A, None, at(0))),
            (None, None, Some(Some(A)))
        );
        assert_eq!(
            (trust.vain(A, None, at(0)), trust.vain(B, None, at(0)), trust.vain(A, None, at(0))),
            (None, None, Some(None))
        );
        assert_eq!((trust.vain(A, None, at(0)), trust.vain(A, None, at(0))), (None, None));
        trust.served(B);
        assert_eq!((trust.vain(A, None, at(0)), trust.vain(A, None, at(0))), (None, None));
    }

    #[test]
    fn what_one_client_alone_sees_is_its_own_trouble() {
        let mut trust = Trust::default();
        let (one, other) = (Some(A.into()), Some(B.into()));
        for _ in 0..100 {
            assert_eq!(trust.vain(A, one, at(0)), None);
        }
        assert_eq!(trust.vain(A, other, at(61_000)), None, "that was long ago");
        assert_eq!(trust.vain(A, one, at(62_000)), Some(Some(A)));
        let local = Some(IpAddr::from([127, 0, 0, 1]).into());
        assert_eq!([trust.vain(A, local, at(0)), trust.vain(A, local, at(0))], [None; 2]);
        assert_eq!(trust.vain(A, local, at(0)), Some(Some(A)), "many may be behind it");
    }
}
