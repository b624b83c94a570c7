//! What a choice costs with each scheduler, among few and many providers.

use pegasus_core::base::provider::Provider;
use pegasus_core::base::random::Random;
use pegasus_core::base::ticket::{Offer, Weight};
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::request::RequestResult;
use pegasus_core::queue::provider_pool::ProviderPool;
use pegasus_core::scheduler::{SchedulerName, SCHEDULERS};
use std::net::IpAddr;
use std::time::Instant;

/// Providers, and the choices to take the mean of.
const SIZES: [(u32, u32); 5] =
    [(3, 400_000), (10, 400_000), (64, 200_000), (1000, 200_000), (100_000, 300_000)];

fn offer(number: u32) -> Offer {
    let provider =
        Provider { ip: IpAddr::from((0x0a00_0000 + number).to_be_bytes()), port: Some(80) };
    let tickets = 1 + number % 40;
    Offer {
        provider,
        tickets,
        capacity: 4 * tickets,
        weight: Weight::of(f64::from(tickets)),
        lease: Span::from_secs(1000),
    }
}

/// Returns the nanoseconds for one grant and its end, with two requests in progress for
/// each provider, which end in no particular order.
fn nanos(name: &SchedulerName, providers: u32, rounds: u32) -> f64 {
    let mut now = Moment::after_start(Span::from_secs(1));
    let mut random = Random::new(7);
    let mut pool = ProviderPool::new(name.make(7));
    for number in 0..providers {
        pool.offer(offer(number), now);
    }
    let mut running = Vec::new();
    let mut begun = Instant::now();
    for round in 0..2 * providers + rounds {
        now = now + Span::from_millis(1);
        let client = Some(IpAddr::from((0x0b00_0000 + round).to_be_bytes()));
        running.extend(pool.grant(true, false, client, &[], now));
        if round < 2 * providers {
            begun = Instant::now();
            continue;
        }
        let (_, grant) = running.swap_remove(random.below(running.len()));
        pool.release(grant, RequestResult::Good, std::net::Ipv4Addr::LOCALHOST.into(), now);
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
}

#[test]
#[ignore = "a bench"]
fn bench_schedulers() {
    println!(
        "\nns per grant and done{}",
        SIZES.map(|(providers, _)| format!("{providers:>9}")).concat()
    );
    for entry in SCHEDULERS {
        let name: SchedulerName = entry.names[0].parse().unwrap();
        let nanos =
            SIZES.map(|(providers, rounds)| format!("{:>9.0}", nanos(&name, providers, rounds)));
        println!("{:<21}{}", entry.names[0], nanos.concat());
    }
}
