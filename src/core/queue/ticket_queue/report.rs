//! What a queue tells of itself: the lines of `status`, and the offers it has.

use super::{Room, TicketQueue};
use crate::base::decimal::Thousandths;
use crate::base::name::Service;
use crate::base::pairs;
use crate::base::ticket::Weight;
use crate::base::time::{Moment, Span};
use crate::queue::book::Entry;
use crate::wire::message::Request;

impl TicketQueue {
    /// What is offered here, as the messages that would offer it to another queue.
    pub fn offers(&self, now: Moment) -> Vec<Request> {
        let of = |room: &Room| {
            let offers = |entry: &&Entry| now < entry.lease_end && now >= entry.hold_end && entry.record.capacity > 0;
            let offer = |entry: &Entry| Request::Ticket {
                provider: entry.record.provider.into(),
                service: room.name,
                tickets: entry.record.tickets,
                capacity: entry.record.capacity,
                weight: Some(Weight::of(f64::from(entry.record.weight) / 1000.0)),
                lease: Some(entry.lease_end.since(now)),
            };
            room.book.entries().filter(offers).map(offer).collect::<Vec<_>>()
        };
        self.rooms.iter().flat_map(|(_, room)| of(room)).collect()
    }

    pub(super) fn status(&self, only: Option<Service>, now: Moment) -> String {
        let mut text = String::new();
        let mut line = String::from("queue");
        for (key, value) in [
            ("connections", self.connections as u64),
            ("services", self.rooms.len() as u64),
            ("waiting", self.waiting as u64),
            ("asked", self.asked),
            ("granted", self.granted),
            ("refused", self.refused),
            ("forgotten", self.forgotten),
        ] {
            pairs::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        let mut rooms: Vec<&Room> =
            self.rooms.iter().map(|(_, room)| room).filter(|room| only.is_none_or(|only| only == room.name)).collect();
        rooms.sort_by_key(|room| room.name);
        for room in rooms {
            self.describe(room, now, &mut text);
        }
        text
    }

    fn describe(&self, room: &Room, now: Moment, text: &mut String) {
        let mut providers: Vec<_> =
            room.book.entries().filter(|entry| now < entry.lease_end || entry.record.active > 0).collect();
        providers.sort_by_key(|entry| entry.record.provider);
        let mut lines = String::new();
        let (mut tickets, mut free, mut active) = (0u64, 0u64, 0u64);
        for entry in &providers {
            let record = &entry.record;
            let offers = now < entry.lease_end;
            // What runs beyond the tickets offered, on capacity alone, counts as offered too.
            let free_now = if offers { record.free() } else { 0 };
            let offered = u64::from(free_now) + u64::from(record.active) + u64::from(record.spent);
            let held = if now < entry.hold_end { entry.hold_end.since(now) } else { Span::ZERO };
            let mut line = String::from("provider");
            pairs::push(&mut line, "service", room.name);
            pairs::push(&mut line, "address", record.provider);
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
                pairs::push(&mut line, key, value);
            }
            pairs::push(&mut line, "lease", entry.lease_end.since(now));
            pairs::push(&mut line, "held", held);
            let weight = if offers { f64::from(record.weight) / 1000.0 } else { 0.0 };
            pairs::push(&mut line, "weight", Thousandths(weight));
            if entry.probation() != u32::MAX {
                pairs::push(&mut line, "probation", entry.probation());
            }
            if entry.avoiding(now) > 0 {
                pairs::push(&mut line, "avoided_by", entry.avoiding(now));
            }
            lines.push_str(&line);
            lines.push('\n');
            tickets += u64::from(if offers { record.tickets } else { 0 });
            free += u64::from(free_now);
            active += u64::from(record.active);
        }
        let mut line = String::from("service");
        pairs::push(&mut line, "name", room.name);
        pairs::push(&mut line, "scheduler", self.scheduler(room.name));
        for (key, value) in [
            ("providers", providers.len() as u64),
            ("tickets", tickets),
            ("free", free),
            ("active", active),
            ("waiting", room.waiting.len() as u64),
            ("granted", room.granted),
            ("refused", room.refused),
        ] {
            pairs::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        text.push_str(&lines);
    }
}
