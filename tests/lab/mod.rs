//! The laboratory: what the schedulers, the ticket queue and the monitor's law
//! are worth, in virtual time.
//!
//! The product's own state machines on simulated hosts, against the policies they
//! compete with, on the same arrivals. Whatever is measured, the laws of tickets are
//! checked at every step. A failure prints the line that brings it back.
//!
//! `cargo test --release lab_table -- --ignored --nocapture` prints the table.

mod agenda;
mod baselines;
mod cluster;
mod engines;
mod figures;
mod host;
mod ledger;
mod paper;
mod peers;
mod scale;
mod setting;
mod strict;
mod table;
mod targets;
mod work;
mod world;

use pegasus_core::base::time::Span;
use pegasus_core::scheduler::SCHEDULERS;
use setting::Setting;
use std::fmt::Write;
use targets::Lab;
use world::{Policy, DEFAULT};

/// The arrivals, unless PEGASUS_SEED says otherwise.
const SEED: u64 = 0x7347;
/// How long laws are watched after the first seconds.
const LAWS: Span = Span::from_secs(2);

/// Prints how to see a failure again.
struct Replay(u64, &'static str);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "replay: PEGASUS_SEED={:#x} cargo test --release {} -- --include-ignored",
                self.0, self.1
            );
        }
    }
}

fn seed() -> u64 {
    let Ok(text) = std::env::var("PEGASUS_SEED") else { return SEED };
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).expect("a number"),
        None => text.parse().expect("a number"),
    }
}

/// Runs a setting, and fails if it misses a target.
fn meets(setting: Setting, test: &'static str) {
    let _replay = Replay(seed(), test);
    let mut lab = Lab::new(setting, seed());
    let verdicts = lab.judge();
    let mut text = String::new();
    verdicts.iter().for_each(|verdict| writeln!(text, "{verdict}").expect("text"));
    println!("{}: {}\n{text}", lab.setting.name, lab.setting.title);
    assert!(
        verdicts.iter().all(targets::Verdict::holds),
        "{}: {}\n{text}",
        lab.setting.name,
        lab.setting.title
    );
}

/// A test for each target, a hundred seconds long.
macro_rules! scenarios {
    ($($test:ident $name:literal),* $(,)?) => {
        $(#[test]
        #[cfg_attr(debug_assertions, ignore = "long; debug mode runs short ones")]
        fn $test() {
            meets(Setting::named($name), stringify!($test));
        })*
    };
}

scenarios! {
    t01_same_machines "T1",
    t02_sixteen_balancers "T2",
    t03_speeds "T3",
    t04_cores "T4",
    t05_input_and_output "T5",
    t06_all_traffic_at_one_balancer "T6",
    t07_overload "T7",
    t08_a_long_way "T8",
    t09a_a_service_dies "T9a",
    t09b_a_host_falls_silent "T9b",
    t09c_a_service_flaps "T9c",
    t09d_a_host_flaps "T9d",
    t10_uncounted "T10",
    t11_tickets_stop "T11",
    t12_antagonists "T12",
    x1_messages_are_lost "X1",
    f17_ends_at_once "F17",
    h08_opposite_peaks "H8",
}

/// The shortened ones whose targets hold for any seed after so short a time.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "release mode runs the long ones")]
fn short_scenarios() {
    for name in ["T1", "T3", "T6", "T9a", "T11", "T12"] {
        meets(Setting::named(name).shortened(), "short_scenarios");
    }
}

/// The laws of tickets hold for every scheduler, in slots and in the paper's way.
#[test]
fn laws_hold_for_every_scheduler() {
    let _replay = Replay(seed(), "laws_hold_for_every_scheduler");
    for name in ["T9d", "T7", "T10"] {
        let setting = Setting::named(name).shortened();
        let mut lab =
            Lab::new(Setting { length: setting.warm + LAWS, loss: 0.1, ..setting }, seed());
        for scheduler in SCHEDULERS.iter().map(|entry| entry.names[0]) {
            let figures = lab.figures(Policy::Pegasus(scheduler));
            // Laws that hold because nothing happens would prove nothing.
            assert!(figures.answered_count() > 500, "{name} {scheduler}: {figures:?}");
        }
    }
}

/// A thousand providers and 32 balancers, in seconds.
#[test]
#[cfg_attr(debug_assertions, ignore = "long in debug mode")]
fn a_thousand_providers() {
    let _replay = Replay(seed(), "a_thousand_providers");
    let mut lab = Lab::new(Setting::large(), seed());
    let start = std::time::Instant::now();
    let ours = lab.figures(DEFAULT).clone();
    let took = start.elapsed();
    let theirs = lab.figures(Policy::LeastConn).mean();
    let (mean, count) = (ours.mean(), ours.answered_count());
    println!(
        "{count} requests, mean {mean:.1} ms, leastconn {theirs:.1} ms, {} messages, {took:?}",
        ours.messages
    );
    assert_eq!(ours.refused, 0);
    assert!(mean <= 0.8 * theirs, "{mean} against {theirs}");
}
