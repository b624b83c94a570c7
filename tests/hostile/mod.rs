//! State machines and parsers that are given whatever can come, and what cannot.
//!
//! Owns the seeded run of each body; `tests/fuzz` gives the same bodies to a fuzzer.
//! `PEGASUS_FUZZ_SECONDS` sets how long each runs.

mod bytes;
mod flows;
mod monitor;
mod parsers;
mod redirector;
mod ticket_queue;

use pegasus_core::base::random::Random;
use std::time::{Duration, Instant};

/// Inputs of each run, unless a time is given.
const RUNS: usize = 300;
/// The longest input, in bytes.
const BYTES_MAX: usize = 2048;

/// Gives a body inputs from a seed that is printed.
fn run(body: fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok();
    let seed = number("PEGASUS_SEED")
        .and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0x7347);
    let seconds = number("PEGASUS_FUZZ_SECONDS").and_then(|text| text.parse().ok());
    println!("replay: PEGASUS_SEED={seed:#x}");
    let mut random = Random::new(seed);
    let (start, mut runs) = (Instant::now(), 0);
    let goes_on = |runs: usize| match seconds {
        Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
        None => runs < RUNS,
    };
    while goes_on(runs) {
        let length = random.below(BYTES_MAX);
        let data: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        body(&data);
        runs += 1;
    }
    println!("{runs} runs");
}

#[test]
fn parsers_take_any_bytes() {
    run(parsers::run);
}

#[test]
fn a_ticket_queue_endures_any_inputs() {
    run(ticket_queue::run);
}

#[test]
fn a_redirector_endures_any_inputs() {
    run(redirector::run);
}

#[test]
fn flows_endure_any_inputs() {
    run(flows::run);
}

#[test]
fn a_monitor_endures_any_inputs() {
    run(monitor::run);
}
