use super::*;
use crate::base::ticket::Weight;
use crate::scheduler::SchedulerName;

pub(super) const LEASE: Span = Span::from_secs(1000);

pub(super) const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

pub(super) fn weight(slots: u32) -> Weight {
    Weight::of(f64::from(slots))
}

pub(super) fn at(millis: u64) -> Moment {
    Moment::after_start(Span::from_millis(millis))
}

fn pool(scheduler: &str, offers: &[(&str, u32, u32)]) -> ProviderPool {
    let mut pool = ProviderPool::new(scheduler.parse::<SchedulerName>().unwrap().make(0));
    for (provider, tickets, capacity) in offers {
        let provider = provider.parse().unwrap();
        pool.offer(
            Offer {
                provider,
                tickets: *tickets,
                capacity: *capacity,
                weight: weight(*capacity),
                lease: LEASE,
            },
            at(0),
        );
    }
    pool
}

/// The last number of each granted provider's address.
fn grants(pool: &mut ProviderPool, counted: bool, count: usize) -> Vec<String> {
    let mut granted =
        || pool.grant(counted, false, None, &[], at(0)).map(|(provider, _)| provider.to_string());
    (0..count).map(|_| granted().map_or("-".to_string(), |text| text[7..].to_string())).collect()
}

#[test]
fn fifo_uses_one_message_up_before_the_next() {
    let mut pool = pool("fifo", &[("10.0.0.1", 2, 9), ("10.0.0.2", 1, 9)]);
    let provider = "10.0.0.1".parse().unwrap();
    pool.offer(Offer { provider, tickets: 2, capacity: 9, weight: weight(9), lease: LEASE }, at(0));
    assert_eq!(
        grants(&mut pool, false, 4),
        ["1", "1", "2", "-"],
        "a repeated offer keeps its place"
    );
    pool.offer(
        Offer {
            provider: "10.0.0.2".parse().unwrap(),
            tickets: 1,
            capacity: 9,
            weight: weight(9),
            lease: LEASE,
        },
        at(0),
    );
    pool.offer(Offer { provider, tickets: 2, capacity: 9, weight: weight(9), lease: LEASE }, at(0));
    assert_eq!(grants(&mut pool, false, 4), ["2", "1", "1", "-"], "a new one comes last");
}

#[test]
fn round_robin_takes_turns_whatever_is_offered() {
    let mut pool = pool("rr", &[("10.0.0.1", 1, 1), ("10.0.0.2", 9, 9), ("10.0.0.3", 9, 9)]);
    assert_eq!(grants(&mut pool, true, 7), ["1", "2", "3", "2", "3", "2", "3"]);
}

#[test]
fn competitive_fills_fewest_active_per_ticket_and_equals_take_turns() {
    let mut twins = pool("competitive", &[("10.0.0.1", 4, 4), ("10.0.0.2", 4, 4)]);
    assert_eq!(grants(&mut twins, true, 9), ["1", "2", "1", "2", "1", "2", "1", "2", "-"]);
    let mut uneven = pool("competitive", &[("10.0.0.1", 1, 4), ("10.0.0.2", 3, 12)]);
    let first = grants(&mut uneven, true, 4);
    assert_eq!(first.iter().filter(|name| *name == "2").count(), 3, "{first:?}");
    let rest = grants(&mut uneven, true, 12);
    assert_eq!(rest.iter().filter(|name| *name == "2").count(), 9, "{rest:?}");
    assert_eq!(grants(&mut uneven, true, 1), ["-"]);
}

#[test]
fn competitive_prefers_the_class_that_is_twice_as_quick() {
    let mut pool = pool("competitive", &[("10.0.0.1", 9, 9), ("10.0.0.2", 9, 9)]);
    let mut now = 0;
    for round in 0..40 {
        let (provider, grant) = pool.grant(true, false, None, &[], at(now)).unwrap();
        let slow = provider.to_string() == "10.0.0.1";
        now += if slow { 100 } else { 20 };
        pool.release(grant, RequestResult::Good, ASKER, at(now));
        assert!(!slow || round < 21, "still led to the slow one after {round}");
    }
    let quick = std::iter::repeat_with(|| {
        pool.grant(true, false, None, &[], at(now)).unwrap().0.to_string()
    })
    .take(9);
    assert!(quick.into_iter().all(|name| name == "10.0.0.2"));
}

/// Of fourteen requests those that a provider gets whose requests take so long, where the
/// other one's take 25 ms, and each has a ticket.
fn led_to_one_that_takes(millis: u64) -> usize {
    let mut pool = pool("competitive", &[("10.0.0.1", 1, 99), ("10.0.0.2", 1, 99)]);
    for round in 0..20 {
        let now = at(200 * round);
        let both = [(); 2].map(|()| pool.grant(true, false, None, &[], now).unwrap());
        let takes = |grant: &(Provider, Grant)| match grant.0.to_string().as_str() {
            "10.0.0.1" => millis,
            _ => 25,
        };
        let mut both = both.map(|grant| (takes(&grant), grant.1));
        both.sort_unstable_by_key(|(takes, _)| *takes);
        for (takes, grant) in both {
            pool.release(grant, RequestResult::Good, ASKER, now + Span::from_millis(takes));
        }
    }
    let names = [(); 14].map(|()| pool.grant(true, false, None, &[], at(4000)).unwrap().0);
    names.iter().filter(|name| name.to_string() == "10.0.0.1").count()
}

#[test]
fn where_no_ticket_is_free_a_slow_provider_gets_fewer_but_not_by_its_speed() {
    let slow = led_to_one_that_takes(100);
    assert!((4..=5).contains(&slow), "{slow} of 14; by number 7, by speed 3");
    assert_eq!(led_to_one_that_takes(33), 7, "that may be chance");
}

#[test]
fn uncounted_requests_are_turns_in_proportion_to_tickets() {
    let mut pool = pool("competitive", &[("10.0.0.1", 6, 6), ("10.0.0.2", 2, 2)]);
    let names = grants(&mut pool, false, 9);
    assert_eq!(names.iter().filter(|name| *name == "1").count(), 6);
    assert!(
        names[..4].contains(&"2".to_string()) && names[4..8].contains(&"2".to_string()),
        "{names:?}"
    );
    assert_eq!(names[8], "-");
}

#[test]
fn spent_tickets_that_nobody_called_a_failure_end_a_probation() {
    let mut pool = pool("competitive", &[("10.0.0.1", 9, 9)]);
    let provider = "10.0.0.1".parse().unwrap();
    pool.fail(provider, None, Some(ASKER), at(0));
    let mut now = 0;
    for allowed in [1, 2, 8, 9] {
        now += 1000;
        pool.offer(
            Offer { provider, tickets: 9, capacity: 9, weight: weight(9), lease: LEASE },
            at(now),
        );
        let mut granted = 0;
        while pool.grant(false, false, None, &[], at(now)).is_some() {
            granted += 1;
        }
        assert_eq!(granted, allowed);
    }
}

#[test]
fn a_failed_provider_is_remembered_and_another_is_not() {
    let mut pool = pool("competitive", &[("10.0.0.1", 1, 1), ("10.0.0.2", 1, 1)]);
    let [failed, left] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
    pool.fail(failed, None, Some(ASKER), at(0));
    pool.withdraw(left, at(0));
    pool.sweep(at(1));
    assert!(pool.contains(failed) && !pool.contains(left));
    pool.sweep(at(59_999));
    assert_eq!(pool.len(), 1);
    pool.sweep(at(60_000));
    assert!(pool.is_empty());
}

#[test]
fn who_still_serves_is_not_forgotten() {
    let mut pool = pool("competitive", &[("10.0.0.1", 1, 1)]);
    let (provider, grant) = pool.grant(true, false, None, &[], at(0)).unwrap();
    pool.withdraw(provider, at(0));
    pool.sweep(at(9000));
    assert!(pool.contains(provider));
    pool.release(grant, RequestResult::Good, ASKER, at(9000));
    pool.sweep(at(9000));
    assert!(!pool.contains(provider));
}

#[test]
fn what_was_in_progress_at_a_death_does_not_make_the_provider_slow() {
    let mut pool = pool("competitive", &[("10.0.0.1", 9, 9), ("10.0.0.2", 9, 9)]);
    for round in 0..40 {
        let (_, grant) = pool.grant(true, false, None, &[], at(50 * round)).unwrap();
        pool.release(grant, RequestResult::Good, ASKER, at(50 * round + 50));
    }
    let [one, other] = [(); 2].map(|()| pool.grant(true, false, None, &[], at(2000)).unwrap());
    pool.fail(one.0, None, Some(ASKER), at(3000));
    // Its client gave up.
    pool.release(one.1, RequestResult::Good, ASKER, at(12_000));
    pool.release(other.1, RequestResult::Good, ASKER, at(2050));
    pool.offer(
        Offer { provider: one.0, tickets: 9, capacity: 9, weight: weight(9), lease: LEASE },
        at(12_000),
    );
    let mut counts = [0, 0];
    for round in 0..20 {
        let (provider, grant) =
            pool.grant(true, false, None, &[], at(12_000 + 50 * round)).unwrap();
        pool.release(grant, RequestResult::Good, ASKER, at(12_050 + 50 * round));
        counts[usize::from(provider == one.0)] += 1;
    }
    assert_eq!(counts, [10, 10], "equals take turns");
}

#[test]
fn what_several_askers_saw_die_has_no_requests_that_still_speak_for_it() {
    let (a, b): (IpAddr, IpAddr) = ([10, 9, 0, 1].into(), [10, 9, 0, 2].into());
    let mut pool = pool("competitive", &[("10.0.0.1", 9, 9)]);
    let mut grant = |asker, now| {
        let (provider, grant) = pool.grant(true, false, None, &[], now).unwrap();
        pool.began(&grant, asker);
        (provider, grant)
    };
    let (provider, _stays) = grant(b, at(0));
    let vain = [a, b, a].map(|asker| (asker, grant(asker, at(0)).1));
    let verdicts =
        vain.map(|(asker, grant)| pool.release(grant, RequestResult::Empty, asker, at(10)));
    assert_eq!(verdicts, [None, None, Some(None)]);
    assert_eq!(pool.fail(provider, None, None, at(10)), Verdict::Held(8));
    // The request of B that was in progress then says nothing about today.
    let offer = Offer { provider, tickets: 9, capacity: 9, weight: weight(9), lease: LEASE };
    pool.offer(offer, at(5000));
    assert_eq!(pool.fail(provider, None, Some(a), at(6000)), Verdict::Held(8));
}
