//! Who gets a slot at a provider, who waits for one, and how it is given back.
//!
//! Owns the way of a request through the queue: granted, waiting, turned away,
//! ended, failed, forgotten. Each gets exactly one answer.

use super::shares::SearchState;
use super::{
    ConnectionState, PendingNext, ProviderEvent, RequestState, ServiceState, TicketQueue, Timer,
    WORK_PER_TURN,
};
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::source_key::SourceKey;
use crate::base::time::{Moment, Span};
use crate::protocol::reply::{ErrorCode, ProtocolError, Reply};
use crate::protocol::request::{Next, RequestResult};
use crate::queue::affinity::Assignment;
use crate::queue::provider_pool::{Grant, ProviderPool, Verdict};
use crate::queue::wait_queue::Waiter;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

/// The providers that a request is not to be led to: those that it names, and
/// those that its conn alone found dead; and when the first of these may be
/// tried again.
pub(super) fn avoid<'a>(
    pool: &ProviderPool,
    next: &'a Next,
    conn: IpAddr,
    now: Moment,
) -> (Cow<'a, [Provider]>, Moment) {
    let (mut own, until) = pool.avoided(conn, now);
    if own.is_empty() {
        return (Cow::Borrowed(&next.avoid), Moment::NEVER);
    }
    own.extend_from_slice(&next.avoid);
    (Cow::Owned(own), until)
}

/// Requests that avoid certain providers that one search looks at; the next one goes on
/// behind them.
const LOOKS_MAX: usize = 128;
/// After so long a search goes on.
const LOOK_PAUSE: Span = Span::from_millis(1);

/// A search for the waiting request to be served.
struct Look {
    /// Whether there is a candidate for one that avoids none: counted or not, patient or not.
    suits: [[bool; 2]; 2],
    from: usize,
    seen: usize,
    /// When time alone may help one that was passed over.
    until: Moment,
}

impl Look {
    fn new(search: &mut SearchState, pool: &mut ProviderPool, now: Moment) -> Look {
        if search.passed == 0 {
            search.begun_at = pool.changes(now);
        }
        let mut suits =
            |counted| [false, true].map(|patient| pool.has_candidate(counted, patient, &[], now));
        let suits = [suits(false), suits(true)];
        Look { suits, from: search.passed, seen: 0, until: Moment::NEVER }
    }

    /// Whether no request at all can be served, and no request need be looked at.
    fn is_hopeless(&self, pool: &ProviderPool, now: Moment) -> bool {
        now >= pool.settled() && self.suits == [[false; 2]; 2]
    }

    /// Whether a request can be served: then whether it is patient.
    fn suits(
        &mut self,
        waiter: &Waiter<PendingNext>,
        pool: &mut ProviderPool,
        askers: &[Option<ConnectionState>],
        now: Moment,
    ) -> Option<bool> {
        let PendingNext { connection, next, question, .. } = &waiter.request;
        if question.is_some() {
            return None;
        }
        let patient = now < waiter.half_time();
        if patient && now < pool.settled() {
            self.until = self.until.min(waiter.half_time()).min(pool.settled());
        }
        let counted = next.id.is_some();
        if !self.suits[usize::from(counted)][usize::from(patient)] {
            return None;
        }
        let conn = askers.get(connection.index()).and_then(Option::as_ref);
        let peer = conn.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |conn| conn.peer);
        if next.avoid.is_empty() && !pool.in_trouble(peer, now) {
            return Some(patient);
        }
        self.seen += 1;
        if self.seen <= self.from || self.seen > self.from + LOOKS_MAX {
            return None;
        }
        let (avoid, over) = avoid(pool, next, peer, now);
        self.until = self.until.min(over);
        pool.has_candidate(counted, patient, &avoid, now).then_some(patient)
    }

    /// It found none. Answers when it may be worth while to look again.
    fn over(self, search: &mut SearchState, pool: &mut ProviderPool, now: Moment) -> Moment {
        #[cfg(test)]
        {
            search.looks += self.seen.saturating_sub(self.from).min(LOOKS_MAX) as u64;
        }
        let changes = pool.changes(now);
        search.done_at = changes;
        if self.seen > self.from + LOOKS_MAX {
            search.passed = self.from + LOOKS_MAX;
            return now + LOOK_PAUSE;
        }
        search.passed = 0;
        // What those at the front were looked at for may have changed since.
        let again = self.from > 0 && search.begun_at != changes;
        if again {
            now + LOOK_PAUSE
        } else {
            self.until
        }
    }
}

impl TicketQueue {
    /// Puts a request into the waiting line.
    pub(super) fn enqueue(
        &mut self,
        key: Key,
        pending: PendingNext,
        deadline: Moment,
        since: Moment,
    ) -> u64 {
        let (connection, id) = (pending.connection, pending.next.id);
        let source = self.source(connection);
        let Some(state) = self.services.get_mut(key) else { return 0 };
        let position = state.waiting.push(Waiter { since, deadline, request: pending });
        state.sources.add(source);
        self.sources.add(source);
        self.waiting += 1;
        let services = &self.services;
        self.timers.prune(|timer| match timer {
            Timer::WaitTimeout { service, position }
            | Timer::PluginTimeout { service, position } => {
                services.get(service).is_some_and(|state| state.waiting.get(position).is_some())
            }
            Timer::Turns { service } => services.get(service).is_some(),
        });
        if let Some(conn) = self.connection_mut(connection) {
            match id {
                Some(id) => {
                    conn.requests.insert(id, RequestState::Waiting { service: key, position });
                    self.ids += 1;
                }
                None => drop(conn.waiting_uncounted.insert((key, position))),
            }
        }
        position
    }

    pub(super) fn refuse(&mut self, pending: &PendingNext, error: ProtocolError) {
        self.refused += 1;
        if let Some(state) =
            self.by_name.get(&pending.next.service).and_then(|key| self.services.get_mut(*key))
        {
            state.refused += 1;
        }
        self.reply(pending.connection, pending.slot, Reply::Error { error, id: pending.next.id });
    }

    pub(super) fn affinity_of(&self, service: ServiceName) -> Option<Span> {
        self.options
            .affinities
            .iter()
            .find(|(name, _)| *name == service)
            .map(|(_, timeout)| *timeout)
    }

    /// The provider that the client of a request is used to, if that can take it.
    pub(super) fn sticky_provider(
        &self,
        key: Key,
        pending: &PendingNext,
        now: Moment,
    ) -> Option<Provider> {
        let next = &pending.next;
        self.affinity_of(next.service)?;
        let (state, counted) = (self.services.get(key)?, next.id.is_some());
        let (avoid, _) = avoid(&state.pool, next, self.peer(pending.connection), now);
        let at_home = |provider: Provider| {
            !avoid.contains(&provider) && state.pool.can_take(provider, counted, now)
        };
        match self.affinity.assignment(next.client?.into(), next.service, now)? {
            Assignment::Provider(provider) => Some(provider).filter(|provider| at_home(*provider)),
            Assignment::Address(ip) => {
                let mut there = state
                    .pool
                    .members()
                    .map(|member| member.stats.provider)
                    .filter(|known| known.ip == ip);
                there.find(|provider| at_home(*provider))
            }
        }
    }

    pub(super) fn try_grant(
        &mut self,
        key: Key,
        pending: &PendingNext,
        patient: bool,
        now: Moment,
    ) -> bool {
        let (next, home) = (&pending.next, self.sticky_provider(key, pending, now));
        let (counted, peer) = (next.id.is_some(), self.peer(pending.connection));
        let Some(state) = self.services.get_mut(key) else { return false };
        let granted = match home {
            Some(provider) => state.pool.grant_at(provider, counted, now),
            None => {
                let (avoid, until) = avoid(&state.pool, next, peer, now);
                let granted = state.pool.grant(counted, patient, next.client, &avoid, now);
                if granted.is_none() && until != Moment::NEVER {
                    state.watch(&mut self.timers, key, until);
                }
                granted
            }
        };
        match granted {
            Some((provider, grant)) => self.granted(key, pending, provider, grant, now),
            None => return false,
        }
        true
    }

    pub(super) fn granted(
        &mut self,
        key: Key,
        pending: &PendingNext,
        provider: Provider,
        mut grant: Grant,
        now: Moment,
    ) {
        let peer = self.peer(pending.connection);
        if let Some(state) = self.services.get_mut(key) {
            state.granted += 1;
            state.pool.taken_by(&grant, peer, now);
            if pending.next.id.is_some() {
                state.pool.began(&grant, peer);
            }
        }
        self.granted += 1;
        let (id, service) = (pending.next.id, pending.next.service);
        let affinity = self.affinity_of(service);
        grant.client = pending.next.client.map(SourceKey::from);
        grant.is_sticky = affinity.is_some();
        if let (Some(client), Some(timeout)) = (grant.client, affinity) {
            self.affinity.assign(client, service, provider, id.is_some(), now, timeout);
        }
        if let Some(conn) = self.connection_mut(pending.connection) {
            match id {
                Some(id) => {
                    conn.requests.insert(id, RequestState::Active { service: key, grant });
                    self.ids += 1;
                }
                None if conn.read_closed => conn.unconfirmed.push((key, grant)),
                None => {}
            }
        }
        self.note_given(pending.connection, service, provider);
        self.reply(pending.connection, pending.slot, Reply::Provider { provider, id });
    }

    /// Gives back the tickets that were spent for a connection that had ended.
    pub(super) fn refund_unconfirmed(&mut self, connection: Key, now: Moment) {
        let unsure = self
            .connection_mut(connection)
            .map(|conn| std::mem::take(&mut conn.unconfirmed))
            .unwrap_or_default();
        for (key, grant) in unsure {
            if let Some(state) = self.services.get_mut(key) {
                state.pool.refund(grant, now);
            }
            self.serve_waiting(key, now);
        }
    }

    pub(super) fn peer(&self, connection: Key) -> IpAddr {
        self.connection(connection).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |conn| conn.peer)
    }

    /// Gives what is free to those who wait, if anything can have changed for them.
    pub(super) fn serve_if_changed(&mut self, key: Key, now: Moment) {
        let Some(state) = self.services.get_mut(key) else { return };
        if !state.waiting.is_empty()
            && (state.pool.changes(now) != state.search.done_at || now >= state.watched)
        {
            self.serve_waiting(key, now);
        }
    }

    /// A request that could not be granted has begun to wait: time alone may help it.
    pub(super) fn watch_newcomer(&mut self, key: Key, position: u64, now: Moment) {
        let Some(state) = self.services.get_mut(key) else { return };
        let Some(waiter) = state.waiting.get(position) else { return };
        let (next, patient) = (&waiter.request.next, now < waiter.half_time());
        if state.pool.has_candidate(next.id.is_some(), patient, &next.avoid, now) {
            return self.serve_waiting(key, now);
        }
        let settled = state.pool.settled();
        let paced = (patient && now < settled).then(|| waiter.half_time().min(settled));
        let until = state.pool.next_change().min(paced.unwrap_or(Moment::NEVER));
        if until != Moment::NEVER {
            state.watch(&mut self.timers, key, until.max(now));
        }
    }

    /// Gives what is free to those who wait.
    pub(super) fn serve_waiting(&mut self, key: Key, now: Moment) {
        loop {
            let askers = &self.connections_by_slot;
            let Some(state) = self.services.get_mut(key).filter(|state| !state.waiting.is_empty())
            else {
                return;
            };
            let ServiceState { pool, waiting, search, .. } = state;
            let mut look = Look::new(search, pool, now);
            let found = if look.is_hopeless(pool, now) {
                None
            } else {
                waiting.next_to_serve(now, |waiter| look.suits(waiter, pool, askers, now))
            };
            let Some((position, patient)) = found else {
                let until = look.over(search, pool, now).min(pool.next_change());
                if until != Moment::NEVER {
                    state.watch(&mut self.timers, key, until.max(now));
                }
                return;
            };
            let Some(waiter) = self.dequeue(key, position) else { return };
            if !self.try_grant(key, &waiter.request, patient, now) {
                // The scheduler did not want any of the candidates.
                self.refuse(&waiter.request, ProtocolError::new(ErrorCode::NoTicket, ""));
            }
        }
    }

    /// Takes a request out of the wait queue.
    pub(super) fn dequeue(&mut self, key: Key, position: u64) -> Option<Waiter<PendingNext>> {
        let waiter = self.services.get_mut(key)?.waiting.remove(position)?;
        self.waiting -= 1;
        if let Some(question) = waiter.request.question {
            self.questions.remove(&question);
        }
        let source = self.source(waiter.request.connection);
        self.sources.remove(source);
        if let Some(state) = self.services.get_mut(key) {
            state.sources.remove(source);
        }
        if let Some(conn) = self.connection_mut(waiter.request.connection) {
            match waiter.request.next.id {
                Some(id) => {
                    let known = conn.requests.remove(id).is_some();
                    self.ids -= usize::from(known);
                }
                None => drop(conn.waiting_uncounted.remove(&(key, position))),
            }
        }
        Some(waiter)
    }

    pub(super) fn reject(&mut self, key: Key, position: u64, code: ErrorCode) {
        if let Some(waiter) = self.dequeue(key, position) {
            self.refuse(&waiter.request, ProtocolError::new(code, ""));
        }
    }

    pub(super) fn done(
        &mut self,
        connection: Key,
        id: u32,
        result: RequestResult,
        now: Moment,
    ) -> Result<Reply, ProtocolError> {
        match self.forget_id(connection, id) {
            None => {
                return Err(ProtocolError::new(
                    ErrorCode::BadParameter,
                    "id: not in use on this connection",
                ))
            }
            Some(RequestState::Active { service, grant }) => {
                let peer = self.peer(connection);
                self.release(service, grant, result, peer, now);
            }
            // The connection gave up: its `next` gets its one reply now.
            Some(RequestState::Waiting { service, position }) => {
                self.reject(service, position, ErrorCode::NoTicket)
            }
        }
        Ok(Reply::Ok)
    }

    /// What an id stood for, which is free again.
    fn forget_id(&mut self, connection: Key, id: u32) -> Option<RequestState> {
        let known = self.connection_mut(connection)?.requests.remove(id)?;
        self.ids -= 1;
        Some(known)
    }

    pub(super) fn release(
        &mut self,
        key: Key,
        grant: Grant,
        result: RequestResult,
        asker: IpAddr,
        now: Moment,
    ) {
        self.end_grant(key, grant, result, asker, now);
        self.serve_waiting(key, now);
    }

    /// Ends a request; who waits is not served yet.
    fn end_grant(
        &mut self,
        key: Key,
        grant: Grant,
        result: RequestResult,
        asker: IpAddr,
        now: Moment,
    ) {
        self.sticky_request_ended(key, &grant, now);
        let Some(state) = self.services.get_mut(key) else { return };
        let (service, provider) = (state.name, state.pool.provider(grant.member));
        let failed = state.pool.release(grant, result, asker, now);
        if let (Some(asker), Some(provider)) = (failed, provider) {
            if let Verdict::Held(_) = self.fail(key, provider, None, asker, now) {
                self.log_presence_change(service, provider, ProviderEvent::Failed);
            }
        }
    }

    pub(super) fn sticky_request_ended(&mut self, key: Key, grant: &Grant, now: Moment) {
        // A visit that was counted has to end, even if affinity is off by now.
        let Some(client) = grant.client.filter(|_| grant.is_sticky) else { return };
        let service = self.services.get(key).map(|state| state.name);
        let timeout = service.and_then(|service| self.affinity_of(service)).unwrap_or(Span::ZERO);
        self.affinity.ended(client, now, timeout);
    }

    pub(super) fn failure(
        &mut self,
        connection: Key,
        provider: Provider,
        service: ServiceName,
        id: Option<u32>,
        now: Moment,
    ) -> Reply {
        let peer = self.peer(connection);
        let held = id.and_then(|id| self.forget_id(connection, id));
        let (mut grant, mut freed) = (None, None);
        match held {
            Some(RequestState::Active { service: key, grant: known }) => {
                freed = Some(key);
                self.sticky_request_ended(key, &known, now);
                if let Some(state) = self.services.get_mut(key) {
                    state.pool.release(known, RequestResult::Unused, peer, now);
                    // A grant of another provider says nothing about this one.
                    grant = Some(known).filter(|grant| {
                        state.name == service && state.pool.provider(grant.member) == Some(provider)
                    });
                }
            }
            Some(RequestState::Waiting { service, position }) => {
                self.reject(service, position, ErrorCode::NoTicket)
            }
            None => {}
        }
        // Only a host that was led there can know; one that may withdraw all is believed too.
        let key = self.by_name.get(&service).copied().filter(|key| {
            let state = self.services.get(*key);
            let took = state.is_some_and(|state| state.pool.was_taken_by(provider, peer, now));
            grant.is_some() || took || self.may_withdraw_all(connection)
        });
        let verdict =
            key.map_or(Verdict::Stale, |key| self.fail(key, provider, grant, Some(peer), now));
        let discarded = if let Verdict::Held(tickets) = verdict { tickets } else { 0 };
        if key.is_some() && verdict != Verdict::Avoided {
            self.log_presence_change(service, provider, ProviderEvent::Failed);
        }
        if let Some(freed) = freed {
            self.serve_waiting(freed, now);
        }
        Reply::Discarded(discarded)
    }

    pub(super) fn fail(
        &mut self,
        key: Key,
        provider: Provider,
        grant: Option<Grant>,
        conn: Option<IpAddr>,
        now: Moment,
    ) -> Verdict {
        let state = self.services.get_mut(key);
        state.map_or(Verdict::Stale, |state| state.pool.fail(provider, grant, conn, now))
    }

    /// No request with an id waits on this connection any more; `gone`: it holds
    /// nothing else either.
    pub(super) fn disconnect(&mut self, connection: Key, gone: bool, now: Moment) {
        let Some(conn) = self.connection_mut(connection) else { return };
        let peer = conn.peer;
        conn.read_closed = true;
        let mut waiting: Vec<_> =
            if gone { conn.waiting_uncounted.iter().copied().collect() } else { Vec::new() };
        let mut ended = Vec::new();
        let mut active = Vec::new();
        // In the order of the ids, so that the same story always ends the same way.
        let mut ids: Vec<_> = conn.requests.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        for (_, held) in ids {
            match held {
                RequestState::Waiting { service, position } if gone => {
                    waiting.push((*service, *position))
                }
                RequestState::Waiting { service, position } => ended.push((*service, *position)),
                RequestState::Active { service, grant } => active.push((*service, *grant, peer)),
            }
        }
        for (service, position) in waiting {
            self.forgotten += u64::from(self.dequeue(service, position).is_some());
        }
        // Who ended its side cannot say `done` any more, so it need not wait.
        for (service, position) in ended {
            let waiter = self.services.get(service).and_then(|state| state.waiting.get(position));
            if waiter.is_some_and(|waiter| waiter.request.question.is_none()) {
                self.reject(service, position, ErrorCode::NoTicket);
            }
        }
        if gone {
            let ids =
                self.connection_mut(connection).map(|conn| std::mem::take(&mut conn.requests));
            self.ids -= ids.map_or(0, |ids| ids.len());
            self.departed.extend(active);
            self.end_departed(now);
        }
    }

    /// Ends requests of connections that are gone, as many as a turn bears.
    pub(super) fn end_departed(&mut self, now: Moment) {
        let mut freed = Vec::new();
        for _ in 0..WORK_PER_TURN {
            let Some((service, grant, peer)) = self.departed.pop_front() else { break };
            self.end_grant(service, grant, RequestResult::Unused, peer, now);
            freed.push(service);
        }
        // All of them first, so that the waiting requests find every free slot.
        freed.sort_unstable();
        freed.dedup();
        freed.into_iter().for_each(|service| self.serve_waiting(service, now));
    }
}
