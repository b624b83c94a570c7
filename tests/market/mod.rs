//! The laboratory: what the schedulers, the ticket queue and the monitor's law
//! are worth, in virtual time.
//!
//! The real machines on simulated computers, against those whom they compete
//! with on the same arrivals. Whatever is measured, the laws of tickets are
//! checked at every step. A failure prints the line that brings it back.

mod agenda;
mod baselines;
mod cluster;
mod figures;
mod ledger;
mod machine;
mod setting;
mod table;
mod targets;
mod world;

use setting::Setting;
use std::fmt::Write;
use targets::Lab;

/// The arrivals, unless PEGASUS_SEED says otherwise.
const SEED: u64 = 0x7347;

/// Prints how to see a failure again.
struct Replay(u64, &'static str);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay: PEGASUS_SEED={:#x} cargo test --release {} -- --include-ignored", self.0, self.1);
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
    assert!(verdicts.iter().all(targets::Verdict::holds), "{}: {}\n{text}", lab.setting.name, lab.setting.title);
}

/// A test for each target.
macro_rules! scenarios {
    ($($test:ident $name:literal),* $(,)?) => {
        $(#[test]
        #[cfg_attr(debug_assertions, ignore = "a hundred seconds; debug mode runs short ones")]
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
}
