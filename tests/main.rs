//! The tests that need more than one module: one binary, one folder a kind.

mod architecture;
mod bench;
mod exhaustive;
mod hostile;
mod lab;
mod reference_model;
mod sim;
mod support;
mod system;
