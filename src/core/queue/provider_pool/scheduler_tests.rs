//! What each scheduler does with a pool, and that the quick ways choose what a
//! plain look at everybody would.

use super::tests::{at, weight, ASKER, LEASE};
use super::*;
use crate::base::random::Random;
use crate::scheduler::competitive::SCAN_MAX;
use crate::scheduler::{SchedulerName, SCHEDULERS};
use std::collections::BTreeMap;

fn provider(number: u32) -> Provider {
    Provider { ip: IpAddr::from((0x0a00_0000 + number).to_be_bytes()), port: None }
}

fn offer(pool: &mut ProviderPool, number: u32, tickets: u32, capacity: u32) {
    pool.offer(
        Offer {
            provider: provider(number),
            tickets,
            capacity,
            weight: weight(capacity),
            lease: LEASE,
        },
        at(0),
    );
}

fn pool(scheduler: &str, offers: impl IntoIterator<Item = (u32, u32)>) -> ProviderPool {
    let mut pool = ProviderPool::new(scheduler.parse::<SchedulerName>().unwrap().make(7));
    for (number, (tickets, capacity)) in (1..).zip(offers) {
        offer(&mut pool, number, tickets, capacity);
    }
    pool
}

fn number(provider: Provider) -> u32 {
    match provider.ip {
        IpAddr::V4(ip) => ip.to_bits() - 0x0a00_0000,
        IpAddr::V6(_) => unreachable!(),
    }
}

/// The numbers of the providers granted one after the other; 0: no provider.
fn grants(pool: &mut ProviderPool, counted: bool, count: usize) -> Vec<u32> {
    let mut granted =
        || pool.grant(counted, false, None, &[], at(0)).map_or(0, |(provider, _)| number(provider));
    (0..count).map(|_| granted()).collect()
}

#[test]
fn whom_each_leads_to() {
    // (tickets, capacity) of providers 1, 2, …; the first grants, counted.
    let unequal = [(2, 4), (4, 8), (1, 2)];
    let equal = [(2, 2), (2, 2), (2, 2)];
    for (scheduler, offers, expected) in [
        ("first", unequal, [1, 1, 2, 2, 2, 2, 3, 1, 1, 2]),
        ("fifo", unequal, [1, 1, 2, 2, 2, 2, 3, 1, 1, 2]),
        ("rr", unequal, [1, 2, 3, 1, 2, 2, 2, 3, 1, 2]),
        ("wrr", unequal, [2, 1, 2, 3, 2, 1, 2, 2, 2, 1]),
        ("wrr", equal, [1, 2, 3, 1, 2, 3, 0, 0, 0, 0]),
        ("lc", unequal, [2, 1, 2, 2, 3, 1, 2, 2, 1, 2]),
        ("lc", equal, [1, 2, 3, 1, 2, 3, 0, 0, 0, 0]),
        ("sed", unequal, [2, 1, 2, 2, 3, 1, 2, 2, 1, 2]),
        ("nq", unequal, [2, 1, 3, 2, 2, 1, 2, 2, 1, 2]),
    ] {
        assert_eq!(
            grants(&mut pool(scheduler, offers), true, 10),
            expected,
            "{scheduler} {offers:?}"
        );
    }
}

#[test]
fn every_scheduler_uses_all_there_is_and_no_more() {
    for member in SCHEDULERS {
        for (counted, most) in [(true, 17), (false, 9)] {
            let mut pool = pool(member.names[0], [(3, 4), (0, 3), (5, 8), (1, 2)]);
            let granted = grants(&mut pool, counted, 20);
            let served = granted.iter().take_while(|number| **number != 0).count();
            assert_eq!(served, most, "{} {granted:?}", member.names[0]);
            let chosen = |to: u32| granted[..9].iter().filter(|number| **number == to).count();
            assert_eq!(
                [chosen(1), chosen(2), chosen(3), chosen(4)],
                [3, 0, 5, 1],
                "free tickets first: {}",
                member.names[0]
            );
        }
    }
}

#[test]
fn the_table_tells_which_schedulers_look_at_the_client() {
    for member in SCHEDULERS {
        let first = |client: u8| {
            let mut pool = pool(member.names[0], [(9, 9); 5]);
            pool.grant(true, false, Some(IpAddr::from([192, 0, 2, client])), &[], at(0))
                .map(|(provider, _)| provider)
        };
        let differs = (1..100).any(|client| first(client) != first(0));
        assert_eq!(differs, member.uses_client, "{}", member.names[0]);
    }
}

#[test]
fn nobody_avoided_is_chosen_and_all_others_are() {
    for member in SCHEDULERS {
        let mut pool = pool(member.names[0], (0..20).map(|_| (1, 1)));
        let avoid: Vec<_> = [3, 4, 5, 5, 99].into_iter().map(provider).collect();
        let client = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        let granted = |number| pool.grant(true, false, client(number), &avoid, at(0));
        let chosen: Vec<u32> =
            (0..20).map_while(granted).map(|(provider, _)| number(provider)).collect();
        assert_eq!(chosen.len(), 17, "{}", member.names[0]);
        assert!([3, 4, 5].iter().all(|number| !chosen.contains(number)), "{}", member.names[0]);
        assert!(
            pool.has_candidate(true, false, &[], at(0))
                && !pool.has_candidate(true, false, &avoid, at(0))
        );
    }
}

#[test]
fn leases_and_holds_end_on_the_instant() {
    for member in SCHEDULERS {
        let mut pool = pool(member.names[0], []);
        let mut offers = |now, lease| {
            let lease = Span::from_millis(lease);
            pool.offer(
                Offer { provider: provider(1), tickets: 9, capacity: 9, weight: weight(9), lease },
                at(now),
            );
        };
        offers(0, 5000);
        offers(10, 90);
        assert!(pool.grant(true, false, None, &[], at(99)).is_some());
        assert!(
            !pool.any_available(at(100)) && pool.grant(true, false, None, &[], at(100)).is_none()
        );
        pool.fail(provider(1), None, Some(ASKER), at(100));
        pool.offer(
            Offer {
                provider: provider(1),
                tickets: 9,
                capacity: 9,
                weight: weight(9),
                lease: LEASE,
            },
            at(200),
        );
        assert!(
            !pool.any_available(at(599)) && pool.grant(false, false, None, &[], at(599)).is_none()
        );
        assert!(
            pool.any_available(at(600)) && pool.grant(false, false, None, &[], at(600)).is_some(),
            "{}",
            member.names[0]
        );
    }
}

#[test]
fn random_two_prefers_the_less_loaded_and_repeats_itself() {
    let mut one = pool("random", (0..100).map(|_| (100, 100)));
    let granted = grants(&mut one, true, 1000);
    let mut loads = BTreeMap::new();
    granted.iter().for_each(|number| *loads.entry(*number).or_insert(0) += 1);
    // One random choice would leave a provider with about twice the mean.
    assert!(loads.len() == 100 && loads.values().all(|load| (5..15).contains(load)), "{loads:?}");
    assert_eq!(granted, grants(&mut pool("random", (0..100).map(|_| (100, 100))), true, 1000));
}

#[test]
fn weighted_turns_are_in_proportion_and_spread_evenly() {
    for counted in [true, false] {
        let mut pool = pool("wrr", [(500, 999), (300, 999), (100, 999), (100, 999)]);
        let granted = grants(&mut pool, counted, 500);
        for end in 1..=500 {
            for (to, share) in [(1, 0.5), (2, 0.3), (3, 0.1), (4, 0.1)] {
                let served = granted[..end].iter().filter(|number| **number == to).count() as f64;
                assert!((served - share * end as f64).abs() < 1.5, "{to} had {served} of {end}");
            }
        }
    }
}

#[test]
fn weighted_turns_survive_new_weights() {
    let mut random = Random::new(7);
    let mut pool = pool("wrr", (0..10).map(|_| (1000, 1000)));
    let mut served = [0.0; 10];
    for _ in 0..2000 {
        let tickets = 900 + random.below(200) as u32;
        offer(&mut pool, 1 + random.below(10) as u32, tickets, tickets);
        grants(&mut pool, false, 7)
            .into_iter()
            .for_each(|number| served[number as usize - 1] += 1.0);
    }
    assert!(served.iter().all(|count: &f64| (count - 1400.0).abs() < 30.0), "{served:?}");
}

/// The provider of each client, while there are no other clients.
fn homes(pool: &mut ProviderPool, clients: u32) -> Vec<u32> {
    let home = |client: u32| {
        let client = Some(IpAddr::from((0xc000_0000 + client).to_be_bytes()));
        let (provider, grant) = pool.grant(true, false, client, &[], at(0)).unwrap();
        pool.release(grant, RequestResult::Good, ASKER, at(0));
        number(provider)
    };
    (0..clients).map(home).collect()
}

#[test]
fn source_hash_moves_hardly_anybody_else() {
    const CLIENTS: u32 = 20_000;
    let mut pool = pool("source-hash", (0..100).map(|_| (9, 9)));
    let before = homes(&mut pool, CLIENTS);
    assert_eq!(before, homes(&mut pool, CLIENTS), "a client stays");
    for number in 1..=100 {
        let clients = before.iter().filter(|home| **home == number).count() as u32;
        assert!((CLIENTS / 200..CLIENTS / 50).contains(&clients), "{number} has {clients} clients");
    }
    pool.withdraw(provider(42), at(0));
    let elsewhere = homes(&mut pool, CLIENTS);
    let moved = |after: &[u32]| {
        before.iter().zip(after).filter(|(before, after)| **before != 42 && before != after).count()
    };
    assert_eq!(moved(&elsewhere), 0, "as long as it is remembered");
    pool.sweep(at(0));
    let after = homes(&mut pool, CLIENTS);
    assert!(moved(&after) <= CLIENTS as usize * 3 / 100, "{} clients moved", moved(&after));
    assert!(!after.contains(&42));
    offer(&mut pool, 42, 9, 9);
    assert_eq!(homes(&mut pool, CLIENTS), before, "and all come back");
}

#[test]
fn source_hash_overloads_nobody() {
    const PROVIDERS: usize = 50;
    let mut pool = pool("source-hash", (0..PROVIDERS).map(|_| (9999, 9999)));
    let mut loads = [0.0; PROVIDERS];
    for request in 1..=5000 {
        // Half of all requests come from three clients.
        let client = if request % 2 == 0 { request % 6 } else { request };
        let client = Some(IpAddr::from((client as u32).to_be_bytes()));
        let (provider, _) = pool.grant(true, false, client, &[], at(0)).unwrap();
        loads[number(provider) as usize - 1] += 1.0;
        let fullest = loads.iter().copied().fold(0.0, f64::max);
        let mean = f64::from(request) / PROVIDERS as f64;
        assert!(fullest <= (1.25 * mean).ceil(), "{fullest} at one, {mean} at all");
    }
}

#[test]
fn source_hash_without_a_client_is_least_loaded() {
    let offers = [(2, 4), (4, 8), (1, 2)];
    assert_eq!(grants(&mut pool("mh", offers), true, 9), grants(&mut pool("lc", offers), true, 9));
}

/// The law of a scheduler as a plain look at everybody: the lowest of this.
type Law = fn(&Naive, &ProviderStats) -> (f64, f64, u64);

/// What a law may know besides the stats.
struct Naive<'a> {
    pool: &'a ProviderPool,
    placement: Placement,
    /// All turns in order.
    turns: Vec<u64>,
    quickest: f64,
}

impl<'a> Naive<'a> {
    fn new(pool: &'a ProviderPool, placement: Placement) -> Naive<'a> {
        let mut turns: Vec<u64> =
            pool.members().map(|member| member.stats.last_grant_seq).collect();
        turns.sort_unstable();
        let mut naive = Naive { pool, placement, turns, quickest: f64::INFINITY };
        let able = pool.members().filter(|member| member.stats.is_available());
        naive.quickest =
            able.filter_map(|member| naive.octaves(&member.stats)).fold(f64::INFINITY, f64::min);
        naive
    }

    fn turn(&self, stats: &ProviderStats) -> f64 {
        self.turns.partition_point(|turn| *turn < stats.last_grant_seq) as f64
            / self.turns.len() as f64
    }

    fn octaves(&self, stats: &ProviderStats) -> Option<f64> {
        let octaves = stats.service_time.max(Span::from_millis(1)).as_secs_f64().log2();
        let rounded = self.pool.members.slots() > SCAN_MAX;
        (stats.samples >= 10).then_some(if rounded {
            (octaves * 8.0).round() / 8.0
        } else {
            octaves
        })
    }

    fn competitive(&self, stats: &ProviderStats) -> (f64, f64, u64) {
        let requests = f64::from(stats.crowd()) + 1.0 + self.turn(stats);
        let octaves = self.octaves(stats).map_or(0.0, |octaves| octaves - self.quickest);
        if !self.placement.free_tickets_only {
            let slowness = (2.0 / 3.0 * (octaves - 0.5).max(0.0)).exp2();
            return (0.0, slowness * requests / f64::from(stats.weight), stats.last_grant_seq);
        }
        (octaves.round(), requests / f64::from(stats.tickets), stats.last_grant_seq)
    }
}

const LAWS: [(&str, Law); 7] = [
    ("competitive", |naive, stats| naive.competitive(stats)),
    ("least-loaded", |naive, stats| {
        (
            0.0,
            (f64::from(stats.used()) + 1.0 + naive.turn(stats)) / f64::from(stats.weight),
            stats.last_grant_seq,
        )
    }),
    ("first", |_, stats| (f64::from(number(stats.provider)), 0.0, 0)),
    ("round-robin", |_, stats| (0.0, 0.0, stats.last_grant_seq)),
    ("fifo", |_, stats| (0.0, 0.0, stats.free_since_seq)),
    ("shortest-delay", |_, stats| {
        (0.0, (f64::from(stats.used()) + 1.0) / f64::from(stats.tickets), stats.last_grant_seq)
    }),
    ("never-queue", |_, stats| {
        let busy = if stats.used() > 0 { 1.0 } else { 0.0 };
        (busy, (f64::from(stats.used()) + 1.0) / f64::from(stats.tickets), stats.last_grant_seq)
    }),
];

/// The providers that the specification allows, found by a look at every member.
fn candidates<'a>(
    pool: &'a ProviderPool,
    placement: Placement,
    avoid: &[Provider],
    now: Moment,
) -> Vec<&'a ProviderStats> {
    let fits = |member: &&PoolMember| {
        let stats = &member.stats;
        let open = now < member.lease_end && now >= member.hold_end;
        let able = stats.active < stats.capacity && member.probation_active < member.probation;
        let free = stats.tickets > stats.active + stats.spent
            && stats.tickets > stats.shadow
            && member.probation_active + stats.spent < member.probation;
        let paced = stats.active < member.let_in(now) || placement.on_reserve;
        let place = if placement.free_tickets_only {
            free && (able || !placement.counted)
        } else {
            able && placement.counted && paced
        };
        open && place && !avoid.contains(&stats.provider)
    };
    pool.members().filter(fits).map(|member| &member.stats).collect()
}

fn wanted(
    pool: &ProviderPool,
    law: Law,
    counted: bool,
    avoid: &[Provider],
    now: Moment,
) -> Option<Provider> {
    [(true, false), (false, false), (false, true)].into_iter().find_map(
        |(free_tickets_only, on_reserve)| {
            let placement = Placement { free_tickets_only, on_reserve, counted, client: None };
            let naive = Naive::new(pool, placement);
            let key = |stats: &&ProviderStats| law(&naive, stats);
            let candidates = candidates(pool, placement, avoid, now).into_iter();
            candidates
                .min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap())
                .map(|stats| stats.provider)
        },
    )
}

/// A random history with one scheduler; the first choice that differs fails.
fn history(name: &str, law: Law, seed: u64) {
    let mut random = Random::new(seed);
    let providers = [3, 12, 60, 80, 300][random.below(5)];
    let weights = [1, 4, 40][random.below(3)];
    let counted_only = name == "competitive";
    let mut pool = pool(name, []);
    let (mut now, mut running) = (at(0), Vec::<(Grant, u32)>::new());
    for step in 0..4000 {
        now = now + Span::from_millis(random.below(20) as u64);
        let chosen = provider(random.below(providers) as u32);
        match if step < providers { 0 } else { random.below(100) } {
            0..=7 => {
                let tickets = random.below(weights + 1) as u32;
                let capacity = random.below(4 * weights) as u32;
                let lease = Span::from_millis(1 + random.below(60_000) as u64);
                pool.offer(
                    Offer { provider: chosen, tickets, capacity, weight: weight(capacity), lease },
                    now,
                );
            }
            8 => drop(pool.withdraw(chosen, now)),
            9 => drop(pool.fail(chosen, None, Some(ASKER), now)),
            10 => pool.sweep(now),
            11 if random.below(20) == 0 => {
                pool.set_scheduler(name.parse::<SchedulerName>().unwrap().make(1))
            }
            12..=57 if !running.is_empty() => {
                // Some are quicker than others, so that there are classes.
                let any = [(); 3].map(|()| random.below(running.len()));
                let quickest = any.into_iter().min_by_key(|at| running[*at].1 % 3).unwrap();
                let (grant, _) = running.swap_remove(quickest);
                let good = random.below(10) > 0;
                pool.release(
                    grant,
                    if good { RequestResult::Good } else { RequestResult::Unused },
                    ASKER,
                    now,
                );
            }
            _ => {
                let avoid: Vec<_> = (0..random.below(3))
                    .map(|_| provider(random.below(providers) as u32))
                    .collect();
                let counted = counted_only || random.below(4) > 0;
                pool.advance(now);
                let expected = wanted(&pool, law, counted, &avoid, now);
                let suits = pool.has_candidate(counted, false, &avoid, now);
                let granted = pool.grant(counted, false, None, &avoid, now);
                assert_eq!(granted.map(|(provider, _)| provider), expected, "{name}, step {step}");
                assert_eq!(suits, expected.is_some());
                running.extend(
                    granted.filter(|_| counted).map(|(provider, grant)| (grant, number(provider))),
                );
            }
        }
    }
}

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay: PEGASUS_SEED={:#x} cargo test the_quick_ways", self.0);
        }
    }
}

#[test]
fn the_quick_ways_choose_what_a_look_at_everybody_would() {
    let given = std::env::var("PEGASUS_SEED").ok();
    let given = given.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    for seed in given.map_or(0x7347..0x7347 + 6, |seed| seed..seed + 1) {
        let _replay = Replay(seed);
        for (name, law) in LAWS {
            history(name, law, seed);
        }
    }
}

#[test]
fn a_slow_provider_counts_for_more_where_an_order_is_kept_too() {
    const PROVIDERS: usize = 80;
    let law = LAWS.iter().find(|(name, _)| *name == "competitive").unwrap().1;
    let mut pool = pool("competitive", [(1, 40); PROVIDERS]);
    for round in 0..12 {
        let now = at(1000 * round);
        let mut grants = [(); PROVIDERS].map(|()| {
            let (provider, grant) = pool.grant(true, false, None, &[], now).unwrap();
            (20 + 30 * u64::from(number(provider) % 5), grant)
        });
        grants.sort_unstable_by_key(|(takes, _)| *takes);
        for (takes, grant) in grants {
            pool.release(grant, RequestResult::Good, ASKER, now + Span::from_millis(takes));
        }
    }
    for step in 0..8 * PROVIDERS {
        let expected = wanted(&pool, law, true, &[], at(12_000));
        let granted = pool.grant(true, false, None, &[], at(12_000));
        assert_eq!(granted.map(|(provider, _)| provider), expected, "step {step}");
    }
}
