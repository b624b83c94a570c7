//! A deterministic simulation: the real state machines, and nothing else that
//! is real. Hosts crash, connections break, providers die and fall silent, and
//! after every step the laws of tickets must hold.
//!
//! A failure prints the line that brings it back.

mod hosts;
mod ledger;
mod network;
mod world;

use pegasus_core::base::time::Span;
use world::World;

/// Worlds of one run of the tests.
const SEEDS: u64 = 32;
/// The first of them.
const FIRST: u64 = 0x7347;

/// Prints how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay: PEGASUS_SEED={:#x} cargo test sim", self.0);
        }
    }
}

fn seed() -> Option<u64> {
    let text = std::env::var("PEGASUS_SEED").ok()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What a world came to: clients served and not, grants and errors of queues,
/// and a digest of its history.
fn live(seed: u64) -> ([u32; 2], [u64; 2], u64) {
    let _replay = Replay(seed);
    let mut world = World::new(seed);
    world.run(Span::from_secs(12));
    (world.ended, world.answers, world.history)
}

#[test]
fn the_laws_of_tickets_hold_in_every_world() {
    if let Some(seed) = seed() {
        println!("{:?}", live(seed));
        return;
    }
    let (mut ended, mut answers) = ([0; 2], [0; 2]);
    for seed in FIRST..FIRST + SEEDS {
        let world = live(seed);
        (0..2).for_each(|kind| ended[kind] += world.0[kind]);
        (0..2).for_each(|kind| answers[kind] += world.1[kind]);
    }
    // Laws that hold because nothing happens would prove nothing.
    assert!(ended[0] > 3000 && ended[1] > 200, "clients served and not: {ended:?}");
    assert!(answers[0] > 3000 && answers[1] > 200, "grants and errors: {answers:?}");
}

#[test]
fn a_seed_gives_the_same_world_again() {
    for seed in seed().map_or(FIRST..FIRST + 4, |seed| seed..seed + 1) {
        assert_eq!(live(seed), live(seed));
    }
}
