//! What a queue tells of itself: the lines of `status`, and the offers it has.

use super::{ServiceState, TicketQueue};
use crate::base::decimal::Thousandths;
use crate::base::key_value;
use crate::base::service_name::ServiceName;
use crate::base::ticket::Weight;
use crate::base::time::{Moment, Span};
use crate::protocol::request::Request;
use crate::queue::provider_pool::PoolMember;
use crate::scheduler::competitive::SAMPLES_MIN;
use crate::scheduler::interface::Availability;

impl TicketQueue {
    /// What is offered and drained here, as the messages that would make it so at
    /// another queue.
    pub fn offers(&self, now: Moment) -> Vec<Request> {
        let of = |state: &ServiceState| {
            let offers = |member: &&PoolMember| {
                now < member.lease_end && now >= member.hold_end && member.stats.capacity > 0
            };
            let offer = |member: &PoolMember| Request::Ticket {
                provider: member.stats.provider.into(),
                service: state.name,
                tickets: member.stats.tickets,
                capacity: member.stats.capacity,
                weight: Some(Weight::of(f64::from(member.stats.weight) / 1000.0)),
                lease: Some(member.lease_end.since(now)),
            };
            state.pool.members().filter(offers).map(offer).collect::<Vec<_>>()
        };
        let drains = self.drains(now);
        self.services.iter().flat_map(|(_, state)| of(state)).chain(drains).collect()
    }

    /// The lines of `status`, of all services or of one.
    pub fn status(&self, only: Option<ServiceName>, now: Moment) -> String {
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
            ("unproved", self.key_records.refusals),
        ] {
            key_value::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        let mut services: Vec<&ServiceState> = self
            .services
            .iter()
            .map(|(_, state)| state)
            .filter(|state| only.is_none_or(|only| only == state.name))
            .collect();
        services.sort_by_key(|state| state.name);
        for state in services {
            self.describe_service(state, now, &mut text);
        }
        text
    }

    fn describe_service(&self, state: &ServiceState, now: Moment, text: &mut String) {
        let mut providers: Vec<_> = state
            .pool
            .members()
            .filter(|member| {
                // A failure and a drain are what an operator looks for.
                let in_trouble = member.has_failed(now) || now < member.drain_end;
                now < member.lease_end || member.stats.active > 0 || in_trouble
            })
            .collect();
        providers.sort_by_key(|member| member.stats.provider);
        let mut lines = String::new();
        let (mut tickets, mut free, mut active) = (0u64, 0u64, 0u64);
        for member in &providers {
            self.describe_provider(state.name, member, now, &mut lines);
            if now < member.lease_end {
                tickets += u64::from(member.stats.tickets);
                free += u64::from(member.stats.free());
            }
            active += u64::from(member.stats.active);
        }
        let mut line = String::from("service");
        key_value::push(&mut line, "name", state.name);
        key_value::push(&mut line, "scheduler", self.scheduler(state.name));
        for (key, value) in [
            ("providers", providers.len() as u64),
            ("tickets", tickets),
            ("free", free),
            ("active", active),
            ("waiting", state.waiting.len() as u64),
            ("granted", state.granted),
            ("refused", state.refused),
        ] {
            key_value::push(&mut line, key, value);
        }
        text.push_str(&line);
        text.push('\n');
        text.push_str(&lines);
    }

    fn describe_provider(
        &self,
        service: ServiceName,
        member: &PoolMember,
        now: Moment,
        text: &mut String,
    ) {
        let stats = &member.stats;
        // Without a lease it offers nothing.
        let (tickets, capacity, free, weight) = if now < member.lease_end {
            (stats.tickets, stats.capacity, stats.free(), f64::from(stats.weight) / 1000.0)
        } else {
            (0, 0, 0, 0.0)
        };
        // What runs beyond the tickets offered, on capacity alone, counts as offered too.
        let offered = u64::from(free) + u64::from(stats.active) + u64::from(stats.spent);
        let held = if now < member.hold_end { member.hold_end.since(now) } else { Span::ZERO };
        text.push_str("provider");
        key_value::push(text, "service", service);
        key_value::push(text, "address", stats.provider);
        for (key, value) in [
            ("tickets", u64::from(tickets)),
            ("capacity", u64::from(capacity)),
            ("offered", offered),
            ("free", u64::from(free)),
            ("active", u64::from(stats.active)),
            ("spent", u64::from(stats.spent)),
            ("granted", member.granted),
            ("failures", member.failures),
        ] {
            key_value::push(text, key, value);
        }
        key_value::push(text, "lease", member.lease_end.since(now));
        key_value::push(text, "held", held);
        if let Some(name) = self.registered_by(service, stats.provider) {
            key_value::push(text, "key", name);
        }
        key_value::push(text, "state", state_word(member, now));
        let known = if stats.samples >= SAMPLES_MIN { stats.service_time } else { Span::ZERO };
        key_value::push(text, "time", known);
        if now < member.drain_end && member.drain_end != Moment::NEVER {
            key_value::push(text, "drained", member.drain_end.since(now));
        }
        key_value::push(text, "weight", Thousandths(weight));
        if member.probation() != u32::MAX {
            key_value::push(text, "probation", member.probation());
        }
        if member.avoiding(now) > 0 {
            key_value::push(text, "avoided_by", member.avoiding(now));
        }
        text.push('\n');
    }
}

/// Why a provider gets requests or does not, in one word.
fn state_word(member: &PoolMember, now: Moment) -> &'static str {
    if now < member.drain_end {
        return "drained";
    }
    if now < member.hold_end {
        return "held";
    }
    match member.availability(now) {
        Availability::FreeTicket | Availability::UncountedOnly => "free",
        Availability::SpareCapacity | Availability::Reserve => "busy",
        Availability::Full => "full",
        Availability::Unavailable => "gone",
    }
}
