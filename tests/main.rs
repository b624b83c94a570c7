//! The tests that need more than one module: one binary, one folder a kind.

mod bench;
mod sim;
mod support;
mod system;
