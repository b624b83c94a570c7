//! One service's providers: what each offered, what of it is in use.
//!
//! Owns the law of tickets: register, spend, refill, discard, expire. A ticket
//! is a place at the provider where a request starts at once; a counted grant
//! occupies one until it ends, another spends one until the next offer.
//! Knows no connection and no waiting line; a scheduler chooses, and is told
//! of every change. Nothing here looks at all providers for one request.

mod pace;
mod pool_member;
mod trust;

pub use pool_member::{PoolMember, PROBATION_MAX};
pub use trust::{HOLD_FIRST, HOLD_MAX};

use crate::base::ordered_index::OrderedIndex;
use crate::base::provider::Provider;
use crate::base::slab::{Key, Slab};
use crate::base::source_key::SourceKey;
use crate::base::ticket::Offer;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{Feedback, Mode, Progress};
use crate::protocol::request::RequestResult;
use crate::scheduler::interface::{Availability, Candidates, Placement, ProviderStats, Scheduler};
use std::collections::HashMap;
use std::net::IpAddr;

/// So long after a provider came, others may be about to come, and requests that
/// can wait are not all led to the first.
const SETTLING: Span = Span::from_secs(1);
/// With so many requests between two offers a provider's times are known.
const SAMPLES_KNOWN: u64 = 10;

/// Providers that an asker alone may have found dead at once; one more takes the place of
/// the oldest.
pub const AVOIDED_MAX: usize = 64;

/// A provider that gets requests is told no smaller part of the mean weight: 0 says that
/// it gets none.
const SHARE_MIN: f64 = 0.001;

/// Askers that were led to a provider last, which are remembered.
const TAKERS_MAX: usize = 64;
/// How long an asker may report a failure after it was led there.
pub const TAKEN_MEMORY: Span = Span::from_secs(60);
/// Askers that may be led away from providers at once; further ones avoid by themselves.
const ASKERS_IN_TROUBLE_MAX: usize = 4096;

/// What a report of a failure led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is of a death that is known, or of a provider that is not.
    Stale,
    /// Only the asker that reported it is led elsewhere.
    Avoided,
    /// The provider is held for everybody; so many free tickets are gone.
    Held(u64),
}

/// A grant that is counted until it ends. There may be very many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The provider's slot among the members.
    pub member: Key,
    granted_at: Moment,
    on_ticket: bool,
    failure_epoch: u32,
    /// Where the client comes from, if the asker said so.
    pub client: Option<SourceKey>,
    /// The client is to keep its provider.
    pub is_sticky: bool,
}

/// All providers of one service.
pub struct ProviderPool {
    members: Slab<PoolMember>,
    by_provider: HashMap<Provider, Key>,
    scheduler: Box<dyn Scheduler>,
    /// How many members are in each state, as of the last look at the clock.
    availability_counts: [usize; Availability::COUNT],
    /// Members by the moment at which their state changes by time alone.
    wakeups: OrderedIndex<Moment>,
    free_seq: u64,
    grant_seq: u64,
    /// Others may be about to come until then: one came shortly before.
    settled: Moment,
    /// The median of the times that requests take, and when it was found.
    typical: (Span, Moment),
    /// What each asker alone found dead lately, and until when it is led elsewhere.
    troubles: HashMap<IpAddr, Vec<(Provider, Moment)>>,
    /// Changes of any member's state, counted.
    changes: u64,
    /// Requests that had to wait or got an error, of all times.
    pub waited: u64,
}

struct PoolView<'a> {
    members: &'a Slab<PoolMember>,
    availabilities: &'static [Availability],
    avoid: &'a [Provider],
}

impl Candidates for PoolView<'_> {
    fn slots(&self) -> usize {
        self.members.slots()
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn stats(&self, slot: usize) -> Option<&ProviderStats> {
        self.members.get_at(slot).map(|member| &member.stats)
    }

    fn candidate(&self, slot: usize) -> Option<&ProviderStats> {
        let suits = |stats: &&ProviderStats| {
            self.availabilities.contains(&stats.availability)
                && !self.avoid.contains(&stats.provider)
        };
        self.stats(slot).filter(suits)
    }
}

impl ProviderPool {
    /// An empty pool.
    pub fn new(scheduler: Box<dyn Scheduler>) -> ProviderPool {
        ProviderPool {
            members: Slab::default(),
            by_provider: HashMap::new(),
            scheduler,
            availability_counts: [0; Availability::COUNT],
            wakeups: OrderedIndex::default(),
            free_seq: 0,
            grant_seq: 0,
            settled: Moment::ZERO,
            typical: (Span::ZERO, Moment::ZERO),
            troubles: HashMap::new(),
            changes: 0,
            waited: 0,
        }
    }

    /// Another scheduler from now on.
    pub fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        let mut known: Vec<&ProviderStats> =
            self.members.iter().map(|(_, member)| &member.stats).collect();
        known.sort_unstable_by_key(|stats| stats.last_grant_seq);
        known.into_iter().for_each(|stats| self.scheduler.on_update(stats));
    }

    /// The state of this member may have changed: counts it, sets its wakeup and
    /// tells the scheduler.
    fn refresh(&mut self, key: Key, now: Moment) {
        self.changes = self.changes.wrapping_add(1);
        let Some(member) = self.members.get_mut(key) else { return };
        let state = member.availability(now);
        self.availability_counts[member.stats.availability as usize] -= 1;
        self.availability_counts[state as usize] += 1;
        member.stats.availability = state;
        let wakeup = member.next_transition(now);
        if wakeup != member.wakeup {
            self.wakeups.remove(member.wakeup, key.index());
            if wakeup != Moment::NEVER {
                self.wakeups.insert(wakeup, key.index());
            }
            member.wakeup = wakeup;
        }
        self.scheduler.on_update(&member.stats);
    }

    /// Leases and holds that have ended by now are over.
    fn advance(&mut self, now: Moment) {
        while let Some((_, slot)) = self.wakeups.first().filter(|(wakeup, _)| *wakeup <= now) {
            let Some(key) = self.members.key_at(slot) else { return };
            if let Some(member) = self.members.get_mut(key) {
                member.look_at_the_clock(now);
            }
            self.refresh(key, now);
        }
    }

    /// A number that is another one after any change of a provider's state up to `now`.
    pub fn changes(&mut self, now: Moment) -> u64 {
        self.advance(now);
        self.changes
    }

    /// Until when requests that can wait do so for providers that may be about to come.
    pub fn settled(&self) -> Moment {
        self.settled
    }

    /// When time alone will change something here.
    pub fn next_change(&self) -> Moment {
        self.wakeups.first().map_or(Moment::NEVER, |(wakeup, _)| wakeup)
    }

    /// How many providers it knows.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The providers it knows.
    pub fn members(&self) -> impl Iterator<Item = &PoolMember> {
        self.members.iter().map(|(_, member)| member)
    }

    /// The provider of a member.
    pub fn provider(&self, member: Key) -> Option<Provider> {
        self.members.get(member).map(|member| member.stats.provider)
    }

    /// Whether this provider is known.
    pub fn contains(&self, provider: Provider) -> bool {
        self.by_provider.contains_key(&provider)
    }

    /// Enters an offer, in place of the provider's earlier one.
    pub fn offer(&mut self, offer: Offer, now: Moment) -> Feedback {
        let key = match self.by_provider.get(&offer.provider) {
            Some(key) => *key,
            None => self.add_member(offer.provider, now),
        };
        self.advance(now);
        let (waited, typical) = (self.waited, self.typical(now));
        let Some(member) = self.members.get_mut(key) else { return Feedback::default() };
        member.count_active(now);
        if member.granted_counted + member.granted_uncounted > 0 {
            member.mode = if member.granted_uncounted > member.granted_counted {
                Mode::Paper
            } else {
                Mode::Slots
            };
        }
        let passed = now.since(member.offered_at);
        let feedback = member.feedback(passed, waited);
        if member.granted_counted < SAMPLES_KNOWN {
            // It gets few requests because it was slow once, and so would stay slow.
            member.forget_slowness(typical, passed);
        }
        (member.offered_at, member.active_seconds, member.waited_before) = (now, 0.0, waited);
        (member.granted_counted, member.granted_uncounted) = (0, 0);

        let offered = now < member.lease_end;
        let had_tickets = offered && member.stats.free() > 0;
        if now >= member.hold_end {
            // Uncounted requests never end; those that no peer called a failure went well.
            for _ in 0..member.stats.spent.min(PROBATION_MAX) {
                member.record_success(true);
            }
        }
        if !offered {
            member.came = now;
            self.settled = now + SETTLING;
        }
        member.stats.tickets = offer.tickets;
        member.stats.capacity = offer.capacity;
        member.stats.weight = offer.weight.thousandths().max(1);
        member.stats.spent = 0;
        // One with slots and no place here now has not left.
        let leaves = offer.capacity == 0 && offer.weight.thousandths() == 0;
        member.lease_end = if leaves { now } else { now + offer.lease };
        if !had_tickets {
            // A repeated offer keeps its place in the order, a new one comes last.
            self.free_seq += 1;
            member.stats.free_since_seq = self.free_seq;
        }
        self.refresh(key, now);
        feedback
    }

    /// Notes where the offers of a provider come from.
    pub fn set_source(&mut self, provider: Provider, source: IpAddr) {
        if let Some(member) = self.member_mut(provider) {
            member.source = source;
        }
    }

    /// How many providers come from this source.
    pub fn count_of_source(&self, source: IpAddr) -> usize {
        self.members().filter(|member| member.source == source).count()
    }

    /// The youngest provider of the source that has most of them, if that is at least two
    /// more than `source` has; one without requests if there is one.
    pub fn to_displace(&self, source: IpAddr) -> Option<Provider> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for member in self.members() {
            *counts.entry(member.source).or_default() += 1;
        }
        let own = counts.get(&source).copied().unwrap_or(0);
        let (largest, _) = counts
            .into_iter()
            .max_by_key(|(ip, count)| (*count, *ip))
            .filter(|(_, count)| *count > own + 1)?;
        self.members()
            .filter(|member| member.source == largest)
            .max_by_key(|member| (member.stats.active == 0, member.serial))
            .map(|member| member.stats.provider)
    }

    /// Forgets a provider at once, whatever runs there.
    pub fn remove(&mut self, provider: Provider) {
        if let Some(key) = self.by_provider.get(&provider).copied() {
            self.remove_member(key);
        }
    }

    fn remove_member(&mut self, key: Key) {
        self.changes = self.changes.wrapping_add(1);
        self.scheduler.on_remove(key.index());
        if let Some(member) = self.members.remove(key) {
            self.availability_counts[member.stats.availability as usize] -= 1;
            self.wakeups.remove(member.wakeup, key.index());
            self.by_provider.remove(&member.stats.provider);
        }
    }

    /// What is known of a provider, without any change.
    pub fn feedback(&self, provider: Provider) -> Feedback {
        let member = self.by_provider.get(&provider).and_then(|key| self.members.get(*key));
        let Some(member) = member else { return Feedback::default() };
        let progress = Progress { now: member.stats.active, ..Progress::default() };
        let active = f64::from(member.stats.active);
        Feedback { active, mode: member.mode, progress: Some(progress), ..Feedback::default() }
    }

    /// The weight of a provider beside the mean of those that get requests now; 1: the
    /// same as the others, or it is not known; 0: it gets none.
    pub fn share(&self, provider: Provider, now: Moment) -> f64 {
        let weight = |member: &PoolMember| f64::from(member.stats.weight);
        let open = |member: &PoolMember| {
            member.availability(now) != Availability::Unavailable && member.stats.capacity > 0
        };
        let (sum, count) = self
            .members()
            .filter(|member| open(member))
            .fold((0.0, 0.0), |(sum, count), member| (sum + weight(member), count + 1.0));
        let own = self.by_provider.get(&provider).and_then(|key| self.members.get(*key));
        match own {
            Some(own) if !open(own) => 0.0,
            Some(own) if sum > 0.0 => (weight(own) * count / sum).max(SHARE_MIN),
            _ => 1.0,
        }
    }

    /// The median of the times that requests take at the providers; looked up
    /// once a second at most.
    fn typical(&mut self, now: Moment) -> Span {
        let (known, at) = self.typical;
        if now.since(at) < Span::from_secs(1) {
            return known;
        }
        let all = self.members.iter().map(|(_, member)| &member.stats);
        let mut times: Vec<Span> =
            all.filter(|stats| stats.samples > 0).map(|stats| stats.service_time).collect();
        let middle = times.len() / 2;
        let median =
            if times.is_empty() { Span::MAX } else { *times.select_nth_unstable(middle).1 };
        self.typical = (median, now);
        median
    }

    fn add_member(&mut self, provider: Provider, now: Moment) -> Key {
        self.grant_seq += 1;
        let key = self.members.insert(PoolMember::new(provider, self.grant_seq, self.waited, now));
        if let Some(member) = self.members.get_mut(key) {
            member.stats.slot = key.index();
        }
        self.availability_counts[Availability::Unavailable as usize] += 1;
        self.by_provider.insert(provider, key);
        key
    }

    /// Whether any request at all would find a candidate.
    pub fn any_available(&mut self, now: Moment) -> bool {
        self.advance(now);
        self.availability_counts[..Availability::GRANTABLE].iter().any(|count| *count > 0)
    }

    /// Whether such a request would find a candidate.
    pub fn has_candidate(
        &mut self,
        counted: bool,
        patient: bool,
        avoid: &[Provider],
        now: Moment,
    ) -> bool {
        self.advance(now);
        self.placement(counted, patient && now < self.settled, None, avoid).is_some()
    }

    /// What to ask the scheduler: for candidates with free tickets, or (for a
    /// counted request) within their capacity, or (if it has no time to wait)
    /// beyond the pace at which new ones are let in; nothing if there are none.
    fn placement(
        &self,
        counted: bool,
        patient: bool,
        client: Option<IpAddr>,
        avoid: &[Provider],
    ) -> Option<Placement> {
        let tiers = [(true, false), (false, false), (false, true)];
        let tiers = if patient { &tiers[..2] } else { &tiers[..] };
        let questions = tiers.iter().map(|(free_tickets_only, on_reserve)| Placement {
            free_tickets_only: *free_tickets_only,
            on_reserve: *on_reserve,
            counted,
            client,
        });
        questions.into_iter().find(|placement| {
            let availabilities = placement.availabilities();
            let all: usize =
                availabilities.iter().map(|state| self.availability_counts[*state as usize]).sum();
            let view = PoolView { members: &self.members, availabilities, avoid: &[] };
            let avoided = |provider: &&Provider| {
                self.by_provider
                    .get(*provider)
                    .is_some_and(|key| view.candidate(key.index()).is_some())
            };
            // Mostly there are more than could be avoided, and counting is not needed.
            all > avoid.len() || all > 0 && all > distinct(avoid).filter(avoided).count()
        })
    }

    /// A place for one request: on a free ticket, else (only for a counted
    /// one) within the capacity of another; else none. One that is patient can wait,
    /// and finds no provider beyond the pace at which new ones are let in.
    pub fn grant(
        &mut self,
        counted: bool,
        patient: bool,
        client: Option<IpAddr>,
        avoid: &[Provider],
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        self.advance(now);
        let placement = self.placement(counted, patient && now < self.settled, client, avoid)?;
        let view =
            PoolView { members: &self.members, availabilities: placement.availabilities(), avoid };
        let slot = self
            .scheduler
            .choose(&view, placement)
            .filter(|slot| view.candidate(*slot).is_some())?;
        self.allocate(self.members.key_at(slot)?, placement.free_tickets_only, counted, now)
    }

    /// A place for one request at this provider, on a free ticket or (for a
    /// counted one) within its capacity.
    pub fn grant_at(
        &mut self,
        provider: Provider,
        counted: bool,
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        self.advance(now);
        let key = *self.by_provider.get(&provider)?;
        let on_ticket = self.members.get(key)?.can_take(counted, now)?;
        self.allocate(key, on_ticket, counted, now)
    }

    /// Whether this provider could take such a request now.
    pub fn can_take(&self, provider: Provider, counted: bool, now: Moment) -> bool {
        let member = self.by_provider.get(&provider).and_then(|key| self.members.get(*key));
        member.is_some_and(|member| member.can_take(counted, now).is_some())
    }

    /// Whether there is more than one candidate for a request.
    pub fn has_choice(&mut self, counted: bool, avoid: &[Provider], now: Moment) -> bool {
        self.advance(now);
        let Some(placement) = self.placement(counted, false, None, avoid) else { return false };
        let availabilities = placement.availabilities();
        let all: usize =
            availabilities.iter().map(|state| self.availability_counts[*state as usize]).sum();
        let view = PoolView { members: &self.members, availabilities, avoid: &[] };
        let avoided = |provider: &&Provider| {
            let key = self.by_provider.get(*provider);
            key.is_some_and(|key| view.candidate(key.index()).is_some())
        };
        all > avoid.len() + 1 || all > distinct(avoid).filter(avoided).count() + 1
    }

    /// At most `most` candidates for a request, longest ago granted first.
    pub fn candidates(
        &mut self,
        counted: bool,
        avoid: &[Provider],
        most: usize,
        now: Moment,
    ) -> Vec<&ProviderStats> {
        self.advance(now);
        let Some(placement) = self.placement(counted, false, None, avoid) else {
            return Vec::new();
        };
        let availabilities = placement.availabilities();
        let all = self.members.iter().map(|(_, member)| &member.stats);
        let mut found: Vec<_> = all
            .filter(|stats| {
                availabilities.contains(&stats.availability) && !avoid.contains(&stats.provider)
            })
            .collect();
        if found.len() > most {
            found.select_nth_unstable_by_key(most, |stats| stats.last_grant_seq);
            found.truncate(most);
        }
        found.sort_unstable_by_key(|stats| stats.last_grant_seq);
        found
    }

    fn allocate(
        &mut self,
        key: Key,
        on_ticket: bool,
        counted: bool,
        now: Moment,
    ) -> Option<(Provider, Grant)> {
        self.grant_seq += 1;
        let member = self.members.get_mut(key)?;
        member.granted += 1;
        member.stats.last_grant_seq = self.grant_seq;
        if counted {
            member.count_active(now);
            member.stats.active += 1;
            member.probation_active += 1;
            member.granted_counted += 1;
            if member.probation != u32::MAX {
                member.probes.push_back(now);
            }
            member.stats.shadow = member.pace.granted(now);
        } else {
            member.stats.spent += 1;
            member.granted_uncounted += 1;
        }
        debug_assert!(!counted || member.stats.active <= member.stats.capacity);
        let provider = member.stats.provider;
        let grant = Grant {
            member: key,
            granted_at: now,
            on_ticket,
            failure_epoch: member.failure_epoch,
            client: None,
            is_sticky: false,
        };
        self.refresh(key, now);
        Some((provider, grant))
    }

    /// A place at a provider was given to this asker.
    pub fn taken_by(&mut self, grant: &Grant, asker: IpAddr, now: Moment) {
        let Some(member) = self.members.get_mut(grant.member) else { return };
        let takers = &mut member.takers;
        if let Some(known) = takers.iter_mut().find(|(known, _)| *known == asker) {
            known.1 = now;
            return;
        }
        if takers.len() >= TAKERS_MAX {
            if let Some(oldest) = takers.iter_mut().min_by_key(|(_, at)| *at) {
                *oldest = (asker, now);
            }
            return;
        }
        takers.push((asker, now));
    }

    /// Whether this asker was led to a provider within [`TAKEN_MEMORY`].
    pub fn was_taken_by(&self, provider: Provider, asker: IpAddr, now: Moment) -> bool {
        let Some(member) = self.member(provider) else { return false };
        let recent =
            |(known, at): &(IpAddr, Moment)| *known == asker && now.since(*at) <= TAKEN_MEMORY;
        member.takers.iter().any(recent)
    }

    /// Whose request a grant is for, where it is counted.
    pub fn began(&mut self, grant: &Grant, asker: IpAddr) {
        if let Some(member) = self
            .members
            .get_mut(grant.member)
            .filter(|member| member.failure_epoch == grant.failure_epoch)
        {
            member.trust.began(asker, grant.granted_at);
        }
    }

    /// A ticket that was spent for a peer that is gone is free again, unless the provider has
    /// offered anew or died since.
    pub fn refund(&mut self, grant: Grant, now: Moment) {
        let Some(member) = self.members.get_mut(grant.member) else { return };
        if grant.failure_epoch == member.failure_epoch
            && grant.granted_at >= member.offered_at
            && member.stats.spent > 0
        {
            if member.stats.free() == 0 {
                self.free_seq += 1;
                member.stats.free_since_seq = self.free_seq;
            }
            member.stats.spent -= 1;
            self.refresh(grant.member, now);
        }
    }

    /// A counted request of this asker ended. Answers whether that was one too
    /// many in a row that ended without a byte: the provider's failure, and which
    /// asker's word that is (none: of several).
    pub fn release(
        &mut self,
        grant: Grant,
        result: RequestResult,
        asker: IpAddr,
        now: Moment,
    ) -> Option<Option<IpAddr>> {
        self.advance(now);
        let free_seq = self.free_seq + 1;
        let member = self.members.get_mut(grant.member)?;
        member.count_active(now);
        let had_tickets = member.stats.free() > 0;
        debug_assert!(member.stats.active > 0);
        member.stats.active = member.stats.active.saturating_sub(1);
        if !had_tickets && member.stats.free() > 0 {
            member.stats.free_since_seq = free_seq;
            self.free_seq = free_seq;
        }
        let mut failed = None;
        // What was in progress at a death took as long as its client's patience,
        // which says nothing about how quick the provider is when it is back.
        if grant.failure_epoch == member.failure_epoch {
            member.probation_active = member.probation_active.saturating_sub(1);
            member.trust.over(asker);
            let probe = member.take_probe(grant.granted_at);
            match result {
                RequestResult::Good => {
                    member.record_success(probe);
                    member.trust.served(asker);
                    sample(member, &grant, now);
                }
                RequestResult::Empty | RequestResult::Reset => {
                    failed = member.trust.vain(asker, grant.client, now);
                }
                RequestResult::Unused => {}
            }
        }
        self.refresh(grant.member, now);
        failed
    }

    /// This asker (none: several) found a provider dead: its tickets go, and it
    /// is held back for a while; or only the asker is led elsewhere. With the
    /// grant of the request that failed: one from before the death that is already
    /// known says nothing new.
    pub fn fail(
        &mut self,
        provider: Provider,
        grant: Option<Grant>,
        asker: Option<IpAddr>,
        now: Moment,
    ) -> Verdict {
        let Some(key) = self.by_provider.get(&provider).copied() else { return Verdict::Stale };
        self.advance(now);
        let Some(member) = self.members.get_mut(key) else { return Verdict::Stale };
        member.failures += 1;
        if grant.is_some_and(|grant| grant.failure_epoch != member.failure_epoch) {
            return Verdict::Stale;
        }
        if let Some(asker) = asker.filter(|asker| !member.trust.believes(*asker, now)) {
            let until = member.trust.avoided_until(asker);
            self.note_trouble(asker, provider, until, now);
            return Verdict::Avoided;
        }
        member.trust.forget();
        member.failure_epoch = member.failure_epoch.wrapping_add(1);
        member.probation = 1;
        member.probation_active = 0;
        member.probes.clear();
        if now >= member.hold_end {
            // Many clients may notice one death; it counts once.
            member.consecutive_failures = member.consecutive_failures.saturating_add(1);
            let hold =
                HOLD_FIRST.times(1 << (member.consecutive_failures - 1).min(16)).min(HOLD_MAX);
            member.hold_end = now + hold;
        }
        let free = member.close(now);
        self.refresh(key, now);
        Verdict::Held(free)
    }

    /// An asker is led away from a provider that it alone found dead.
    fn note_trouble(&mut self, asker: IpAddr, provider: Provider, until: Moment, now: Moment) {
        if self.troubles.len() >= ASKERS_IN_TROUBLE_MAX && !self.troubles.contains_key(&asker) {
            return;
        }
        let known = self.troubles.entry(asker).or_default();
        known.retain(|(other, until)| *other != provider && now < *until);
        if known.len() >= AVOIDED_MAX {
            known.remove(0);
        }
        known.push((provider, until));
    }

    /// Whether this asker is led away from any provider.
    pub fn in_trouble(&self, asker: IpAddr, now: Moment) -> bool {
        let known = if self.troubles.is_empty() { None } else { self.troubles.get(&asker) };
        known.is_some_and(|known| known.iter().any(|(_, until)| now < *until))
    }

    /// The providers that this asker alone found dead, at most [`AVOIDED_MAX`], and the
    /// first moment at which one of them may be tried again.
    pub fn avoided(&self, asker: IpAddr, now: Moment) -> (Vec<Provider>, Moment) {
        let (mut first, mut avoided) = (Moment::NEVER, Vec::new());
        let known = if self.troubles.is_empty() { None } else { self.troubles.get(&asker) };
        for (provider, until) in known.into_iter().flatten() {
            // It was served there since, or everybody is kept away now.
            let lasts = self.member(*provider).map(|member| member.trust.avoided_until(asker));
            if now < *until && lasts.is_some_and(|lasts| now < lasts) {
                first = first.min(*until);
                avoided.push(*provider);
            }
        }
        (avoided, first)
    }

    /// A provider leaves; its running requests stay. Answers how many free
    /// tickets went.
    pub fn withdraw(&mut self, provider: Provider, now: Moment) -> u64 {
        let Some(key) = self.by_provider.get(&provider).copied() else { return 0 };
        let free = self.members.get_mut(key).map_or(0, |member| member.close(now));
        self.refresh(key, now);
        free
    }

    /// No grants to this provider before `drain_end`, which may be over already. A
    /// provider that is unknown becomes known, so that its first offer finds the drain.
    pub fn drain(&mut self, provider: Provider, drain_end: Moment, now: Moment) {
        let known = self.by_provider.get(&provider).copied();
        let key = known.unwrap_or_else(|| self.add_member(provider, now));
        if let Some(member) = self.members.get_mut(key) {
            member.drain_end = drain_end;
        }
        self.refresh(key, now);
    }

    /// What is known of a provider.
    pub fn member(&self, provider: Provider) -> Option<&PoolMember> {
        self.by_provider.get(&provider).and_then(|key| self.members.get(*key))
    }

    /// What is known of a provider.
    pub fn member_mut(&mut self, provider: Provider) -> Option<&mut PoolMember> {
        self.by_provider.get(&provider).and_then(|key| self.members.get_mut(*key))
    }

    /// All members, to mark what the log knows.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut PoolMember> {
        self.members.iter_mut()
    }

    /// Forgets providers whose lease ended long enough ago.
    pub fn sweep(&mut self, now: Moment) {
        self.advance(now);
        self.members.iter_mut().for_each(|member| member.trust.sweep(now, HOLD_MAX));
        self.troubles.retain(|_, known| {
            known.retain(|(_, until)| now < *until);
            !known.is_empty()
        });
        let forgotten = |(key, member): (Key, &PoolMember)| member.is_expired(now).then_some(key);
        let keys: Vec<Key> = self.members.iter().filter_map(forgotten).collect();
        keys.into_iter().for_each(|key| self.remove_member(key));
    }
}

/// The time of a request that was served is a sample of the provider's speed.
fn sample(member: &mut PoolMember, grant: &Grant, now: Moment) {
    let seconds = now.since(grant.granted_at).as_secs_f64();
    member.ended += 1;
    member.ended_seconds += seconds;
    let logarithm = seconds.max(1e-6).ln();
    member.ended_logarithms += logarithm;
    member.pace.ended(seconds, logarithm, now);
    if grant.on_ticket && !member.pace.suspect() {
        let stats = &mut member.stats;
        stats.samples += 1;
        let part = (1.0 / stats.samples as f64).max(0.02);
        let mean = stats.service_time.as_secs_f64();
        stats.service_time = Span::from_secs_f64(mean + part * (seconds - mean));
    }
}

fn distinct(providers: &[Provider]) -> impl Iterator<Item = &Provider> {
    providers
        .iter()
        .enumerate()
        .filter(|(at, provider)| !providers[..*at].contains(provider))
        .map(|(_, provider)| provider)
}

#[cfg(test)]
mod scheduler_tests;
#[cfg(test)]
mod tests;
