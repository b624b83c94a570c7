//! Who gets a place at a provider, who waits for one, and how it is given back.
//!
//! Owns the way of a request through the queue: granted, waiting, turned away,
//! ended, failed, forgotten. Each gets exactly one answer.

use super::{Ask, Event, Held, Room, TicketQueue, Timer};
use crate::base::address::Provider;
use crate::base::name::Service;
use crate::base::slab::Key;
use crate::base::time::{Moment, Span};
use crate::queue::affinity::Home;
use crate::queue::book::{Book, Grant, Verdict};
use crate::queue::waiting::Waiter;
use crate::wire::message::{Next, Reason, Refusal, Reply, RequestResult};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

/// The providers that a request is not to be led to: those that it names, and
/// those that its asker alone found dead; and when the first of these may be
/// tried again.
fn avoid<'a>(book: &Book, next: &'a Next, asker: IpAddr, now: Moment) -> (Cow<'a, [Provider]>, Moment) {
    let (mut own, until) = book.avoided(asker, now);
    if own.is_empty() {
        return (Cow::Borrowed(&next.avoid), Moment::NEVER);
    }
    own.extend_from_slice(&next.avoid);
    (Cow::Owned(own), until)
}

impl TicketQueue {
    /// Puts a request into the waiting line.
    pub(super) fn join(&mut self, key: Key, ask: Ask, deadline: Moment, since: Moment) -> u64 {
        let (connection, id) = (ask.connection, ask.next.id);
        let Some(room) = self.rooms.get_mut(key) else { return 0 };
        let place = room.waiting.join(Waiter { since, deadline, what: ask });
        self.waiting += 1;
        if self.timers.len() > 4 * self.waiting + 1024 {
            let rooms = &self.rooms;
            self.timers.retain(|timer| match timer {
                Timer::Waited { room, place } | Timer::Advised { room, place } | Timer::Half { room, place } => {
                    rooms.get(room).is_some_and(|room| room.waiting.get(place).is_some())
                }
                Timer::Turns { room } => rooms.get(room).is_some(),
            });
        }
        if let Some(asker) = self.asker_mut(connection) {
            match id {
                Some(id) => drop(asker.ids.insert(id, Held::Waiting { room: key, place })),
                None => asker.plain.push((key, place)),
            }
        }
        place
    }

    pub(super) fn refuse(&mut self, ask: &Ask, refusal: Refusal) {
        self.refused += 1;
        if let Some(room) = self.by_name.get(ask.next.service).and_then(|room| self.rooms.get_mut(*room)) {
            room.refused += 1;
        }
        self.answer(ask.connection, ask.order, Reply::Error { refusal, id: ask.next.id });
    }

    pub(super) fn affinity_of(&self, service: Service) -> Option<Span> {
        self.options.affinities.iter().find(|(name, _)| *name == service).map(|(_, timeout)| *timeout)
    }

    /// The provider that the client of a request is used to, if that can take it.
    pub(super) fn home(&self, key: Key, ask: &Ask, now: Moment) -> Option<Provider> {
        let next = &ask.next;
        self.affinity_of(next.service)?;
        let (room, counted) = (self.rooms.get(key)?, next.id.is_some());
        let (avoid, _) = avoid(&room.book, next, self.peer(ask.connection), now);
        let at_home = |provider: Provider| !avoid.contains(&provider) && room.book.takes(provider, counted, now);
        match self.affinity.home(next.client?, next.service, now)? {
            Home::Provider(provider) => Some(provider).filter(|provider| at_home(*provider)),
            Home::Address(ip) => {
                let mut there = room.book.entries().map(|entry| entry.record.provider).filter(|known| known.ip == ip);
                there.find(|provider| at_home(*provider))
            }
        }
    }

    pub(super) fn try_grant(&mut self, key: Key, ask: &Ask, patient: bool, now: Moment) -> bool {
        let (next, home) = (&ask.next, self.home(key, ask, now));
        let (counted, peer) = (next.id.is_some(), self.peer(ask.connection));
        let Some(room) = self.rooms.get_mut(key) else { return false };
        let granted = match home {
            Some(provider) => room.book.grant_at(provider, counted, now),
            None => {
                let (avoid, until) = avoid(&room.book, next, peer, now);
                let granted = room.book.grant(counted, patient, next.client, &avoid, now);
                if granted.is_none() && until != Moment::NEVER {
                    room.watch(&mut self.timers, key, until);
                }
                granted
            }
        };
        match granted {
            Some((provider, grant)) => self.granted(key, ask, provider, grant, now),
            None => return false,
        }
        true
    }

    pub(super) fn granted(&mut self, key: Key, ask: &Ask, provider: Provider, grant: Grant, now: Moment) {
        let peer = self.peer(ask.connection);
        if let Some(room) = self.rooms.get_mut(key) {
            room.granted += 1;
            if ask.next.id.is_some() {
                room.book.began(&grant, peer);
            }
        }
        self.granted += 1;
        let (id, service) = (ask.next.id, ask.next.service);
        let client = ask.next.client.filter(|_| self.affinity_of(service).is_some());
        if let (Some(client), Some(timeout)) = (client, self.affinity_of(service)) {
            self.affinity.came(client, service, provider, id.is_some(), now, timeout);
        }
        if let Some(asker) = self.asker_mut(ask.connection) {
            match id {
                Some(id) => drop(asker.ids.insert(id, Held::Active { room: key, grant, client })),
                None if asker.ended => asker.unsure.push((key, grant)),
                None => {}
            }
        }
        self.answer(ask.connection, ask.order, Reply::Provider { provider, id });
    }

    /// Gives back the tickets that were spent for somebody who had hung up.
    pub(super) fn take_back(&mut self, connection: Key, now: Moment) {
        let unsure = self.asker_mut(connection).map(|asker| std::mem::take(&mut asker.unsure)).unwrap_or_default();
        for (key, grant) in unsure {
            if let Some(room) = self.rooms.get_mut(key) {
                room.book.unspend(grant, now);
            }
            self.serve(key, now);
        }
    }

    pub(super) fn peer(&self, connection: Key) -> IpAddr {
        self.asker(connection).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |asker| asker.peer)
    }

    /// Gives what is free to those who wait.
    pub(super) fn serve(&mut self, key: Key, now: Moment) {
        loop {
            let askers = &self.askers;
            let Some(room) = self.rooms.get_mut(key).filter(|room| !room.waiting.is_empty()) else { return };
            let Room { book, waiting, .. } = room;
            // Whom nobody could serve is not worth a walk along the line.
            let mut until = Moment::NEVER;
            let found = if book.could_grant(now) {
                waiting.first(now, |waiter| {
                    let Ask { connection, next, consulting, .. } = &waiter.what;
                    if *consulting {
                        return None;
                    }
                    let asker = askers.get(connection.index()).and_then(Option::as_ref);
                    let peer = asker.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |asker| asker.peer);
                    let (avoid, over) = avoid(book, next, peer, now);
                    until = until.min(over);
                    let patient = waiter.patient(now);
                    book.suits(next.id.is_some(), patient, &avoid, now).then_some(patient)
                })
            } else {
                None
            };
            let Some((place, patient)) = found else {
                let until = until.min(book.next_change());
                if until != Moment::NEVER {
                    room.watch(&mut self.timers, key, until.max(now));
                }
                return;
            };
            let Some(waiter) = self.leave(key, place) else { return };
            if !self.try_grant(key, &waiter.what, patient, now) {
                // The scheduler did not want any of the candidates.
                self.refuse(&waiter.what, Refusal::new(Reason::NoTicket, ""));
            }
        }
    }

    /// Takes somebody out of the waiting line.
    pub(super) fn leave(&mut self, key: Key, place: u64) -> Option<Waiter<Ask>> {
        let waiter = self.rooms.get_mut(key)?.waiting.leave(place)?;
        self.waiting -= 1;
        if let Some(asker) = self.asker_mut(waiter.what.connection) {
            match waiter.what.next.id {
                Some(id) => drop(asker.ids.remove(&id)),
                None => asker.plain.retain(|held| *held != (key, place)),
            }
        }
        Some(waiter)
    }

    pub(super) fn turn_away(&mut self, key: Key, place: u64, reason: Reason) {
        if let Some(waiter) = self.leave(key, place) {
            self.refuse(&waiter.what, Refusal::new(reason, ""));
        }
    }

    pub(super) fn done(
        &mut self,
        connection: Key,
        id: u32,
        result: RequestResult,
        now: Moment,
    ) -> Result<Reply, Refusal> {
        match self.asker_mut(connection).and_then(|asker| asker.ids.remove(&id)) {
            None => return Err(Refusal::new(Reason::BadParameter, "id: not in use on this connection")),
            Some(Held::Active { room, grant, client }) => {
                let peer = self.peer(connection);
                self.free(room, grant, client, result, peer, now);
            }
            // The asker gave up: its `next` gets its one answer now.
            Some(Held::Waiting { room, place }) => self.turn_away(room, place, Reason::NoTicket),
        }
        Ok(Reply::Ok)
    }

    pub(super) fn free(
        &mut self,
        key: Key,
        grant: Grant,
        client: Option<IpAddr>,
        result: RequestResult,
        asker: IpAddr,
        now: Moment,
    ) {
        self.visit_ended(key, client, now);
        let Some(room) = self.rooms.get_mut(key) else { return };
        let (service, provider) = (room.name, room.book.provider(grant.entry));
        let failed = room.book.end(grant, result, asker, now);
        if let (Some(asker), Some(provider)) = (failed, provider) {
            if let Verdict::Held(_) = self.fail(key, provider, None, asker, now) {
                self.presence(service, provider, Event::Failed);
            }
        }
        self.serve(key, now);
    }

    pub(super) fn visit_ended(&mut self, key: Key, client: Option<IpAddr>, now: Moment) {
        // A visit that was counted has to end, even if affinity is off by now.
        let Some(client) = client else { return };
        let service = self.rooms.get(key).map(|room| room.name);
        let timeout = service.and_then(|service| self.affinity_of(service)).unwrap_or(Span::ZERO);
        self.affinity.ended(client, now, timeout);
    }

    pub(super) fn failure(
        &mut self,
        connection: Key,
        provider: Provider,
        service: Service,
        id: Option<u32>,
        now: Moment,
    ) -> Reply {
        let peer = self.peer(connection);
        let held = id.and_then(|id| self.asker_mut(connection)?.ids.remove(&id));
        let (mut grant, mut freed) = (None, None);
        match held {
            Some(Held::Active { room: key, grant: known, client }) => {
                freed = Some(key);
                self.visit_ended(key, client, now);
                if let Some(room) = self.rooms.get_mut(key) {
                    room.book.end(known, RequestResult::Unused, peer, now);
                    // A grant of somebody else says nothing about this provider.
                    grant = Some(known)
                        .filter(|grant| room.name == service && room.book.provider(grant.entry) == Some(provider));
                }
            }
            Some(Held::Waiting { room, place }) => self.turn_away(room, place, Reason::NoTicket),
            None => {}
        }
        let room = self.by_name.get(service).copied();
        let verdict = room.map_or(Verdict::Stale, |room| self.fail(room, provider, grant, Some(peer), now));
        let discarded = if let Verdict::Held(tickets) = verdict { tickets } else { 0 };
        if verdict != Verdict::Avoided {
            self.presence(service, provider, Event::Failed);
        }
        if let Some(freed) = freed {
            self.serve(freed, now);
        }
        Reply::Discarded(discarded)
    }

    pub(super) fn fail(
        &mut self,
        key: Key,
        provider: Provider,
        grant: Option<Grant>,
        asker: Option<IpAddr>,
        now: Moment,
    ) -> Verdict {
        let room = self.rooms.get_mut(key);
        room.map_or(Verdict::Stale, |room| room.book.fail(provider, grant, asker, now))
    }

    /// Nobody waits with an id on this connection any more; `gone`: it holds
    /// nothing else either.
    pub(super) fn hang_up(&mut self, connection: Key, gone: bool, now: Moment) {
        let Some(asker) = self.asker_mut(connection) else { return };
        asker.ended = true;
        let mut waiting = if gone { std::mem::take(&mut asker.plain) } else { Vec::new() };
        let mut ended = Vec::new();
        let mut active = Vec::new();
        // In the order of the ids, so that the same story always ends the same way.
        let mut ids: Vec<_> = asker.ids.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for (_, held) in ids {
            match held {
                Held::Waiting { room, place } if gone => waiting.push((*room, *place)),
                Held::Waiting { room, place } => ended.push((*room, *place)),
                Held::Active { room, grant, client } => active.push((*room, *grant, *client)),
            }
        }
        for (room, place) in waiting {
            self.forgotten += u64::from(self.leave(room, place).is_some());
        }
        // Who ended its side cannot say `done` any more, so it need not wait.
        for (room, place) in ended {
            let waiter = self.rooms.get(room).and_then(|room| room.waiting.get(place));
            if waiter.is_some_and(|waiter| !waiter.what.consulting) {
                self.turn_away(room, place, Reason::NoTicket);
            }
        }
        if gone {
            let peer = self.peer(connection);
            for (room, grant, client) in active {
                self.free(room, grant, client, RequestResult::Unused, peer, now);
            }
        }
    }
}
