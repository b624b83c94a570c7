//! Who gets a place at a provider, who waits for one, and how it is given back.
//!
//! Owns the way of a request through the queue: granted, waiting, turned away,
//! ended, failed, forgotten. Each gets exactly one answer.

use super::{PendingNext, ProviderEvent, RequestState, ServiceState, TicketQueue, Timer};
use crate::base::address::Provider;
use crate::base::service_name::ServiceName;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::protocol::message::{ErrorCode, ProtocolError, Reply};
use crate::queue::affinity::Assignment;
use crate::queue::provider_pool::Grant;
use crate::queue::wait_queue::Waiter;
use std::net::IpAddr;

impl TicketQueue {
    /// Puts a request into the waiting line.
    pub(super) fn enqueue(&mut self, key: Key, ask: PendingNext, deadline: Moment, since: Moment) -> u64 {
        let (connection, id) = (ask.connection, ask.next.id);
        let Some(room) = self.services.get_mut(key) else { return 0 };
        let place = room.waiting.push(Waiter { since, deadline, request: ask });
        self.waiting += 1;
        if self.timers.len() > 4 * self.waiting + 1024 {
            let rooms = &self.services;
            self.timers.retain(|timer| match timer {
                Timer::WaitTimeout { room, place } | Timer::PluginTimeout { room, place } => {
                    rooms.get(room).is_some_and(|room| room.waiting.get(place).is_some())
                }
                Timer::HoldEnds { .. } => true,
            });
        }
        if let Some(asker) = self.connection_mut(connection) {
            match id {
                Some(id) => drop(asker.requests.insert(id, RequestState::Waiting { room: key, place })),
                None => asker.waiting_uncounted.push((key, place)),
            }
        }
        place
    }

    pub(super) fn refuse(&mut self, ask: &PendingNext, refusal: ProtocolError) {
        self.refused += 1;
        if let Some(room) = self.by_name.get(ask.next.service).and_then(|room| self.services.get_mut(*room)) {
            room.refused += 1;
        }
        self.reply(ask.connection, ask.slot, Reply::Error { error: refusal, id: ask.next.id });
    }

    pub(super) fn affinity_of(&self, service: ServiceName) -> Option<Span> {
        self.options.affinities.iter().find(|(name, _)| *name == service).map(|(_, timeout)| *timeout)
    }

    /// The provider that the client of a request is used to, if that can take it.
    pub(super) fn sticky_provider(&self, key: Key, ask: &PendingNext, now: Moment) -> Option<Provider> {
        let next = &ask.next;
        self.affinity_of(next.service)?;
        let (room, counted) = (self.services.get(key)?, next.id.is_some());
        let at_home =
            |provider: Provider| !next.avoid.contains(&provider) && room.pool.can_take(provider, counted, now);
        match self.affinity.assignment(next.client?, next.service, now)? {
            Assignment::Provider(provider) => Some(provider).filter(|provider| at_home(*provider)),
            Assignment::Address(ip) => {
                let mut there = room.pool.members().map(|entry| entry.stats.provider).filter(|known| known.ip == ip);
                there.find(|provider| at_home(*provider))
            }
        }
    }

    pub(super) fn try_grant(&mut self, key: Key, ask: &PendingNext, now: Moment) -> bool {
        let (next, home) = (&ask.next, self.sticky_provider(key, ask, now));
        let counted = next.id.is_some();
        let Some(room) = self.services.get_mut(key) else { return false };
        let granted = match home {
            Some(provider) => room.pool.grant_at(provider, counted, now),
            None => room.pool.grant(counted, next.client, &next.avoid, now),
        };
        match granted {
            Some((provider, grant)) => self.granted(key, ask, provider, grant, now),
            None => return false,
        }
        true
    }

    pub(super) fn granted(&mut self, key: Key, ask: &PendingNext, provider: Provider, grant: Grant, now: Moment) {
        if let Some(room) = self.services.get_mut(key) {
            room.granted += 1;
        }
        self.granted += 1;
        let (id, service) = (ask.next.id, ask.next.service);
        let client = ask.next.client.filter(|_| self.affinity_of(service).is_some());
        if let (Some(client), Some(timeout)) = (client, self.affinity_of(service)) {
            self.affinity.assign(client, service, provider, id.is_some(), now, timeout);
        }
        if let Some(asker) = self.connection_mut(ask.connection) {
            match id {
                Some(id) => drop(asker.requests.insert(id, RequestState::Active { room: key, grant, client })),
                None if asker.read_closed => asker.unconfirmed.push((key, grant)),
                None => {}
            }
        }
        self.reply(ask.connection, ask.slot, Reply::Provider { provider, id });
    }

    /// Gives back the tickets that were spent for somebody who had hung up.
    pub(super) fn refund_unconfirmed(&mut self, connection: Key, now: Moment) {
        let unsure =
            self.connection_mut(connection).map(|asker| std::mem::take(&mut asker.unconfirmed)).unwrap_or_default();
        for (key, grant) in unsure {
            if let Some(room) = self.services.get_mut(key) {
                room.pool.refund(grant, now);
            }
            self.serve_waiting(key, now);
        }
    }

    /// Gives what is free to those who wait.
    pub(super) fn serve_waiting(&mut self, key: Key, now: Moment) {
        while let Some(room) = self.services.get_mut(key).filter(|room| !room.waiting.is_empty()) {
            let ServiceState { pool: book, waiting, .. } = room;
            // Whom nobody could serve is not worth a walk along the line.
            if !book.any_available(now) {
                return;
            }
            let found = waiting.next_to_serve(now, |waiter| {
                let PendingNext { next, asking_plugin: consulting, .. } = &waiter.request;
                (!consulting && book.has_candidate(next.id.is_some(), &next.avoid, now)).then_some(())
            });
            let Some((place, ())) = found else { return };
            let Some(waiter) = self.dequeue(key, place) else { return };
            if !self.try_grant(key, &waiter.request, now) {
                // The scheduler did not want any of the candidates.
                self.refuse(&waiter.request, ProtocolError::new(ErrorCode::NoTicket, ""));
            }
        }
    }

    /// Takes somebody out of the waiting line.
    pub(super) fn dequeue(&mut self, key: Key, place: u64) -> Option<Waiter<PendingNext>> {
        let waiter = self.services.get_mut(key)?.waiting.remove(place)?;
        self.waiting -= 1;
        if let Some(asker) = self.connection_mut(waiter.request.connection) {
            match waiter.request.next.id {
                Some(id) => drop(asker.requests.remove(&id)),
                None => asker.waiting_uncounted.retain(|held| *held != (key, place)),
            }
        }
        Some(waiter)
    }

    pub(super) fn reject(&mut self, key: Key, place: u64, reason: ErrorCode) {
        if let Some(waiter) = self.dequeue(key, place) {
            self.refuse(&waiter.request, ProtocolError::new(reason, ""));
        }
    }

    pub(super) fn done(&mut self, connection: Key, id: u32, unused: bool, now: Moment) -> Result<Reply, ProtocolError> {
        match self.connection_mut(connection).and_then(|asker| asker.requests.remove(&id)) {
            None => return Err(ProtocolError::new(ErrorCode::BadParameter, "id: not in use on this connection")),
            Some(RequestState::Active { room, grant, client }) => self.release(room, grant, client, !unused, now),
            // The asker gave up: its `next` gets its one answer now.
            Some(RequestState::Waiting { room, place }) => self.reject(room, place, ErrorCode::NoTicket),
        }
        Ok(Reply::Ok)
    }

    pub(super) fn release(&mut self, key: Key, grant: Grant, client: Option<IpAddr>, well: bool, now: Moment) {
        self.sticky_request_ended(key, client, now);
        if let Some(room) = self.services.get_mut(key) {
            room.pool.release(grant, well, now);
            self.serve_waiting(key, now);
        }
    }

    pub(super) fn sticky_request_ended(&mut self, key: Key, client: Option<IpAddr>, now: Moment) {
        // A visit that was counted has to end, even if affinity is off by now.
        let Some(client) = client else { return };
        let service = self.services.get(key).map(|room| room.name);
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
        let held = id.and_then(|id| self.connection_mut(connection)?.requests.remove(&id));
        let (mut grant, mut freed) = (None, None);
        match held {
            Some(RequestState::Active { room: key, grant: known, client }) => {
                freed = Some(key);
                self.sticky_request_ended(key, client, now);
                if let Some(room) = self.services.get_mut(key) {
                    room.pool.release(known, false, now);
                    // A grant of somebody else says nothing about this provider.
                    grant = Some(known)
                        .filter(|grant| room.name == service && room.pool.provider(grant.member) == Some(provider));
                }
            }
            Some(RequestState::Waiting { room, place }) => self.reject(room, place, ErrorCode::NoTicket),
            None => {}
        }
        let discarded = self.by_name.get(service).copied().map_or(0, |room| self.fail(room, provider, grant, now));
        self.log_presence_change(service, provider, ProviderEvent::Failed);
        if let Some(freed) = freed {
            self.serve_waiting(freed, now);
        }
        Reply::Discarded(discarded)
    }

    pub(super) fn fail(&mut self, key: Key, provider: Provider, grant: Option<Grant>, now: Moment) -> u64 {
        let Some(book) = self.services.get_mut(key).map(|room| &mut room.pool) else { return 0 };
        let before = book.member_mut(provider).map(|entry| entry.hold_end);
        let discarded = book.fail(provider, grant, now);
        // Once a hold, however often it is reported and whatever is offered meanwhile.
        let after = book.member_mut(provider).map(|entry| entry.hold_end);
        if let Some(hold_end) = after.filter(|_| after != before) {
            self.timers.schedule(hold_end, Timer::HoldEnds { room: key });
        }
        discarded
    }

    /// Nobody waits with an id on this connection any more; `gone`: it holds
    /// nothing else either.
    pub(super) fn disconnect(&mut self, connection: Key, gone: bool, now: Moment) {
        let Some(asker) = self.connection_mut(connection) else { return };
        asker.read_closed = true;
        let mut waiting = if gone { std::mem::take(&mut asker.waiting_uncounted) } else { Vec::new() };
        let mut ended = Vec::new();
        let mut active = Vec::new();
        // In the order of the ids, so that the same story always ends the same way.
        let mut ids: Vec<_> = asker.requests.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for (_, held) in ids {
            match held {
                RequestState::Waiting { room, place } if gone => waiting.push((*room, *place)),
                RequestState::Waiting { room, place } => ended.push((*room, *place)),
                RequestState::Active { room, grant, client } => active.push((*room, *grant, *client)),
            }
        }
        for (room, place) in waiting {
            self.forgotten += u64::from(self.dequeue(room, place).is_some());
        }
        // Who ended its side cannot say `done` any more, so it need not wait.
        for (room, place) in ended {
            let waiter = self.services.get(room).and_then(|room| room.waiting.get(place));
            if waiter.is_some_and(|waiter| !waiter.request.asking_plugin) {
                self.reject(room, place, ErrorCode::NoTicket);
            }
        }
        if gone {
            for (room, grant, client) in active {
                self.release(room, grant, client, false, now);
            }
        }
    }
}
