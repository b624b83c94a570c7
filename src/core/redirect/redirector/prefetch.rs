//! Tickets that are asked for ahead of the clients that will need them: a client then need
//! not wait for an answer of the queue, and several orders cost one message.
//!
//! Owns which tickets are at hand and which are on order, and how many there should be. A
//! ticket grows stale quickly, as its provider goes on living: it is kept for a moment, and
//! then given back. Knows neither clients nor the queue.

use super::interface::PrefetchSize;
use crate::base::provider::Provider;
use crate::base::time::{Moment, Span};
use std::collections::{HashMap, VecDeque};

/// How long a ticket of a fixed number is kept.
const FIXED_AGE_MAX: Span = Span::from_millis(250);
/// The same of a number that follows demand.
const AUTO_AGE_MAX: Span = Span::from_millis(25);
/// Clients are counted for so long.
const RATE_WINDOW: Span = Span::from_millis(100);
/// Of the clients of one window, tickets for so many are at hand: for those of 10 ms.
const WINDOW_PARTS: u32 = 10;
/// With fewer, nothing is gained.
const AUTO_MIN: u32 = 3;
/// With more, little is.
const AUTO_MAX: u32 = 32;
/// After the queue had no ticket to spare, none are asked for ahead for so long.
const SHORTAGE_PAUSE: Span = Span::from_secs(1);

#[derive(Debug)]
struct PrefetchedTicket {
    id: u32,
    provider: Provider,
    since: Moment,
}

/// How many clients come.
#[derive(Debug, Default)]
struct ArrivalRate {
    since: Moment,
    count: u32,
    /// In the window before.
    last: u32,
}

impl ArrivalRate {
    /// Counts a client: how many came in the window before.
    fn count(&mut self, now: Moment) -> u32 {
        let passed = now.since(self.since);
        if passed >= RATE_WINDOW {
            self.last = if passed < RATE_WINDOW + RATE_WINDOW { self.count } else { 0 };
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        self.last
    }
}

/// Of one service; the oldest ticket first.
#[derive(Debug, Default)]
struct PerService {
    tickets: VecDeque<PrefetchedTicket>,
    requested: u32,
    rate: ArrivalRate,
    /// The queue met as many orders in a row.
    met: u32,
    /// It did not, and is left alone until then.
    paused_until: Moment,
}

impl PerService {
    /// How many tickets there should be; a client just came.
    fn target(&mut self, size: PrefetchSize, now: Moment) -> u32 {
        match size {
            PrefetchSize::Fixed(count) => count,
            PrefetchSize::Auto => {
                let expected = (self.rate.count(now) / WINDOW_PARTS).min(AUTO_MAX);
                if expected < AUTO_MIN || now < self.paused_until {
                    return 0;
                }
                // One order asks whether there is enough; each that is met allows one more.
                expected.min(1 + self.met)
            }
        }
    }
}

fn age_max(size: PrefetchSize) -> Span {
    match size {
        PrefetchSize::Fixed(_) => FIXED_AGE_MAX,
        PrefetchSize::Auto => AUTO_AGE_MAX,
    }
}

/// The tickets that were prefetched, and how many there should be.
#[derive(Debug, Default)]
pub struct Prefetch {
    /// By the number of the service.
    services: Vec<PerService>,
    pending: HashMap<u32, u16>,
}

impl Prefetch {
    fn service(&mut self, service: u16) -> &mut PerService {
        let number = usize::from(service);
        if self.services.len() <= number {
            self.services.resize_with(number + 1, PerService::default);
        }
        &mut self.services[number]
    }

    /// The oldest ticket at hand: its id and whose it is.
    pub fn take(&mut self, service: u16) -> Option<(u32, Provider)> {
        self.service(service).tickets.pop_front().map(|ticket| (ticket.id, ticket.provider))
    }

    /// A client came. How many tickets to order, so that there will be enough: none before
    /// half of them are used, because orders cost less together.
    pub fn wanted(&mut self, service: u16, size: PrefetchSize, now: Moment) -> u32 {
        let per_service = self.service(service);
        let most = per_service.target(size, now);
        let have = per_service.tickets.len() as u32 + per_service.requested;
        if have <= most / 2 {
            most - have
        } else {
            0
        }
    }

    /// One was ordered, by this id.
    pub fn requested(&mut self, service: u16, id: u32) {
        self.service(service).requested += 1;
        self.pending.insert(id, service);
    }

    /// The answer to this id came; whether it was ordered here.
    pub fn on_reply(&mut self, id: u32, provider: Option<Provider>, now: Moment) -> bool {
        let Some(service) = self.pending.remove(&id) else { return false };
        let per_service = self.service(service);
        per_service.requested -= 1;
        match provider {
            Some(_) => per_service.met = (per_service.met + 1).min(AUTO_MAX),
            None => (per_service.met, per_service.paused_until) = (0, now + SHORTAGE_PAUSE),
        }
        per_service.tickets.extend(provider.map(|provider| PrefetchedTicket {
            id,
            provider,
            since: now,
        }));
        true
    }

    /// Gives up the tickets that are too old: their ids.
    pub fn expire(&mut self, size: PrefetchSize, now: Moment) -> Vec<u32> {
        let age_max = age_max(size);
        let mut old = Vec::new();
        for per_service in &mut self.services {
            while per_service.tickets.front().is_some_and(|ticket| ticket.since + age_max <= now) {
                old.extend(per_service.tickets.pop_front().map(|ticket| ticket.id));
            }
        }
        old
    }

    /// Gives up the tickets of a provider that failed: their ids.
    pub fn discard(&mut self, service: u16, provider: Provider) -> Vec<u32> {
        let tickets = &mut self.service(service).tickets;
        let ids = tickets
            .iter()
            .filter(|ticket| ticket.provider == provider)
            .map(|ticket| ticket.id)
            .collect();
        tickets.retain(|ticket| ticket.provider != provider);
        ids
    }

    /// The queue is another one: it knows nothing of all this.
    pub fn clear(&mut self) {
        *self = Prefetch::default();
    }

    /// When the first ticket grows too old.
    pub fn deadline(&self, size: PrefetchSize) -> Option<Moment> {
        self.services
            .iter()
            .filter_map(|per_service| per_service.tickets.front())
            .map(|ticket| ticket.since + age_max(size))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client comes after each `pause`, and takes a ticket if there is one. Returns how
    /// many had one, and the sizes of the orders.
    fn rush(prefetch: &mut Prefetch, from: Span, pause: Span, ample: bool) -> (u32, Vec<u32>) {
        let (mut at_hand, mut sizes, mut next_id) = (0, Vec::new(), 0);
        let mut now = Moment::ZERO + from;
        for _ in 0..1000 {
            now = now + pause;
            prefetch.expire(PrefetchSize::Auto, now);
            at_hand += u32::from(prefetch.take(0).is_some());
            let wanted = prefetch.wanted(0, PrefetchSize::Auto, now);
            sizes.extend((wanted > 0).then_some(wanted));
            for _ in 0..wanted {
                next_id += 1;
                prefetch.requested(0, next_id);
                let provider = ample.then(|| "10.0.0.1:80".parse().unwrap());
                assert!(prefetch.on_reply(next_id, provider, now));
            }
        }
        (at_hand, sizes)
    }

    #[test]
    fn many_clients_find_a_ticket_and_several_cost_one_message() {
        let (at_hand, sizes) =
            rush(&mut Prefetch::default(), Span::ZERO, Span::from_millis(1), true);
        assert!(at_hand >= 850, "{at_hand}");
        assert!(sizes.len() <= 1000 / 4, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
    }

    #[test]
    fn few_clients_are_not_expected() {
        let (at_hand, sizes) =
            rush(&mut Prefetch::default(), Span::ZERO, Span::from_millis(5), true);
        assert_eq!((at_hand, sizes), (0, vec![]));
    }

    #[test]
    fn a_queue_without_a_ticket_to_spare_is_asked_once_a_second() {
        let mut prefetch = Prefetch::default();
        let (at_hand, sizes) = rush(&mut prefetch, Span::ZERO, Span::from_millis(1), false);
        assert_eq!((at_hand, sizes), (0, vec![1]));
        let (at_hand, sizes) = rush(&mut prefetch, Span::from_secs(1), Span::from_millis(1), false);
        assert_eq!((at_hand, sizes), (0, vec![1]));
    }

    #[test]
    fn tickets_are_given_back_sooner_than_a_fixed_number() {
        let mut prefetch = Prefetch::default();
        let provider = "10.0.0.1:80".parse().unwrap();
        prefetch.requested(0, 1);
        prefetch.on_reply(1, Some(provider), Moment::ZERO);
        let at = Moment::ZERO + AUTO_AGE_MAX;
        assert_eq!(prefetch.expire(PrefetchSize::Fixed(1), at), Vec::<u32>::new());
        assert_eq!(prefetch.deadline(PrefetchSize::Auto), Some(at));
        assert_eq!(prefetch.expire(PrefetchSize::Auto, at), vec![1]);
    }
}
