//! What is known of a service's providers: the list in the queue's last status.
//!
//! Owns the list and the order of what stands behind the chosen provider in an answer.

use super::interface::{Wanted, PROVIDERS_MAX};
use crate::base::key_value;
use crate::base::provider::Provider;
use crate::base::service_name::ServiceName;
use std::cmp::Reverse;

/// A provider that may be led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offer {
    provider: Provider,
    /// Tickets that are still free.
    free: u32,
}

/// The providers of a service that live, in the order of their addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Offers(Vec<Offer>);

impl Offers {
    /// Those in the lines of a status.
    pub(super) fn parse(lines: &str, service: ServiceName) -> Offers {
        let mut offers: Vec<Offer> =
            lines.lines().filter_map(|line| offer(line, service)).collect();
        offers.sort_unstable_by_key(|offer| offer.provider);
        Offers(offers)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them can be in the answer.
    pub(super) fn any(&self, wanted: Wanted) -> bool {
        self.0.iter().any(|offer| wanted.includes(offer.provider.ip))
    }

    /// Those that cannot be in the answer.
    pub(super) fn others(&self, wanted: Wanted) -> impl Iterator<Item = Provider> + '_ {
        self.0.iter().map(|offer| offer.provider).filter(move |other| !wanted.includes(other.ip))
    }

    /// The queue gave a ticket of this provider away.
    pub(super) fn spend(&mut self, provider: Provider) {
        if let Some(offer) = self.0.iter_mut().find(|offer| offer.provider == provider) {
            offer.free = offer.free.saturating_sub(1);
        }
    }

    /// The answer that begins with the provider that the queue chose. Behind it stand those
    /// with free tickets, the most first; equals take turns, as the chosen one changes.
    pub(super) fn behind(&self, chosen: Provider, wanted: Wanted) -> Vec<Provider> {
        if wanted == Wanted::One {
            return vec![chosen];
        }
        let start = self.0.partition_point(|offer| offer.provider <= chosen);
        let (before, after) = self.0.split_at(start);
        let mut rest: Vec<&Offer> =
            after.iter().chain(before).filter(|offer| offer.free > 0).collect();
        rest.sort_by_key(|offer| Reverse(offer.free));
        distinct([chosen].into_iter().chain(rest.into_iter().map(|offer| offer.provider)), wanted)
    }
}

/// The first of these that can be in the answer, without repetition.
pub(super) fn distinct(providers: impl Iterator<Item = Provider>, wanted: Wanted) -> Vec<Provider> {
    let with_port = matches!(wanted, Wanted::One | Wanted::Places);
    let mut found: Vec<Provider> = Vec::new();
    for provider in providers.filter(|provider| wanted.includes(provider.ip)) {
        let known = |other: &Provider| {
            other.ip == provider.ip && (!with_port || other.port == provider.port)
        };
        if found.len() < PROVIDERS_MAX && !found.iter().any(known) {
            found.push(provider);
        }
    }
    found
}

/// The provider in a line of a status, if a client may be led there.
fn offer(line: &str, service: ServiceName) -> Option<Offer> {
    let find = |key| key_value::find(line, key);
    let lives = !matches!(find("state"), Some("drained" | "held" | "gone"))
        && find("capacity") != Some("0")
        && line.starts_with("provider ")
        && find("service")? == service.as_str();
    let free = find("free").and_then(|free| free.parse().ok()).unwrap_or(0);
    lives.then_some(Offer { provider: find("address")?.parse().ok()?, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "queue connections=1\nservice name=web free=5\n\
        provider service=web address=10.0.0.1:80 capacity=4 free=1 state=free\n\
        provider service=web address=10.0.0.2:80 capacity=4 free=3 state=free\n\
        provider service=web address=10.0.0.2:81 capacity=4 free=2 state=free\n\
        provider service=web address=10.0.0.3:80 capacity=4 free=0 state=busy\n\
        provider service=web address=10.0.0.4:80 capacity=4 free=4 state=drained\n\
        provider service=web address=10.0.0.5:80 capacity=0 free=0 state=full\n\
        provider service=web address=10.0.0.6:80 capacity=4 free=4 state=held\n\
        provider service=web address=[2001:db8::1]:80 capacity=4 free=1 state=free\n\
        provider service=dns address=10.0.0.9:53 capacity=4 free=9 state=free\n";
    const V4: Wanted = Wanted::Addresses { v4: true, v6: false };
    const V6: Wanted = Wanted::Addresses { v4: false, v6: true };

    fn text(providers: &[Provider]) -> String {
        providers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn behind_the_chosen_one_stand_those_with_free_tickets() {
        let mut offers = Offers::parse(LINES, "web".parse().unwrap());
        let busy = "10.0.0.3:80".parse().unwrap();
        assert_eq!(text(&offers.behind(busy, V4)), "10.0.0.3:80 10.0.0.2:80 10.0.0.1:80");
        assert_eq!(
            text(&offers.behind(busy, Wanted::Places)),
            "10.0.0.3:80 10.0.0.2:80 10.0.0.2:81 [2001:db8::1]:80 10.0.0.1:80"
        );
        assert_eq!(text(&offers.behind(busy, Wanted::One)), "10.0.0.3:80");
        assert_eq!(text(&offers.behind(busy, V6)), "[2001:db8::1]:80");
        assert_eq!(text(&offers.others(V4).collect::<Vec<_>>()), "[2001:db8::1]:80");
        offers.spend("[2001:db8::1]:80".parse().unwrap());
        assert!(offers.any(V6) && offers.behind(busy, V6).is_empty());
    }

    #[test]
    fn an_answer_has_its_bound() {
        let lines: String = (1..100)
            .map(|n| format!("provider service=web address=10.0.0.{n}:80 capacity=1 free=1\n"))
            .collect();
        let offers = Offers::parse(&lines, "web".parse().unwrap());
        let behind = offers.behind("10.0.0.98:80".parse().unwrap(), V4);
        assert_eq!(text(&behind[..4]), "10.0.0.98:80 10.0.0.99:80 10.0.0.1:80 10.0.0.2:80");
        assert_eq!(behind.len(), PROVIDERS_MAX);
    }
}
