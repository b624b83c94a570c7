//! How fast it is. Prints and asserts nothing:
//! `cargo test --release bench_ -- --ignored --nocapture --test-threads 1`.

mod abuse;
mod attacks;
mod chart;
mod endtoend;
mod exact;
mod follow;
mod host;
pub mod json;
mod page;
mod paper;
mod provider;
mod relay;
mod schedulers;
pub mod statistics;
