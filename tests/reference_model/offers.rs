//! What providers and their monitors say: offers, withdrawals, failures.

use super::account::Account;
use super::{Expected, Model, Place, Terms, SECOND};
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Mode;
use std::net::IpAddr;

/// Uncounted requests of one offer that vouch at the most.
const VOUCHING: u32 = 64;

/// How long an asker may report a failure after it was led there.
const TAKEN_MEMORY: Span = Span::from_secs(60);

impl Model {
    /// A ticket message. Answers what it should be told; none: the offer is another
    /// connection's, so it is only told how things stand.
    pub fn offer(
        &mut self,
        connection: Key,
        place: Place,
        terms: Terms,
        now: Moment,
    ) -> Option<Expected> {
        self.tick(now);
        let waited = self.waited.get(&place.0).copied().unwrap_or(0);
        self.accounts.entry(place).or_insert_with(|| Account::new(waited, now));
        let other = self.other_owner(connection, place);
        if terms.leaves() && self.stays(connection, place) {
            return None;
        }
        let speaks = !terms.leaves() && !self.silent.contains(&connection);
        let account = self.accounts.get_mut(&place)?;
        account.owner = Some(connection).filter(|_| speaks);
        account.rival = other.or(account.rival);
        let expected = account.report(waited, now);
        if now >= account.hold_end {
            // Uncounted ones that no asker called a failure went well.
            (0..account.spent.min(VOUCHING)).for_each(|_| account.vouch());
        }
        if !account.offers(now) {
            account.came = now;
            self.settled.insert(place.0, now + SECOND);
        }
        (account.tickets, account.capacity, account.spent) = (terms.tickets, terms.capacity, 0);
        account.lease_end = if terms.leaves() { now } else { now + terms.lease };
        Some(expected)
    }

    /// A withdrawal. Answers the tickets that are gone.
    pub fn withdraw(&mut self, connection: Key, place: Place, now: Moment) -> u64 {
        self.tick(now);
        if self.stays(connection, place) {
            return 0;
        }
        self.accounts.get_mut(&place).map_or(0, |account| account.discard(now))
    }

    /// An asker found it dead, perhaps with this request. Answers the tickets that
    /// are gone.
    pub fn fail(
        &mut self,
        connection: Key,
        asker: IpAddr,
        place: Place,
        id: Option<u32>,
        now: Moment,
    ) -> u64 {
        self.tick(now);
        let grant = id.and_then(|id| self.end(connection, id, now));
        let Some(account) = self.accounts.get_mut(&place) else { return 0 };
        // Its request failed, or it was led there lately; this host is believed.
        let own = grant.as_ref().is_some_and(|grant| grant.place == place);
        let led = account.takers.get(&asker).is_some_and(|at| now.since(*at) <= TAKEN_MEMORY);
        if !own && !led && !asker.is_loopback() {
            return 0;
        }
        let stale =
            grant.is_some_and(|grant| grant.place == place && grant.deaths != account.deaths);
        if stale || !account.trust.believes(asker, now) {
            return 0;
        }
        self.suspects = true;
        account.die(now)
    }

    /// The other connection that is alive and offered this one last.
    fn other_owner(&self, connection: Key, place: Place) -> Option<Key> {
        let owner = self.accounts.get(&place)?.owner;
        owner.filter(|owner| *owner != connection && !self.silent.contains(owner))
    }

    /// Whether an offer stays although this connection withdraws it.
    fn stays(&mut self, connection: Key, place: Place) -> bool {
        if self.other_owner(connection, place).is_some() {
            return true;
        }
        let Some(account) = self.accounts.get_mut(&place) else { return false };
        let rival = account.rival.take();
        let rival = rival.filter(|rival| *rival != connection && !self.silent.contains(rival));
        account.owner = rival.or(account.owner);
        rival.is_some()
    }
}

impl Account {
    /// What happened since the last ticket message; from now on it is told.
    fn report(&mut self, waited: u64, now: Moment) -> Expected {
        self.count_active(now);
        let (counted, uncounted) = (self.granted_counted, self.granted_uncounted);
        if counted + uncounted > 0 {
            self.mode = Some(if uncounted > counted { Mode::Paper } else { Mode::Slots });
        }
        let seconds = now.since(self.offered_at).as_secs_f64();
        let mean = self.active_seconds / seconds;
        let expected = Expected {
            active: if seconds > 0.0 { mean } else { f64::from(self.active) },
            granted: counted + uncounted,
            waiting: waited - self.waited_before,
            mode: self.mode,
        };
        (self.offered_at, self.active_seconds, self.waited_before) = (now, 0.0, waited);
        (self.granted_counted, self.granted_uncounted) = (0, 0);
        expected
    }
}
