//! How fast it is. Prints and asserts nothing:
//! `cargo test --release bench_ -- --ignored --nocapture`.

mod endtoend;
mod schedulers;
