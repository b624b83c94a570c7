//! Everything at once for a while: clients over TCP and UDP while providers are killed and
//! frozen, processes reload and upgrade, checks misbehave, and the log is read in fits. Only
//! what was on its way through something killed may be lost, and nothing may pile up.

mod clients;
mod site;

use crate::support::random::Random;
use crate::support::until;
use clients::{Clients, Outages};
use site::Site;
use std::time::{Duration, Instant};

/// Pauses between events are up to this long in the short version.
const SHORT: Duration = Duration::from_millis(700);
/// Events of the long version come about as often as on a bad day of a real site.
const LONG: Duration = Duration::from_secs(5);

#[test]
fn clients_lose_nothing_in_a_short_storm() {
    soak(Duration::from_secs(20), SHORT);
}

/// `cargo test --test main soak -- --ignored --nocapture`: twenty minutes, or as many seconds
/// as `PEGASUS_SOAK_SECONDS` says.
#[test]
#[ignore = "twenty minutes"]
fn clients_lose_nothing_in_a_long_storm() {
    let seconds = std::env::var("PEGASUS_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(1200, |text| text.parse().expect("a number of seconds"));
    soak(Duration::from_secs(seconds), LONG);
}

/// What may happen to a site.
#[derive(Clone, Copy, Debug)]
enum Event {
    Reload,
    Upgrade,
    Log,
    Kill,
    Freeze,
    KillBalancer,
}

use Event::{Freeze, Kill, KillBalancer, Log, Reload, Upgrade};

/// One round, in this order: every third pause upgrades or reloads.
const ROUND: [Event; 11] =
    [Reload, Kill, Upgrade, Log, Freeze, Reload, Kill, Upgrade, Log, Freeze, Upgrade];

fn soak(duration: Duration, pause: Duration) {
    let mut random = Random::told();
    let mut site = Site::start(pause);
    // What the first clients make a process allocate is not what piles up.
    let outages = Outages::default();
    let clients = Clients::start(&site.places(), &outages);
    until("every client has been served", || clients.all_served());
    site.upgrade();
    let warm = clients.count() + 200;
    until("the successor has served", || clients.count() >= warm);
    clients.end();
    site.settles();
    let before = site.figures();

    let clients = Clients::start(&site.places(), &outages);
    let start = Instant::now();
    let mut events = ROUND.iter().copied().chain([KillBalancer]).cycle();
    while start.elapsed() < duration {
        let event = events.next().unwrap();
        match event {
            Reload => site.reload(),
            Upgrade => site.upgrade(),
            Log => site.toggle_log(),
            Kill => site.kill_provider(random.below(3) as usize, &outages),
            Freeze => site.freeze_provider(random.below(3) as usize, pause),
            KillBalancer => site.kill_balancer(&outages),
        }
        let pause = pause.as_millis() as u64;
        std::thread::sleep(Duration::from_millis(pause / 2 + random.below(pause)));
        site.sound();
    }
    let served = clients.count();
    let lost = clients.end();
    site.settles();
    let after = site.figures();
    println!("{served} requests, of which {} were on their way through something killed", {
        lost.excused
    });
    println!("{}", site.told());
    println!("before: {before:?}\nafter:  {after:?}");
    assert!(lost.failures.is_empty(), "{} lost: {:#?}", lost.failures.len(), {
        &lost.failures[..lost.failures.len().min(20)]
    });
    assert!(served > 20 * duration.as_secs() as usize, "{served} requests only");
    after.is_like(&before);
    site.ends();
}
