//! What requests get: candidates, grants, ends, and the order of those that wait.

use super::account::Account;
use super::{Ask, Grant, Model, Place};
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::Moment;
use pegasus_core::protocol::request::RequestResult;

impl Model {
    /// Providers of its service that it may be led to, as this rule says.
    fn providers<'a>(
        &'a self,
        ask: &'a Ask,
        now: Moment,
        rule: impl Fn(&Account) -> bool + 'a,
    ) -> impl Iterator<Item = Provider> + 'a {
        let all = self.accounts.iter().filter(move |((service, provider), account)| {
            *service == ask.service
                && !ask.avoid.contains(provider)
                && !account.trust.avoids(ask.asker, now)
                && rule(account)
        });
        all.map(|((_, provider), _)| *provider)
    }

    /// Whether it waits for providers that may be about to come.
    fn is_patient(&self, ask: &Ask, now: Moment) -> bool {
        let settled = self.settled.get(&ask.service).copied().unwrap_or_default();
        now < ask.half_time() && now < settled
    }

    /// The providers that the queue may choose for such a request.
    pub fn candidates(&mut self, ask: &Ask, now: Moment) -> Vec<Provider> {
        self.tick(now);
        let counted = ask.counted;
        let on_ticket = self.providers(ask, now, |of| of.on_ticket(counted, now));
        let on_ticket: Vec<Provider> = on_ticket.collect();
        if !on_ticket.is_empty() || !counted {
            return on_ticket;
        }
        let in_pace: Vec<_> = self.providers(ask, now, |of| of.in_pace(now)).collect();
        if !in_pace.is_empty() || self.is_patient(ask, now) {
            return in_pace;
        }
        self.providers(ask, now, |of| of.on_capacity(now)).collect()
    }

    /// Which of those that wait, in the order of their coming, is served next: the
    /// oldest, or the newest once the oldest has waited more than half of its time.
    pub fn first(&mut self, line: &[Ask], now: Moment) -> Option<usize> {
        let late = now > line.first()?.half_time();
        let mut order: Vec<usize> = (0..line.len()).collect();
        if late {
            order.reverse();
        }
        order.into_iter().find(|place| !self.candidates(&line[*place], now).is_empty())
    }

    /// A `next` found no place.
    pub fn unlucky(&mut self, service: ServiceName) {
        *self.waited.entry(service).or_default() += 1;
    }

    /// The queue leads a request there; panics where it may not.
    #[track_caller]
    pub fn grant(
        &mut self,
        connection: Key,
        id: Option<u32>,
        ask: &Ask,
        provider: Provider,
        now: Moment,
    ) {
        self.tick(now);
        let place: Place = (ask.service, provider);
        assert!(!ask.avoid.contains(&provider), "{provider} was to be avoided");
        let Some(account) = self.accounts.get(&place) else { panic!("{provider} never offered") };
        assert!(account.offers(now), "the lease of {provider} is over");
        assert!(account.hold_end <= now, "{provider} is held");
        assert!(!account.trust.avoids(ask.asker, now), "{provider} fails for this asker");
        let counted = ask.counted;
        let fits = if account.on_ticket(counted, now) {
            true
        } else if self.providers(ask, now, |of| of.on_sure_ticket(counted, now)).next().is_some() {
            false
        } else if self.providers(ask, now, |of| of.in_pace(now)).next().is_some() {
            account.in_pace(now)
        } else {
            account.on_capacity(now) && !self.is_patient(ask, now)
        };
        assert!(
            fits && (counted || account.free(now) > 0),
            "{provider} has no place for {ask:?}: {account:?}"
        );
        assert_eq!(counted, id.is_some(), "an id for a request that is counted");
        let account = self.accounts.get_mut(&place).expect("just seen");
        account.takers.insert(ask.asker, now);
        let Some(id) = id else {
            (account.spent, account.granted_uncounted) =
                (account.spent + 1, account.granted_uncounted + 1);
            return;
        };
        account.count_active(now);
        account.active += 1;
        account.probing += 1;
        account.granted_counted += 1;
        assert!(account.active <= account.capacity);
        account.trust.began(ask.asker, now);
        if account.on_probation() {
            account.probes.push(now);
        }
        let deaths = account.deaths;
        let grant = Grant { place, asker: ask.asker, at: now, deaths, probe: false };
        assert!(self.grants.insert((connection, id), grant).is_none(), "an id granted twice");
    }

    /// A counted request ended. False: it was not in progress.
    pub fn done(&mut self, connection: Key, id: u32, result: RequestResult, now: Moment) -> bool {
        self.tick(now);
        let Some(grant) = self.end(connection, id, now) else { return false };
        let account = self.accounts.get_mut(&grant.place).expect("it was granted there");
        if grant.deaths != account.deaths {
            return true;
        }
        match result {
            RequestResult::Good => {
                account.samples += 1;
                account.failures_in_row = 0;
                account.trust.served(grant.asker);
                if grant.probe {
                    account.vouch();
                }
            }
            RequestResult::Empty | RequestResult::Reset => {
                let Some(askers) = account.trust.vain(grant.asker) else { return true };
                let several = askers.len() > 1;
                if several || account.trust.believes(grant.asker, now) {
                    self.suspects = true;
                    account.die(now);
                }
            }
            RequestResult::Unused => {}
        }
        true
    }

    /// It holds its place no more, whatever became of it.
    pub(super) fn end(&mut self, connection: Key, id: u32, now: Moment) -> Option<Grant> {
        let mut grant = self.grants.remove(&(connection, id))?;
        let account = self.accounts.get_mut(&grant.place).expect("it was granted there");
        account.count_active(now);
        account.active -= 1;
        if grant.deaths == account.deaths {
            account.probing -= 1;
            account.trust.over(grant.asker);
            let probe = account.probes.iter().position(|at| *at == grant.at);
            grant.probe = probe.map(|place| account.probes.remove(place)).is_some();
        }
        Some(grant)
    }
}
