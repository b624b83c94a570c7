//! What a queue tells of itself: the lines of `status`, and the offers it has.

use super::{ServiceState, TicketQueue};
use crate::base::key_value;
use crate::base::service_name::ServiceName;
use crate::base::time::{Moment, Span};
use crate::protocol::message::Request;
use crate::queue::provider_pool::PoolMember;

impl TicketQueue {
    /// What is offered here, as the messages that would offer it to another queue.
    pub fn offers(&self, now: Moment) -> Vec<Request> {
        let of = |room: &ServiceState| {
            let offers =
                |entry: &&PoolMember| now < entry.lease_end && now >= entry.hold_end && entry.stats.capacity > 0;
            let offer = |entry: &PoolMember| Request::Ticket {
                provider: entry.stats.provider.into(),
                service: room.name,
                tickets: entry.stats.tickets,
                capacity: entry.stats.capacity,
                lease: Some(entry.lease_end.since(now)),
            };
            room.pool.members().filter(offers).map(offer).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(|(_, room)| of(room)).collect()
    }

    pub(super) fn status(&self, only: Option<ServiceName>, now: Moment) -> String {
        let mut text = String::new();
        let mut line = String::from("queue");
        for (key, value) in [
            ("connections", self.connections as u64),
            ("services", self.services.len() as u64),
            ("waiting", self.waiting as u64),
            ("asked", self.requests_total),
            ("granted", self.granted),
            ("refused", self.refused),
            ("forgotten", self.forgotten),
        ] {
            key_value::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        let mut rooms: Vec<&ServiceState> = self
            .services
            .iter()
            .map(|(_, room)| room)
            .filter(|room| only.is_none_or(|only| only == room.name))
            .collect();
        rooms.sort_by_key(|room| room.name);
        for room in rooms {
            self.describe_service(room, now, &mut text);
        }
        text
    }

    fn describe_service(&self, room: &ServiceState, now: Moment, text: &mut String) {
        let mut providers: Vec<_> =
            room.pool.members().filter(|entry| now < entry.lease_end || entry.stats.active > 0).collect();
        providers.sort_by_key(|entry| entry.stats.provider);
        let mut lines = String::new();
        let (mut tickets, mut free, mut active) = (0u64, 0u64, 0u64);
        for entry in &providers {
            let record = &entry.stats;
            let offers = now < entry.lease_end;
            // What runs beyond the tickets offered, on capacity alone, counts as offered too.
            let free_now = if offers { record.free() } else { 0 };
            let offered = u64::from(free_now) + u64::from(record.active) + u64::from(record.spent);
            let held = if now < entry.hold_end { entry.hold_end.since(now) } else { Span::ZERO };
            let mut line = String::from("provider");
            key_value::push(&mut line, "service", room.name);
            key_value::push(&mut line, "address", record.provider);
            for (key, value) in [
                ("tickets", u64::from(if offers { record.tickets } else { 0 })),
                ("capacity", u64::from(if offers { record.capacity } else { 0 })),
                ("offered", offered),
                ("free", u64::from(free_now)),
                ("active", u64::from(record.active)),
                ("spent", u64::from(record.spent)),
                ("granted", entry.granted),
                ("failures", entry.failures),
            ] {
                key_value::push(&mut line, key, value);
            }
            key_value::push(&mut line, "lease", entry.lease_end.since(now));
            key_value::push(&mut line, "held", held);
            lines.push_str(&line);
            lines.push('\n');
            tickets += u64::from(if offers { record.tickets } else { 0 });
            free += u64::from(free_now);
            active += u64::from(record.active);
        }
        let mut line = String::from("service");
        key_value::push(&mut line, "name", room.name);
        key_value::push(&mut line, "scheduler", self.scheduler(room.name));
        for (key, value) in [
            ("providers", providers.len() as u64),
            ("tickets", tickets),
            ("free", free),
            ("active", active),
            ("waiting", room.waiting.len() as u64),
            ("granted", room.granted),
            ("refused", room.refused),
        ] {
            key_value::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        text.push_str(&lines);
    }
}
