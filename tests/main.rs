//! The tests that need more than one module: one binary, one folder a kind.

mod bench;
mod exhaustive;
mod market;
mod plan;
mod sim;
mod support;
mod system;
